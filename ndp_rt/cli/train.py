"""`ndp-rt train`: photographs of a good surface in, a trained run folder out."""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.page import add_page
from ndp_rt.cli.set_threshold import add_group_by
from ndp_rt.cli.terminal import say
from ndp_rt.cli.white_level import add_white_level
from ndp_rt.errors import MissingExtraError

if TYPE_CHECKING:
    from ndp_rt.export.models.family import Family

AUTO = "auto"  # of --size
DESCRIPTION = """\
Train a model on photographs of a good surface, without a single photograph of a defect.
DATA is a folder of good images, or a category in MVTec AD's layout (DATA/train/good; DATA/validation/good, where it is
there, becomes the calibration slice). Images are grey, RGB or RGBA, of 8 or 16 bits, and may differ in size: alpha is
dropped, the whole range becomes 0 to 1, and each is resized to --size whatever its aspect, as in inspection.
The calibration slice is whole groups of images, where groups can be seen (--group-by). Copies are left out.
Ctrl-C leaves a checkpoint; --resume goes on from it to the same weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every family has."""
    parser.description = DESCRIPTION
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of good images, or MVTec AD's layout")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", required=True, help="folder to write the run to")
    _add_family(parser)
    parser.add_argument("--textures", type=Path, metavar="DIR", help="photographs of other surfaces, for defects")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="N|HxW|auto",
        help="input size in px (default 256); auto: larger, with the images' aspect, where the resize would blur the "
        "surface's fine structure",
    )
    add_page(parser)
    add_white_level(parser, "what the largest value of the good images says")
    parser.add_argument("--crop", type=int, metavar="N", help="side of the crops that training sees")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, split and defects (default 0)")
    parser.add_argument(
        "--holdout", type=float, metavar="SHARE", help="of good images for calibration (default: the model's)"
    )
    add_group_by(parser)
    parser.add_argument(
        "--time",
        "--minutes",
        dest="minutes",
        type=parse_minutes,
        metavar="5m",
        help="cut training short after that time",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="images a step")
    parser.add_argument("--learning-rate", type=float, metavar="R")
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads (default: usable cores but one, which draws the batches); part of what decides the weights",
    )
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), help="bf16: mixed precision (default where the device has it)"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu (default) or a CUDA device of PyTorch's")
    parser.add_argument(
        "--defects",
        type=_changes,
        metavar="NAME=NUMBER,...",
        help="what is known of the defects to expect, such as scratch=0.9,texture=0.05 for cracks "
        "(names: DefectSettings)",
    )
    parser.add_argument(
        "--augment",
        type=_changes,
        metavar="NAME=NUMBER,...",
        help="how good images vary, such as spot_share=0.5 where stains are harmless (names: AugmentSettings)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, if there is one")


def add_arguments_after(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Add the arguments of the family that --family names among the command line's."""
    from ndp_rt.export.models.registry import find_family

    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_family(known)
    family = find_family(known.parse_known_args(arguments)[0].family)
    own = parser.add_argument_group(f"{family.title} (--model {family.name})")
    presets = family.presets
    own.add_argument("--preset", choices=presets, default=presets[0], help=f"default: {presets[0]}")
    parser.set_defaults(steps=None, epochs=None)
    length = own.add_mutually_exclusive_group() if family.phase_count else own  # argparse has no help for an empty one
    for option in ("steps", "epochs") if family.phase_count else ():
        numbers = ",".join("ABCDEFGH"[: family.phase_count])
        what = "the phases" if family.phase_count > 1 else "training"
        take = _numbers(family.phase_count)
        length.add_argument(f"--{option}", type=take, metavar=numbers, help=f"{option} of {what}")
    family.add_arguments(own)
    parser.set_defaults(found_family=family)


def _add_family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        "--family",
        dest="family",
        metavar="NAME",
        default="memseg",
        help="model family: memseg (default), gaussian (fitted in seconds) or ndpnet",
    )


def _changes(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name: float(value) for name, _, value in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER,NAME=NUMBER,..., got '{text}'") from error


def _numbers(count: int) -> Callable[[str], tuple[int, ...]]:
    example = ",".join(["500", "3500", *["1000"] * count][:count])

    def take(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        if len(parts) != count or not all(part.isdecimal() for part in parts):
            raise argparse.ArgumentTypeError(f"expected {count} whole number(s) such as {example}, got '{text}'")
        return tuple(int(part) for part in parts)

    return take


def _size(text: str) -> tuple[int, int] | str:
    """Return height and width, or AUTO."""
    if text == AUTO:
        return text
    height, cross, width = text.partition("x")
    width = width if cross else height
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"expected a number such as 256, or 128x512 (height x width), or auto, got '{text}'"
        )
    return int(height), int(width)


def parse_minutes(text: str) -> float:
    """Return the minutes of a time such as 90s, 5m, 2h or 5 (minutes)."""
    units = {"s": 1.0 / 60.0, "m": 1.0, "h": 60.0}
    unit = units.get(text[-1:], 1.0)
    try:
        minutes = unit * float(text[:-1] if text[-1:] in units else text)
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time above 0 such as 90s, 5m or 2h, got '{text}'")
    return minutes


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    for module, name in (("torch", "PyTorch"), ("matplotlib", "matplotlib for the curve")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"training needs {name}, which is not installed: pip install 'ndp-rt[train]'")
    from ndp_rt.devices.core_limit import count_usable_cores
    from ndp_rt.export.training.progress import make_reporter
    from ndp_rt.export.training.run_folder import RunFolder, command_line
    from ndp_rt.export.training.start import TrainRequest, train_run

    family: Family = args.found_family
    height, width = args.size if isinstance(args.size, tuple) else (None, None)
    changes = {
        "seed": args.seed,
        "holdout": args.holdout,
        "crop_px": args.crop,
        "phase_steps": args.steps,
        "batch_size": args.batch,
        "learning_rate": args.learning_rate,
        "thread_count": max(1, count_usable_cores() - 1) if args.threads is None else args.threads,
        "precision": args.precision,
        "device": args.device,
        "height_px": height,
        "width_px": width,
        "defects": args.defects,
        "augment": args.augment,
    }
    request = TrainRequest(
        data=args.data,
        run=args.output,
        family=family.name,
        preset=args.preset,
        changes={name: value for name, value in changes.items() if value is not None},
        options=family.read_arguments(args),
        textures=args.textures,
        epochs=args.epochs,
        page=args.page,
        white_level=args.white_level,
        chooses_size=args.size == AUTO,
        group_by=args.group_by,
        minutes=args.minutes,
        resumes=args.resume,
        command=command_line(),
    )
    reporter = make_reporter()
    try:
        train_run(request, reporter)
    except KeyboardInterrupt:
        has_checkpoint = RunFolder(path=args.output).has_checkpoint
        kept = f"; {args.output} keeps the checkpoint. Go on" if has_checkpoint else ". Begin again"
        reporter.say(f"stopped{kept} with the same command and --resume")
        return 130
    finally:
        reporter.stop()  # whatever ended it, the terminal gets its cursor back
    say(f"trained: {args.output}")
    return 0
