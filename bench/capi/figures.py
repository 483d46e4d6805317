"""What is asked of the C face, what was reached, and the words for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ndp_rt.evaluate.record import Record

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure that is asked for: `reached` is to be at most `limit`, or at least, where `is_least`."""

    name: str
    unit: str
    limit: float
    reached: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.reached >= self.limit if self.is_least else self.reached <= self.limit

    @property
    def asked(self) -> str:
        return f"at {'least' if self.is_least else 'most'} {show(self.limit, self.unit)}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_met": self.is_met}


def show(value: float, unit: str) -> str:
    """Return a value with its unit, with digits that tell it from its limit."""
    if unit == "%":
        return f"{value * 100:.3g} %"
    return f"{value:.4g} {unit}".rstrip()


def print_figures(console: "Console", record: Record) -> None:
    """Print the figures of a record as a table, and what failed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("asked", justify="right", no_wrap=True)
    table.add_column("reached", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for values in record["figures"]:
        figure = Figure(**{name: value for name, value in values.items() if name != "is_met"})
        verdict = Text("reached") if figure.is_met else Text("missed", style="bold red")
        table.add_row(Text(figure.name), figure.asked, show(figure.reached, figure.unit), verdict)
    console.print(table)
    if "cases" in record["parts"].get("calls", {}):
        print_cases(console, record["parts"]["calls"]["cases"])
    for name, reason in record["failures"].items():
        console.print(f"{name} failed: {reason}", soft_wrap=True, markup=False, style="bold red")


def print_cases(console: "Console", cases: Mapping[str, Record]) -> None:
    """Print what calls cost beyond total_ms from C and from Python."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Beyond total_ms, us: p50 / p90 / p99", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("call", overflow="fold")
    for heading in ("from C", "from Python", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, case in cases.items():
        columns = (case["c"]["overhead_us"], case["python"]["overhead_us"], case["difference_us"])
        table.add_row(name, *(" / ".join(f"{value:.0f}" for value in one.values()) for one in columns))
    console.print(table)
