"""`ndp-rt train`: photographs of a good surface in, a trained run folder out."""

import argparse
import importlib.util
import os
from pathlib import Path

from ndp_rt.errors import MissingExtraError

DESCRIPTION = """\
Train NDP-Net on photographs of a good surface, without a single photograph of a defect.
DATA is a folder of good images, or a category in MVTec AD's layout (DATA/train/good; DATA/validation/good, where it is
there, becomes the calibration slice). Images are grey, RGB or RGBA, of 8 or 16 bits, and may differ in size: alpha is
dropped, the whole range becomes 0 to 1, and each is resized to --size whatever its aspect, as in inspection.
Ctrl-C leaves a checkpoint; --resume goes on from it to the same weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `ndp-rt train` takes."""
    parser.description = DESCRIPTION
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of good images, or MVTec AD's layout")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", required=True, help="folder to write the run to")
    parser.add_argument("--preset", choices=("edge", "paper"), default="edge", help="w = 16 (default) or 64")
    parser.add_argument("--textures", type=Path, metavar="DIR", help="photographs of other surfaces, for defects")
    parser.add_argument("--vgg", type=Path, metavar="FILE", help="VGG-16 weights (safetensors) for L_per")
    parser.add_argument("--reference", type=Path, metavar="IMAGE", help="the reference; default: chosen from the data")
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="RUN",
        help="learn from a trained run too, such as one of preset paper of the same input size: its folder, or its "
        "checkpoint.safetensors once it is in phase 2",
    )
    parser.add_argument("--distil-weight", type=float, metavar="W", help="of the teacher's anomaly maps (default 1)")
    parser.add_argument("--distil-features", type=float, metavar="W", help="of its encoder's features (default 0)")
    parser.add_argument("--size", type=_size, metavar="N|HxW", help="input size in px, multiples of 64 (default 256)")
    parser.add_argument("--crop", type=int, metavar="N", help="side of the crops that training sees")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, split and defects (default 0)")
    parser.add_argument("--holdout", type=float, metavar="SHARE", help="of good images for calibration (default 0.1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_pair, metavar="A,B", help="steps of phases 1 and 2")
    length.add_argument("--epochs", type=_pair, metavar="A,B", help="epochs of phases 1 and 2")
    parser.add_argument("--minutes", type=_minutes, metavar="M", help="cut training short after M minutes")
    parser.add_argument("--batch", type=int, metavar="N", help="images a step")
    parser.add_argument("--learning-rate", type=float, metavar="R")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: all); part of what decides the weights"
    )
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="bf16: mixed precision (default)")
    parser.add_argument("--device", metavar="NAME", help="cpu (default) or a CUDA device of PyTorch's")
    parser.add_argument(
        "--defects",
        type=_changes,
        metavar="NAME=NUMBER,...",
        help="what is known of the defects to expect, such as line_share=0.9,blob_share=0.05 for cracks "
        "(names: DefectSettings)",
    )
    parser.add_argument(
        "--augment",
        type=_changes,
        metavar="NAME=NUMBER,...",
        help="how good images vary, such as spot_share=0.5 where stains are harmless (names: AugmentSettings)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, if there is one")


def _changes(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name: float(value) for name, _, value in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': NAME=NUMBER,NAME=NUMBER,... is taken") from error


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.isdecimal() and second.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}': two numbers such as 500,3500 are taken")
    return int(first), int(second)


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    width = width if cross else height
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}': a number such as 256, or 128x512 (height x width), is taken")
    return int(height), int(width)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not minutes > 0.0:
        raise argparse.ArgumentTypeError(f"'{text}': a number above 0 is taken")
    return minutes


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    for module, name in (("torch", "PyTorch"), ("matplotlib", "matplotlib for the curve")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"training needs {name}, which is not installed: pip install 'ndp-rt[train]'")
    from ndp_rt.export.progress import make_reporter
    from ndp_rt.export.run_dir import RunDir, command_line
    from ndp_rt.export.training_run import TrainRequest, train_run

    distil = {"maps": args.distil_weight, "features": args.distil_features}
    options = {
        "seed": args.seed,
        "holdout": args.holdout,
        "crop_px": args.crop,
        "phase_steps": args.steps,
        "batch_size": args.batch,
        "learning_rate": args.learning_rate,
        "thread_count": (os.cpu_count() or 1) if args.threads is None else args.threads,
        "precision": args.precision,
        "device": args.device,
        "height_px": args.size and args.size[0],
        "width_px": args.size and args.size[1],
        "defects": args.defects,
        "augment": args.augment,
        "distil": {name: weight for name, weight in distil.items() if weight is not None} or None,
    }
    request = TrainRequest(
        data=args.data,
        run=args.output,
        preset=args.preset,
        changes={name: value for name, value in options.items() if value is not None},
        textures=args.textures,
        vgg=args.vgg,
        reference=args.reference,
        teacher=args.teacher,
        epochs=args.epochs,
        minutes=args.minutes,
        resumes=args.resume,
        command=command_line(),
    )
    reporter = make_reporter()
    try:
        train_run(request, reporter)
    except KeyboardInterrupt:
        kept = (
            f"; {args.output} keeps the checkpoint. Go on"
            if RunDir(path=args.output).has_checkpoint
            else ". Begin again"
        )
        reporter.say(f"stopped{kept} with the same command and --resume")
        return 130
    finally:
        reporter.stop()  # whatever ended it, the terminal gets its cursor back
    print(f"trained: {args.output}")
    return 0
