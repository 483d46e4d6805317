"""The losses of a run on disk: a CSV row every few steps, and a picture."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ndp_rt.errors import MissingExtraError
from ndp_rt.export.checkpoint import write_atomically

COLUMNS = ("phase", "step", "learning_rate", "rec", "per", "def_per", "fea_rep", "seg")
OPTIONAL_COLUMNS = ("dist_fea", "dist_map")  # written where there is a teacher
Row = Mapping[str, float | int]


def write_losses(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, each the mean of the weighted losses since the row before, as CSV; absent losses stay empty."""
    text = io.StringIO()
    columns = [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if any(name in row for row in rows))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    write_atomically(path, text.getvalue().encode())


def read_losses(path: Path) -> list[dict[str, float | int]]:
    """Return the rows that write_losses wrote; none where there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: int(v) if name in ("phase", "step") else float(v) for name, v in row.items() if v}
            for row in csv.DictReader(file)
        ]


def plot_losses(path: Path, rows: Sequence[Row]) -> None:
    """Write a picture of the losses, one panel for each phase, logarithmic.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("the curve needs matplotlib: pip install 'ndp-rt[train]'") from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    for phase, panel in zip((1, 2), figure.subplots(1, 2), strict=True):
        of_phase = [row for row in rows if row["phase"] == phase]
        for name in (*COLUMNS[3:], *OPTIONAL_COLUMNS):
            points = [(row["step"], row[name]) for row in of_phase if row.get(name)]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, linewidth=1)
                panel.legend()
        panel.set(title=f"phase {phase}", xlabel="step", ylabel="weighted loss", yscale="log")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())
