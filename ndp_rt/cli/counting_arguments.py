"""The arguments of commands whose scores leave out parts of the picture: --ignore and --smallest-area."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli.build_engine import parse_count
from ndp_rt.cli.terminal import complain
from ndp_rt.errors import InputError

if TYPE_CHECKING:
    from ndp_rt.arrays import BoolArray
    from ndp_rt.inspector import Inspector


def add_counting_arguments(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """Add --ignore and --smallest-area; `purpose` begins their help."""
    parser.add_argument(
        "--ignore",
        metavar="MASK",
        type=Path,
        help=f"{purpose}an image of the images' size: pixels where it is not 0 do not count (fixture, edge, label)",
    )
    parser.add_argument(
        "--smallest-area",
        metavar="N",
        type=parse_count,
        help=f"{purpose}regions of fewer than N pixels of the image are no defects",
    )


def counting_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return these arguments as keywords of `Inspector.open`."""
    return {"ignore_mask": args.ignore, "smallest_area_px": args.smallest_area}


def check_counting(args: argparse.Namespace) -> None:
    """Check them before anything is changed.

    Raises:
        InputError: they are given without --calibrate, which alone uses them, or the mask is none.
        ImageFileError: the mask cannot be read.
    """
    from ndp_rt.images.masks import take_ignore_mask

    if args.calibrate is None and counting_options(args) != {"ignore_mask": None, "smallest_area_px": None}:
        raise InputError("--ignore, --smallest-area: expected --calibrate with them, got none. Give inspect the same.")
    if args.ignore is not None:
        take_ignore_mask(args.ignore)


def repeat_counting(args: argparse.Namespace) -> list[str]:
    """Return these arguments as words of a command, without those that were not given."""
    words = [] if args.ignore is None else ["--ignore", str(args.ignore)]
    return words + ([] if args.smallest_area is None else ["--smallest-area", str(args.smallest_area)])


def tell_ignored(inspector: "Inspector") -> None:
    """Say on stderr how much of a picture does not count."""
    selection = inspector.session.selection
    if selection is not None and selection.ignored is not None:
        tell_ignored_share(selection.ignored)


def tell_ignored_share(ignored: "BoolArray") -> None:
    """Say on stderr how much of a picture does not count."""
    complain(f"ndp-rt: {ignored.mean():.1%} of each picture is ignored")
