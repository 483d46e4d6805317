"""Tables of text on stdout."""

import re
import shutil
import textwrap
from collections.abc import Sequence

from ndp_rt.config import wants_colour

COLOURS = {"bold": 1, "red": 31, "green": 32, "yellow": 33}
COLOUR_CODE = re.compile(r"\x1b\[\d+m")
GAP = "   "
LEAST_LAST_WIDTH = 20


def paint(text: str, colour: str) -> str:
    """Return the text in a colour where stdout is a terminal that shows them, else as it is."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if wants_colour() else text


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table, the last column folded to the terminal's width.

    Args:
        headings: of the columns.
        rows: a cell for each column; only cells before the last may be painted.
        right: headings of the columns that are aligned at their right.
    """
    widths = [max(_measure(row[index]) for row in (headings, *rows)) for index in range(len(headings))]
    before = sum(widths[:-1]) + len(GAP) * len(widths[:-1])
    widths[-1] = min(widths[-1], max(shutil.get_terminal_size().columns - before, LEAST_LAST_WIDTH))

    def print_row(row: Sequence[str]) -> None:
        cells = []
        for heading, width, cell in zip(headings[:-1], widths, row, strict=False):
            space = " " * (width - _measure(cell))
            cells.append(space + cell if heading in right else cell + space)
        for line in textwrap.wrap(row[-1], widths[-1], break_on_hyphens=False) or [""]:
            print(GAP.join([*cells, line.rjust(widths[-1]) if headings[-1] in right else line]).rstrip())
            cells = [" " * width for width in widths[:-1]]

    print_row(headings)
    print("─" * (before + widths[-1]))
    for row in rows:
        print_row(row)


def _measure(text: str) -> int:
    """Return how many columns a text takes."""
    return len(COLOUR_CODE.sub("", text))
