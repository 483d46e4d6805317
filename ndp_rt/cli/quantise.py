"""`ndp-rt quantise`: chooses the layers of a bundle that compute in int8, within a limit on accuracy."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import make_console, show

if TYPE_CHECKING:
    from ndp_rt.bundle import Bundle
    from ndp_rt.quantise.run import Quantised, QuantiseSettings

# The arguments of `add_quantise_arguments`, as attributes; None where one is left out.
QUANTISE_ARGUMENTS = ("calibration", "validation", "max_drop", "false_alarm_rate", "page", "report")

REPORT_WIDTH = 110  # columns, at least, where the output is no terminal

DETAILS = """\
Ranges come from good images and from defects painted into them. All layers are tried in int8 but those that int8 makes
slower. Image ROCAUC, pixel ROCAUC, AUPRO and decisions are compared with fp32's on good images, changed a little, and
on painted defects: on as many as bring what chance does to image ROCAUC below --max-drop, or as time allows. Where one
drops by more than --max-drop and two standard errors, as few layers as needed are put back. A precision is accepted
only if it is faster than what its other layers compute in: int8 than fp32, mixed than bf16. The layers and the
thresholds, calibrated anew on the good images, go into the bundle, in place of all that were chosen before; engines are
then built with: ndp-rt build-engine NAME.ndp --precision int8 (or mixed). On a GPU the same layers serve TensorRT. It
takes under five minutes on two cores.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "bundle", metavar="NAME.ndp", type=Path, help="the bundle; its layers and thresholds are changed"
    )
    add_quantise_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=("int8", "mixed"),
        help="int8 (the rest in fp32) or mixed (in bf16) alone (default: both, mixed where the processor has bf16)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of the engines (default: the backend's choice)"
    )


def add_quantise_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the arguments of calibration and of the limit on accuracy."""
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        nargs="+",
        help="good images that the model was not trained on: folders, files or patterns (default: the bundle's own)",
    )
    parser.add_argument(
        "--validation",
        metavar="DATA",
        type=Path,
        help="labelled images in MVTec AD's layout, to measure accuracy on (default: painted defects)",
    )
    add_page(parser)
    parser.add_argument("--max-drop", metavar="D", type=float, help="how much accuracy may drop (default: 0.003)")
    parser.add_argument("--false-alarm-rate", metavar="R", type=float, help="wanted highest rate, 0.01 for 1 %%")
    parser.add_argument("--report", metavar="FILE", type=Path, help="also write the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Choose the layers, store them, and print the report."""
    from ndp_rt.bundle.open import open_bundle

    quantise(open_bundle(args.bundle), args, None if args.precision is None else (args.precision,))
    return 0


def quantise(bundle: "Bundle", args: argparse.Namespace, precisions: tuple[str, ...] | None) -> "Quantised":
    """Quantise a bundle as the arguments of `add_quantise_arguments` say, and print the report.

    Args:
        bundle: opened; it keeps its former content, its folder changes.
        precisions: to choose layers for; None: those that this processor has.
    """
    from ndp_rt.files import storing
    from ndp_rt.quantise.report import print_report
    from ndp_rt.quantise.run import quantise_bundle

    console = make_console()
    console.soft_wrap = True
    if not console.is_terminal:
        console.width = max(console.width, REPORT_WIDTH)
    settings = make_settings(bundle.path, args, precisions)
    found = quantise_bundle(
        bundle, settings, progress=lambda line: console.print(show(f"  {line}"), style="dim", markup=False)
    )
    print_report(console, found)
    if args.report is not None:
        remedy = "The bundle holds the report too, in int8.json. Choose a folder that you may write to."
        with storing(args.report, remedy):
            args.report.write_text(json.dumps(found.report, indent=1) + "\n", encoding="utf-8")
    for name in found.choices:
        console.print(
            show(f"{bundle.path.name}: build with: ndp-rt build-engine {bundle.path} --precision {name}"), markup=False
        )
    return found


def make_settings(path: Path, args: argparse.Namespace, precisions: tuple[str, ...] | None) -> "QuantiseSettings":
    """Return the settings that the arguments say."""
    import dataclasses

    from ndp_rt.cli.good_images import list_good_images
    from ndp_rt.quantise.run import MAX_DROP, QuantiseSettings, make_command

    settings = QuantiseSettings(
        calibration=None if args.calibration is None else list_good_images(args.calibration, page=args.page),
        validation=args.validation,
        page=args.page,
        max_drop=MAX_DROP if args.max_drop is None else args.max_drop,
        false_alarm_rate=args.false_alarm_rate,
        precisions=precisions,
        threads=args.threads,
    )
    return dataclasses.replace(settings, command=make_command(path, settings))
