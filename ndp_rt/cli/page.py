"""The argument --page, for image files with several pages."""

import argparse

ALL = "all"


def add_page(parser: argparse._ActionsContainer, *, takes_all: bool = False) -> None:
    """Add the argument; `takes_all` offers every page too."""
    others = "; all: each one" if takes_all else ""
    parser.add_argument(
        "--page",
        metavar="N|all" if takes_all else "N",
        type=lambda text: ALL if takes_all and text == ALL else parse_page(text),
        help=f"which page to take of files with several, from 1{others} (default: such files are refused)",
    )


def parse_page(text: str) -> int:
    """Read a page's number."""
    if not text.isdecimal() or not 1 <= int(text) <= 999_999:
        raise argparse.ArgumentTypeError(f"expected a page from 1, got '{text}'")
    return int(text)
