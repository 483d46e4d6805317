"""`ndp-rt export-stages`: a bundle's graphs for a GPU, typed, for a machine that has no onnx package to make them with.

A command of its own: `export` takes a training run and needs PyTorch, `build-engine` needs the machine that it builds
for, and this one needs neither.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.terminal import say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ndp_rt.program.manifest import InputContract

DETAILS = """\
A GPU's engines are built from graphs that have the precision in their own types, which takes the onnx package. Where
that is missing, write them on another machine with this command and copy the folder and the bundle there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = DETAILS
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    parser.add_argument(
        "--precision", choices=("fp32", "tf32", "fp16", "bf16", "int8"), default="fp16", help="default: %(default)s"
    )
    parser.add_argument(
        "--plan",
        metavar="NAME",
        help="which of the bundle's programs for a GPU: of NDP-Net staged, unmerged or fused (default: the first)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="IMAGES",
        nargs="+",
        help="for int8: files, folders or patterns of images, of the good surface and, if you have some, of defects",
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="a folder, empty or new")


def run(args: argparse.Namespace) -> int:
    """Write the stages and print what they are."""
    from ndp_rt.bundle.open import open_bundle
    from ndp_rt.engines.stage_files import write_stages

    bundle = open_bundle(args.bundle)
    calibration = None if args.calibrate is None else read_inputs(args.calibrate, bundle.manifest.input)
    folder = write_stages(bundle, args.precision, args.output, plan=args.plan, calibration=calibration)
    say(f"{folder.path}: {folder.precision}, plan {folder.plan}, {folder.size_bytes / 1e6:.2f} MB")
    for stage in folder.stages.values():
        say(f"{stage.path.name}: {', '.join(stage.inputs)} -> {', '.join(stage.outputs)}; {stage.sha256[:12]}")
    return 0


def read_inputs(paths: Sequence[str], contract: "InputContract") -> "NDArray[np.float32]":
    """Read images and return them preprocessed, [k, 3, h, w]."""
    import numpy as np

    from ndp_rt.images.listing import list_images
    from ndp_rt.images.preprocess import preprocess
    from ndp_rt.images.read import read_image

    files = list_images(paths).files
    inputs = np.empty((len(files), 3, contract.height_px, contract.width_px), np.float32)
    for file, out in zip(files, inputs, strict=True):
        preprocess(read_image(file, white_level=contract.white_level_16bit), contract, out)
    return inputs
