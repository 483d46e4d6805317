"""`ndp-rt bench compare`: two records row by row."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ndp_rt.cli.terminal import make_console, show

if TYPE_CHECKING:
    from rich.table import Table

    from ndp_rt.bench.compare import Comparison, RowComparison

EXIT_LOSS = 1
VERDICT_COLOURS = {"slower": "bold red", "faster": "green", "uncertain": "yellow", "same": ""}
DETAILS = """\
A and B are files that `ndp-rt bench` wrote. The last complete record of each is compared; NAME.jsonl:N or NAME.jsonl#N
takes the one on line N, counted from 1, complete or not. Rows are matched by name, batch and scenario.

The ratio is B's median time over A's: above 1, B is slower. Its 95 % interval comes from resampling the medians of the
rounds, or the queries where there are fewer than 3 rounds (such an interval is narrow, for queries in a row are alike).

Exit code: 0 nothing was lost; 1 an error, or B lost something: a row is slower by more than the tolerance with its
whole interval, a map error rose beyond what is allowed, or a ROCAUC or AUPRO on the same data fell by more than 0.005.
A row that is slower at the median while its interval reaches below the tolerance is "uncertain" and no loss.
"""


def parse_tolerance(text: str) -> float:
    """Return a share such as 0.05."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number such as 0.05, for 5 %, got '{text}'") from error
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, such as 0.05 for 5 %, got {text}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DETAILS
    parser.add_argument("a", metavar="A", help="file of records, or NAME.jsonl:N: what was")
    parser.add_argument("b", metavar="B", help="file of records, or NAME.jsonl:N: what is")
    parser.add_argument(
        "--tolerance",
        metavar="SHARE",
        type=parse_tolerance,
        default=0.05,
        help="how much slower a row may be (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print differences, table and verdict, and return 1 where B lost something."""
    from ndp_rt.bench.compare import ACCURACY_DROP, compare_records, pick_record

    a, b = pick_record(args.a), pick_record(args.b)
    comparison = compare_records(a.record, b.record, args.tolerance)
    console = make_console()

    def say(text: str) -> None:
        console.print(show(text), soft_wrap=True, markup=False)

    for letter, one in (("A", a), ("B", b)):
        say(f"{letter}: {one.path}, line {one.line}, {one.record.get('created', 'date unknown')}")
    for sentence in comparison.differences:
        say(sentence)
    console.print(make_time_table(comparison))
    if any(row.source == "queries" for row in comparison.rows):
        say("* from queries: there are fewer than 3 rounds, and such an interval is too narrow.")
    console.print(make_answer_table(comparison))
    for letter, names in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if names:
            say(f"Only in {letter}: {'; '.join(names)}")
    for row in comparison.rows:
        if row.verdict == "uncertain":
            say(f"{row.name}: uncertain: slower at the median, but {explain_doubt(row)}")
    if comparison.losses:
        say(f"B lost in {len(comparison.losses)} point{'' if len(comparison.losses) == 1 else 's'}:")
        for loss in comparison.losses:
            say(f"  {loss}")
        return EXIT_LOSS
    say(
        f"B lost nothing: no row is surely slower by more than {args.tolerance:.3g}, no map error rose beyond what is "
        f"allowed, no accuracy on the same data fell by more than {ACCURACY_DROP:g}."
    )
    return 0


def explain_doubt(row: "RowComparison") -> str:
    """Return why a slower row is no loss."""
    if row.source == "nothing":
        return "the records hold nothing to resample, so there is no interval"
    return f"its interval begins at {row.ratio.low:.3f}"


def make_time_table(comparison: "Comparison") -> "Table":
    """Return the rows' times beside each other."""
    from rich.text import Text

    from ndp_rt.bench.report.words import format_number

    table = start_table("p50, B over A", ("A, ms", "B, ms", "B / A", "95 % interval", "images/s"))
    table.add_column("verdict", no_wrap=True)
    for row, name in zip(comparison.rows, list_names(comparison), strict=True):
        table.add_row(
            Text(show(name)),
            format_number(row.a_p50_ms),
            format_number(row.b_p50_ms),
            f"{row.ratio.median:.3f}",
            show_interval(row),
            "-" if row.rate_ratio is None else f"{row.rate_ratio:.3f}",
            Text(row.verdict, style=VERDICT_COLOURS[row.verdict]),
        )
    return table


def make_answer_table(comparison: "Comparison") -> "Table":
    """Return what changed in map errors and in accuracies on the same data."""
    from rich.text import Text

    from ndp_rt.bench.compare import ACCURACIES

    metrics = [metric for metric in ACCURACIES if any(metric in row.accuracy_changes for row in comparison.rows)]
    table = start_table("Answers, B less A", ("map error", *(ACCURACIES[metric] for metric in metrics)))
    for row, name in zip(comparison.rows, list_names(comparison), strict=True):
        changes = [row.accuracy_changes.get(metric) for metric in metrics]
        table.add_row(
            Text(show(name)),
            "-" if row.error_change is None else f"{row.error_change:+.1e}",
            *("-" if change is None else f"{change:+.4f}" for change in changes),
        )
    return table


def list_names(comparison: "Comparison") -> list[str]:
    """Return the rows' names, with batch and scenario where the rows differ in them."""
    from ndp_rt.bench.report.words import name_rows

    return name_rows([dict(zip(("name", "batch", "scenario"), row.key, strict=True)) for row in comparison.rows])


def start_table(title: str, headings: Sequence[str]) -> "Table":
    """Return a table of numbers by row; names give way where the terminal is narrow."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("row", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def show_interval(row: "RowComparison") -> str:
    """Return the ratio's interval, with a star where it is from queries."""
    if row.source == "nothing":
        return "-"
    mark = " *" if row.source == "queries" else ""
    return f"{row.ratio.low:.3f} to {row.ratio.high:.3f}{mark}"
