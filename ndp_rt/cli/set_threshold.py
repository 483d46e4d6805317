"""`ndp-rt set-threshold`: changes the decision threshold, by hand or from good images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.counting_arguments import add_counting_arguments, check_counting, counting_options
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import complain, say

if TYPE_CHECKING:
    from ndp_rt.program.manifest import ThresholdSpec

DETAILS = """\
With --calibrate the threshold comes from the scores of the good images in DIR, which the model must not have been
trained on; each is also scored with light, focus and position changed a little. It is what 5 % of the good images of
other lots are predicted to reach. Images of one sheet or one day are alike, so they count as one group. With
--false-alarm-rate R the threshold is as low as that rate allows. The number of groups decides which rate can be
promised: 29, 59, 149, 299 or 598 for at most 10, 5, 2, 1 or 0.5 % of false alarms, at 95 % confidence. Each precision
has its own threshold. Engines need no rebuild. A line that inspects with --ignore or --smallest-area needs a threshold
that was calibrated with the same.
"""


def add_group_by(parser: argparse.ArgumentParser) -> None:
    """Add --group-by."""
    parser.add_argument(
        "--group-by",
        metavar="RULE",
        default="auto",
        help="which good images are alike for reasons that the next lot lacks: those of one folder, of one prefix of "
        "the file names, of one content (near-duplicates and overlaps), none, or those for which a regular expression "
        "finds the same in the path (default: %(default)s, the first of these that shows groups)",
    )


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which images of --calibrate count, and how."""
    add_group_by(parser)
    add_page(parser)
    parser.add_argument(
        "--no-variations",
        action="store_true",
        help="for --calibrate: score images only as they are, where they show all that changes on the line",
    )
    add_counting_arguments(parser, "for --calibrate: ")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle; its manifest is changed")
    parser.add_argument("value", metavar="VALUE", type=float, nargs="?", help="a defect scores at least this")
    parser.add_argument("--calibrate", metavar="DIR", nargs="+", help="folder (or files) of good images")
    parser.add_argument("--false-alarm-rate", metavar="R", type=float, help="wanted highest rate, 0.01 for 1 %%")
    add_calibration_arguments(parser)
    parser.add_argument("--precision", default="fp32", help="whose threshold, such as fp32 (default: %(default)s)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="for --calibrate: cpu, cuda or cuda:N")
    parser.add_argument("--backend", metavar="NAME", help="for --calibrate (default: the device's first)")
    parser.add_argument("--threads", type=int, metavar="N", help="for --calibrate (default: the backend's choice)")


def run(args: argparse.Namespace) -> int:
    """Change the threshold and say what it was and is."""
    from ndp_rt.bundle.open import open_bundle
    from ndp_rt.editing import set_threshold
    from ndp_rt.errors import InputError, check_choice
    from ndp_rt.program.manifest import PRECISIONS, ThresholdSpec

    if (args.value is None) == (args.calibrate is None):
        raise InputError(f"expected VALUE or --calibrate, got {'neither' if args.value is None else 'both'}.")
    if args.value is not None and args.false_alarm_rate is not None:
        raise InputError("--false-alarm-rate: expected --calibrate with it, got a VALUE.")
    check_counting(args)
    check_choice("precision", args.precision, PRECISIONS)
    bundle = open_bundle(args.bundle)
    former = bundle.threshold(args.precision)
    if args.value is not None:
        threshold = ThresholdSpec(value=args.value, source="manual", note="set by hand", map_value=former.map_value)
    else:
        threshold = calibrate_from(args.bundle, args, args.device)
    set_threshold(bundle, args.precision, threshold)
    say(f"{args.bundle}, {args.precision}: threshold {describe(former)} -> {describe(threshold)}")
    unreachable = None if threshold.value is None else bundle.manifest.describe_unreachable(threshold.value)
    if unreachable is not None:
        complain(f"ndp-rt: {unreachable}")
    return 0


def calibrate_from(path: Path, args: argparse.Namespace, device: str) -> "ThresholdSpec":
    """Score the images of --calibrate, with progress, and return the threshold they support."""
    from ndp_rt.bundle.open import open_bundle
    from ndp_rt.cli.engine_arguments import log_to_stderr
    from ndp_rt.cli.good_images import list_good_images
    from ndp_rt.cli.progress import show_progress
    from ndp_rt.editing import calibrate

    log_to_stderr()
    bundle = open_bundle(path)
    images = list_good_images(args.calibrate, bundle.manifest.training_images, args.page)
    with show_progress("scoring good images", len(images)) as advance:
        return calibrate(
            bundle,
            images,
            rate=args.false_alarm_rate,
            group_by=args.group_by,
            varies=not args.no_variations,
            precision=args.precision,
            device=device,
            backend=args.backend,
            threads=args.threads,
            on_image=advance,
            **counting_options(args),
        )


def describe(threshold: "ThresholdSpec") -> str:
    """Return a threshold in words."""
    if threshold.value is None:
        return "none"
    of_map = "" if threshold.map_value is None else f"; of the map: {threshold.map_value:.6g}"
    return f"{threshold.value:.6g} ({threshold.source}{': ' if threshold.note else ''}{threshold.note}){of_map}"
