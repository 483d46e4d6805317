"""`ndp-rt set-reference`: changes the reference image, without training."""

import argparse
from pathlib import Path

from ndp_rt.cli.counting_arguments import check_counting
from ndp_rt.cli.set_threshold import add_calibration_arguments
from ndp_rt.cli.terminal import say

DETAILS = """\
The image must show the surface without a defect. Its features replace the former ones in the bundle, the staged plan
computes new golden maps, and the fused graph must agree with them before anything is written. Engines are built again
at the next use. Thresholds keep their values but lose their promise; --calibrate names good images that a new one, for
--precision, is calibrated from.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle; it is replaced in one step")
    parser.add_argument("image", metavar="IMAGE", type=Path, help="photograph of the good surface")
    parser.add_argument("--calibrate", metavar="DIR", nargs="+", help="folder (or files) of good images")
    parser.add_argument("--false-alarm-rate", metavar="R", type=float, help="for --calibrate, 0.01 for 1 %%")
    add_calibration_arguments(parser)
    parser.add_argument(
        "--precision", default="fp32", help="for --calibrate: fp32, bf16, int8 or mixed (default: %(default)s)"
    )
    parser.add_argument("--backend", metavar="NAME", help="of the engines (default: the CPU's first)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engines (default: the backend's choice)")


def run(args: argparse.Namespace) -> int:
    """Change the reference and, where asked, calibrate."""
    from ndp_rt.bundle.open import open_bundle
    from ndp_rt.cli.engine_arguments import log_to_stderr
    from ndp_rt.cli.set_threshold import calibrate_from, describe
    from ndp_rt.decide.calibration import check_rate
    from ndp_rt.editing import set_reference, set_threshold
    from ndp_rt.engines.spec import EngineSpec
    from ndp_rt.errors import InputError
    from ndp_rt.images.groups import find_groups
    from ndp_rt.images.listing import list_images
    from ndp_rt.images.pages import choose_pages

    log_to_stderr()
    check_counting(args)
    if args.calibrate is not None:  # before anything is changed
        find_groups(choose_pages(list_images(args.calibrate).files, args.page), args.group_by)
        check_rate(args.false_alarm_rate)
        EngineSpec(backend=args.backend, precision=args.precision).resolve(open_bundle(args.bundle))
    elif args.false_alarm_rate is not None:
        raise InputError("--false-alarm-rate: expected --calibrate with it, got none.")
    set_reference(args.bundle, args.image, backend=args.backend, threads=args.threads)
    say(f"{args.bundle}: the reference is now {args.image}")
    if args.calibrate is not None:
        threshold = calibrate_from(args.bundle, args, "cpu")
        set_threshold(open_bundle(args.bundle), args.precision, threshold)
    for precision, threshold in open_bundle(args.bundle).manifest.thresholds.items():
        say(f"{precision}: threshold {describe(threshold)}")
    return 0
