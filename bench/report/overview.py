"""Several records together: accuracy against milliseconds over bundles, rivals and precisions."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_number, find_section
from ndp_rt.bench.report.figures import (
    METRICS,
    SINGLE_STREAM,
    Drawn,
    Plotted,
    draw_metric,
    find_fronts,
    is_reported,
    is_single,
    list_metrics,
)

Row = Mapping[str, Any]
NO_ACCURACY = "no accuracy was measured; run `ndp-rt bench` with --data DIR"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row and the record that it is from."""

    stored: StoredRecord
    row: Row

    @property
    def bundle(self) -> Mapping[str, Any]:
        """What the record says of the bundle; nothing for another network, whose time does not depend on it."""
        return {} if self.row.get("kind") == "other network" else find_section(self.stored.record, "bundle")

    @property
    def where(self) -> str:
        """Return which record the row is from, as `ndp-rt bench compare` takes it."""
        return f"{self.stored.path.name}:{self.stored.line}"

    @property
    def created(self) -> str:
        return str(self.stored.record.get("created") or "")

    @property
    def source(self) -> str:
        """Where the row's accuracy is from."""
        return str(find_section(self.row, "accuracy").get("source") or "source not recorded")

    @property
    def machine(self) -> str:
        """What a time depends on beside what runs: times of two machines do not compare."""
        machine = find_section(self.stored.record, "machine")
        parts = [str(machine.get("cpu") or "an unnamed processor")]
        count, gpu = find_number(machine, "core_count"), find_section(machine, "gpu").get("name")
        parts += [f"{count:.0f} cores"] if count is not None else []
        return ", ".join([*parts, *([str(gpu)] if gpu else [])])

    @property
    def key(self) -> tuple[str, ...]:
        """What two rows share where one was measured again as the other."""
        bundle = str(self.bundle.get("fingerprint") or self.bundle.get("name"))
        weights = str(find_section(self.row, "facts").get("weights"))  # of a rival that was fitted: to which images
        return (bundle, weights, *(str(self.row.get(name)) for name in ("name", "device", "threads")), self.machine)


# What may tell rows of one name apart; each is added where the names so far do not.
DIFFERENCES: tuple[Callable[[Found], str], ...] = (
    lambda one: str(one.bundle.get("preset") or ""),
    lambda one: str(one.bundle.get("name") or ""),
    lambda one: str(one.bundle.get("fingerprint") or "")[:6],
    lambda one: str(one.row.get("device")),
    lambda one: f"threads {one.row.get('threads')}",
    lambda one: one.machine,
    lambda one: one.source,
)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What is compared, by rising time, and what is not: names of rows by reason."""

    found: tuple[Found, ...]
    names: tuple[str, ...]  # of `found`, each different from the others
    left_out: Mapping[str, tuple[str, ...]]

    @property
    def plotted(self) -> list[Plotted]:
        """The rows as marks; those of one machine and data may share a front."""
        return [
            Plotted(row=one.row, name=name, place=f"{one.machine}; {one.source}")
            for one, name in zip(self.found, self.names, strict=True)
        ]


def is_wanted(stored: Sequence[StoredRecord]) -> bool:
    """Tell whether more than one record has rows; one alone is its own overview."""
    return sum(bool(one.record.get("rows")) for one in stored) > 1


def make_overview(stored: Sequence[StoredRecord]) -> Overview:
    """Return the rows that time one image by itself and have an accuracy, the latest of each, and why others are not.

    A row is the same as another if bundle, name, device, threads and machine are.
    """
    left_out: dict[str, list[str]] = {}
    latest: dict[tuple[str, ...], Found] = {}
    for one in (Found(stored=each, row=row) for each in stored for row in each.record.get("rows") or []):
        reason = find_reason(one.row)
        if reason is None:
            former = latest.get(one.key)
            if former is not None and former.created > one.created:
                one, former = former, one
            latest[one.key] = one
            if former is None:
                continue
            one, reason = former, f"measured again later ({one.where})"
        left_out.setdefault(reason, []).append(f"{one.row['name']} ({one.where})")
    found = sorted(latest.values(), key=lambda one: find_number(one.row, "latency", "p50_ms") or 0.0)
    return Overview(
        found=tuple(found),
        names=tuple(name_found(found)),
        left_out={reason: tuple(names) for reason, names in left_out.items()},
    )


def find_reason(row: Row) -> str | None:
    """Return why a row cannot stand beside others, None where it can."""
    if not is_single(row):
        batch, scenario = row.get("batch", 1), row.get("scenario", SINGLE_STREAM)
        return f"{scenario}, batch {batch}: its latency is not that of one image by itself"
    if all(find_number(row, "accuracy", metric) is None for metric in METRICS):
        return "no accuracy is known" if row.get("kind") == "other network" else NO_ACCURACY
    return None


def name_found(found: Sequence[Found]) -> list[str]:
    """Return a name for each row that tells it from the others."""
    names = [str(one.row["name"]) for one in found]
    for describe in DIFFERENCES:
        words = [describe(one) for one in found]
        kinds = Counter(name for name, _ in set(zip(names, words, strict=True)))
        names = [f"{name}, {word}" if kinds[name] > 1 else name for name, word in zip(names, words, strict=True)]
    return names


def draw_overview(overview: Overview) -> list[Drawn]:
    """Return a figure for each metric and each data that accuracies were measured on; reported ones are in each."""
    measured = dict.fromkeys(one.source for one in overview.found if not is_reported(one.row))
    warnings = " ".join(warn_runs(overview))
    figures = []
    for source in measured or {"": None}:
        pairs = zip(overview.found, overview.plotted, strict=True)
        plotted = [mark for one, mark in pairs if is_reported(one.row) or one.source == source]
        for metric in list_metrics([one.row for one in plotted]):
            drawn = draw_metric(plotted, metric)
            title = drawn.title + (f", {source}" if len(measured) > 1 else "")
            figures.append(replace(drawn, title=title, words=f"{drawn.words} {warnings}"))
    return figures


def warn_runs(overview: Overview) -> Iterator[str]:
    """Return what has to be said of times that were not taken in one run."""
    runs = dict.fromkeys(one.where for one in overview.found)
    if len(runs) > 1:
        days = sorted({one.created[:10] for one in overview.found})
        when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
        yield (
            f"The times are of {len(runs)} runs {when}: the same machine may be slower in one of them, so ratios "
            "hold within a run only."
        )
    machines = dict.fromkeys(one.machine for one in overview.found)
    if len(machines) > 1:
        yield f"They are of different machines ({'; '.join(machines)}), each with a front of its own."


def describe_owner(one: Found) -> str:
    """Return a row's bundle and preset."""
    preset = one.bundle.get("preset")
    return str(one.bundle.get("name") or "unnamed") + (f" ({preset})" if preset else "")


def find_front_names(overview: Overview, metric: str) -> set[str]:
    """Return the names of our rows that are on the fronts which the figures draw."""
    return {one.name for front in find_fronts(overview.plotted, metric) for one in front}
