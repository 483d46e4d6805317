"""`ndp-rt bench report`: records as one page."""

import argparse
from pathlib import Path

from ndp_rt.cli.terminal import say

DETAILS = """\
A RECORD is a file that `ndp-rt bench` wrote, one JSON object a line, or a file with one JSON object. The page has a
section for each record, in the order given: tables, latency distributions, speed and accuracy, the stage split and the
roofline. Where several have rows, a first section sets them side by side: a table and figures of accuracy against
milliseconds over bundles, rivals and precisions, with the front of ndp-rt's own. Of a row that was measured twice
the later one counts. It is one file that needs no network, no script and no other file.

Exit code: 0 done; 1 an error; 130 Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DETAILS
    parser.add_argument("records", metavar="RECORD", type=Path, nargs="+", help="file of records")
    parser.add_argument(
        "-o",
        "--out",
        metavar="PAGE.html",
        type=Path,
        help="file to write (default: the first RECORD's name with .html)",
    )


def run(args: argparse.Namespace) -> int:
    """Read the records, write the page and say where it is."""
    from ndp_rt.bench.read_records import read_records
    from ndp_rt.bench.report.page import write_report
    from ndp_rt.errors import InputError

    out: Path = args.out or args.records[0].with_suffix(".html")
    if any(out.resolve() == path.resolve() for path in args.records):
        raise InputError(f"-o {out} is a RECORD, and records are never overwritten. Choose another file.")
    stored = [one for path in args.records for one in read_records(path)]
    write_report(stored, out)
    say(f"Wrote {out}: {len(stored)} record{'' if len(stored) == 1 else 's'}")
    return 0
