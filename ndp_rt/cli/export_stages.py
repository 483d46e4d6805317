"""`ndp-rt export-stages`: a bundle's graphs for a GPU, typed, for a machine that has no onnx package to make them with.

A command of its own: `export` takes a training run and needs PyTorch, `build-engine` needs the machine that it builds
for, and this one needs neither.
"""

import argparse
from pathlib import Path

DETAILS = """\
A GPU's engines are built from graphs that have the precision in their own types, which takes the onnx package. Where
that is missing, write them on another machine with this command and copy the folder and the bundle there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = DETAILS
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    parser.add_argument(
        "--precision", choices=("fp32", "tf32", "fp16", "bf16"), default="fp16", help="default: %(default)s"
    )
    parser.add_argument(
        "--plan",
        choices=("staged", "unmerged", "fused"),
        default="staged",
        help="two engines, the second with decoder, head and segmentation; four engines; one (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="a folder, empty or new")


def run(args: argparse.Namespace) -> int:
    """Write the stages and print what they are."""
    from ndp_rt.bundle.open import open_bundle
    from ndp_rt.engines.stage_files import write_stages

    folder = write_stages(open_bundle(args.bundle), args.precision, args.output, plan=args.plan)
    print(f"{folder.path}: {folder.precision}, plan {folder.plan}, {folder.size_bytes / 1e6:.2f} MB")
    for stage in folder.stages.values():
        print(f"{stage.path.name}: {', '.join(stage.inputs)} -> {', '.join(stage.outputs)}; {stage.sha256[:12]}")
    return 0
