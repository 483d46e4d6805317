"""`ndp-rt export`: a trained run in, a bundle out."""

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.terminal import complain, say
from ndp_rt.cli.white_level import add_white_level
from ndp_rt.errors import MissingExtraError

if TYPE_CHECKING:
    from ndp_rt.export.onnx.bundle import Export

DESCRIPTION = """\
Turn a finished training run into a bundle: graphs, golden vectors, and thresholds from the good images that the run
held out. Every graph is compared with PyTorch first; nothing is written if one differs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder that 'ndp-rt train' wrote")
    parser.add_argument("-o", "--output", type=Path, metavar="NAME.ndp", required=True, help="the bundle to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle of that name")
    parser.add_argument(
        "--weights", choices=("fp32", "fp16"), default="fp32", help="how weights are stored; fp16 halves the size"
    )
    parser.add_argument(
        "--false-alarm-rate",
        type=float,
        metavar="R",
        help="highest rate of false alarms wanted, 0.01 for 1 %% (default: 5 %%, predicted)",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        metavar="N",
        default=32,
        help="good images that the bundle carries at most, for ndp-rt quantise (default: %(default)s)",
    )
    parser.add_argument(
        "--quantise",
        action="store_true",
        help="then choose the layers that compute in int8, as ndp-rt quantise does; some minutes",
    )
    add_white_level(parser, "the run's")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--no-rewrite", action="store_true", help="export the plain graph, to compare speed with")


def run(args: argparse.Namespace) -> int:
    """Export, and print size, differences and thresholds."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("exporting needs PyTorch, which is not installed: pip install 'ndp-rt[train]'")
    from ndp_rt.export.onnx.bundle import ExportSettings, export_run
    from ndp_rt.export.training.run_folder import command_line

    settings = ExportSettings(
        rewrite=not args.no_rewrite,
        weights=args.weights,
        false_alarm_rate=args.false_alarm_rate,
        calibration_image_count=args.calibration_images,
        threads=args.threads,
        white_level=args.white_level,
        overwrite=args.overwrite,
        command=command_line(),
    )
    export = export_run(args.run, args.output, settings, progress=print_progress)
    print_export(export)
    if args.quantise:
        quantise_export(export, args)
    return 0


def quantise_export(export: "Export", args: argparse.Namespace) -> None:
    """Choose a new bundle's int8 layers; where none serve, say why, and leave it as it is."""
    from ndp_rt.cli.quantise import QUANTISE_ARGUMENTS, quantise
    from ndp_rt.errors import EngineError

    defaults = dict.fromkeys(QUANTISE_ARGUMENTS)
    given = {"false_alarm_rate": args.false_alarm_rate, "threads": args.threads}
    try:
        quantise(export.bundle, argparse.Namespace(**{**defaults, **given}), None)
    except EngineError as error:
        complain(f"ndp-rt: {export.bundle.path.name} is ready, without int8 layers: {error}")


def print_progress(line: str) -> None:
    """Print one step to stderr."""
    complain(f"ndp-rt: {line}")


def print_export(export: "Export") -> None:
    """Print the bundle's size, its difference from PyTorch and its thresholds."""
    model, worst = export.bundle.manifest.model, export.parity.worst
    rewrites = f"{len(model.rewrites)} rewrites" if model.rewrites else "plain graph"
    say(f"exported {export.bundle.path}: {export.size_bytes / 1e6:.2f} MB, {rewrites}, {model.weights} weights")
    say(
        f"difference from PyTorch on {len(export.parity.image_names)} images, at most: "
        f"map {worst.map_max_abs:.1e}, score {worst.score_max_abs:.1e} ({', '.join(export.parity.cases)})"
    )
    for case, why in export.parity.not_measured.items():
        say(f"not compared: {case}: {why}")
    for precision, threshold in export.thresholds.items():
        value = "none" if threshold.value is None else f"{threshold.value:.5f}"
        say(f"threshold {precision}: {value}; {threshold.note}")
