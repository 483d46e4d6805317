"""Shows a run's losses and time left: a bar on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_INTERVAL_S = 20.0


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
