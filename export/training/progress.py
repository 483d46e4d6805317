"""A run's losses: shown while it runs (a bar on a terminal, now and then a line elsewhere), kept as CSV and picture."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ndp_rt.errors import MissingExtraError
from ndp_rt.export.training.checkpoint import write_atomically

LINE_INTERVAL_S = 20.0
COLUMNS = ("phase", "step", "learning_rate")  # of losses.csv, before the losses
Row = Mapping[str, float | int]


class Reporter(Protocol):
    """What the training loop tells."""

    def say(self, line: str) -> None:
        """Show one line."""

    def start(self, phase: int, done: int, step_count: int) -> None:
        """Begin a phase of which `done` steps are done already."""

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Report that `step` steps of the phase are done, and the latest mean losses."""

    def stop(self) -> None:
        """End the display."""


def describe_losses(losses: Mapping[str, float]) -> str:
    """Return losses as `rec 0.412 seg 0.0102`."""
    return " ".join(f"{name} {value:.4g}" for name, value in losses.items())


class LineReporter:
    """Plain lines, for logs."""

    def __init__(self, console: Console, interval_s: float = LINE_INTERVAL_S) -> None:
        self._console = console
        self._interval_s = interval_s

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def start(self, phase: int, done: int, step_count: int) -> None:
        self._phase, self._first, self._step_count = phase, done, step_count
        self._started = self._said = time.monotonic()

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._said < self._interval_s and step < self._step_count:
            return
        self._said = now
        left_s = (now - self._started) / max(1, step - self._first) * (self._step_count - step)
        self.say(
            f"phase {self._phase}: step {step}/{self._step_count}, {describe_losses(losses)}, "
            f"{left_s / 60:.1f} min left"
        )

    def stop(self) -> None:
        pass


class BarReporter:
    """A progress bar, for terminals."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("phase {task.fields[phase]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
        )
        self._progress.start()

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)

    def start(self, phase: int, done: int, step_count: int) -> None:
        self._task = self._progress.add_task("", total=step_count, completed=done, phase=phase, losses="")

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        self._progress.update(self._task, completed=step, losses=describe_losses(losses))

    def stop(self) -> None:
        self._progress.stop()


def make_reporter(console: Console | None = None) -> Reporter:
    """Return the reporter that fits the console; by default standard error."""
    console = console or Console(stderr=True)
    return BarReporter(console) if console.is_terminal else LineReporter(console)


def list_losses(rows: Sequence[Row]) -> list[str]:
    """Return the names of the losses in rows, in the order in which they first come."""
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name not in COLUMNS]


def write_losses(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, each the mean of the weighted losses since the row before, as CSV; absent losses stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *list_losses(rows)], lineterminator="\n")
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
    phases = range(1, max([1, *(int(row["phase"]) for row in rows)]) + 1)
    for phase, panel in zip(phases, figure.subplots(1, len(phases), squeeze=False)[0], strict=True):
        of_phase = [row for row in rows if row["phase"] == phase]
        for name in list_losses(of_phase):
            points = [(row["step"], row[name]) for row in of_phase if row.get(name)]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, linewidth=1)
                panel.legend()
        panel.set(title=f"phase {phase}", xlabel="step", ylabel="weighted loss", yscale="log")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())
