"""The argument --white-level, which `train`, `export` and `inspect` have."""

import argparse

MOST = 65535


def add_white_level(parser: argparse.ArgumentParser, automatic: str) -> None:
    """Add the argument; `automatic` says in words what `auto` means, which is None among the arguments."""
    parser.add_argument(
        "--white-level",
        type=parse_white_level,
        metavar="N|auto",
        help=f"the value of 16-bit images that is white, such as 4095 for 12 bits (auto, the default: {automatic})",
    )


def parse_white_level(text: str) -> int | None:
    """Read a white level; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST} or auto, got '{text}'")
    return int(text)
