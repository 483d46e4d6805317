"""`ndp-rt capi build`: compiles the C library where installing ndp-rt could not, or for another folder."""

import argparse
from pathlib import Path

from ndp_rt.cli.terminal import say

DETAILS = """\
Needs a C compiler (cc, or the one that the environment variable CC names), Python's headers and its shared library;
what is missing is named with its remedy. An older library is replaced in one step: programs that run keep theirs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="a folder to write to (default: the installed package's)"
    )


def run(args: argparse.Namespace) -> int:
    """Compile and print where the library is and what to link with."""
    import shlex
    import sys

    from ndp_rt.capi.build import FOLDER, PYTHON_VERSION, build_library
    from ndp_rt.capi.installed import list_compile_flags, list_link_flags

    folder = FOLDER if args.output is None else args.output
    say(f"Wrote {build_library(folder)}, for Python {PYTHON_VERSION} at {sys.executable}")
    say(f"Build programs with: {shlex.join([*list_compile_flags(), *list_link_flags(folder)])}")
    return 0
