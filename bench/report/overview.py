"""Several records together: accuracy against milliseconds over bundles, rivals and precisions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_number, find_section
from ndp_rt.bench.report.accuracy_figure import (
    METRICS,
    OURS,
    SHAPES,
    SINGLE_STREAM,
    Plotted,
    draw_metric,
    find_front,
    is_reported,
    is_single,
    list_metrics,
)
from ndp_rt.bench.report.marks import Drawn

Row = Mapping[str, Any]
NO_ACCURACY = "no accuracy was measured; run `ndp-rt bench` with --data DIR"
FINGERPRINT_LENGTH = 6


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row and the record that it is from."""

    stored: StoredRecord
    row: Row

    @property
    def bundle(self) -> Mapping[str, Any]:
        return find_section(self.stored.record, "bundle")

    @property
    def is_other(self) -> bool:
        """Whether the row is of another network, whose time does not depend on the bundle."""
        return self.row.get("kind") == "other network"

    @property
    def where(self) -> str:
        """Return which record the row is from, as `ndp-rt bench compare` takes it."""
        return f"{self.stored.path.name}:{self.stored.line}"

    @property
    def created(self) -> str:
        return str(self.stored.record.get("created") or "")

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
        bundle = "" if self.is_other else str(self.bundle.get("fingerprint") or self.bundle.get("name"))
        return (bundle, *(str(self.row.get(name)) for name in ("name", "device", "threads")), self.machine)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What is compared, by rising time, and what is not: names of rows by reason."""

    found: tuple[Found, ...]
    names: tuple[str, ...]  # of `found`, each different from the others
    left_out: Mapping[str, tuple[str, ...]]


def list_rows(stored: Sequence[StoredRecord]) -> list[Found]:
    """Return every row of every record."""
    return [Found(stored=one, row=row) for one in stored for row in one.record.get("rows") or []]


def is_wanted(stored: Sequence[StoredRecord]) -> bool:
    """Tell whether more than one record has rows; one alone is its own overview."""
    return sum(bool(one.record.get("rows")) for one in stored) > 1


def make_overview(stored: Sequence[StoredRecord]) -> Overview:
    """Return the rows that time one image by itself and have an accuracy, the latest of each, and why others are not.

    A row is the same as another if bundle, name, device, threads and machine are.
    """
    left_out: dict[str, list[str]] = {}
    latest: dict[tuple[str, ...], Found] = {}
    for one in list_rows(stored):
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
    """Return a name for each row that tells it from the others: preset or bundle, name, and what else differs."""
    owners = name_bundles(found)
    rival_names = {str(one.row["name"]) for one in found if one.row.get("kind") != OURS}
    names = []
    for one in found:
        same = [other for other in found if other.row["name"] == one.row["name"]]
        name = str(one.row["name"])
        if one.row.get("kind") == OURS:
            short = name.removeprefix(f"{OURS} ")
            name = name if short in rival_names else short  # the colour says whose it is
        if not one.is_other and len(set(owners.values())) > 1:
            name = f"{owners[bundle_key(one)]} {name}"
        rivals = [other for other in same if one.is_other or bundle_key(other) == bundle_key(one)]
        for key in ("device", "threads"):
            if len({str(other.row.get(key)) for other in rivals}) > 1:
                name += f", {key} {one.row.get(key)}"
        if len({other.machine for other in rivals}) > 1:
            name += f", {one.machine}"
        names.append(name)
    return names


def name_bundles(found: Sequence[Found]) -> dict[str, str]:
    """Return the shortest name of each bundle that no other has: its preset, its name, or name and fingerprint."""
    bundles = {bundle_key(one): one.bundle for one in found if not one.is_other}

    def fits(names: Mapping[str, str]) -> bool:
        return all(names.values()) and len(set(names.values())) == len(names)

    presets = {key: str(bundle.get("preset") or "") for key, bundle in bundles.items()}
    names = {key: str(bundle.get("name") or "unnamed") for key, bundle in bundles.items()}
    both = {key: f"{name} {key[:FINGERPRINT_LENGTH]}" for key, name in names.items()}
    return presets if fits(presets) else names if fits(names) else both


def bundle_key(one: Found) -> str:
    """Return what tells a row's bundle from others."""
    return str(one.bundle.get("fingerprint") or one.bundle.get("name"))


def draw_overview(overview: Overview, figure_id: str) -> list[Drawn]:
    """Return a figure for each metric and each data that accuracies were measured on; reported ones are in each."""
    measured = dict.fromkeys(find_source(one) for one in overview.found if not is_reported(one.row))
    runs = dict.fromkeys(one.where for one in overview.found if not is_reported(one.row))
    shapes = {where: SHAPES[index % len(SHAPES)] for index, where in enumerate(runs)}
    figures = []
    for number, source in enumerate(measured or {"": None}, 1):
        plotted = [
            Plotted(
                row=one.row,
                name=name,
                run=f"{one.where} ({one.created[:10]})",
                shape=shapes.get(one.where, SHAPES[0]),
                place=one.machine,
            )
            for one, name in zip(overview.found, overview.names, strict=True)
            if is_reported(one.row) or find_source(one) == source
        ]
        for metric in list_metrics([one.row for one in plotted]):
            drawn = draw_metric(plotted, metric, f"{figure_id}-{number}-{metric.replace('_', '-')}")
            figures.append(
                Drawn(
                    title=drawn.title + (f", {source}" if len(measured) > 1 else ""),
                    words=" ".join([drawn.words, *warn_runs(overview)]),
                    svg=drawn.svg,
                    key=drawn.key,
                )
            )
    return figures


def find_source(one: Found) -> str:
    """Return where a row's accuracy is from."""
    return str(find_section(one.row, "accuracy").get("source") or "source not recorded")


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


def find_front_rows(overview: Overview, metric: str) -> set[int]:
    """Return which of our rows are on the front that the figure draws, by their places in `overview.found`."""
    places: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for index, one in enumerate(overview.found):
        p50, height = find_number(one.row, "latency", "p50_ms"), find_number(one.row, "accuracy", metric)
        if one.row.get("kind") == OURS and not is_reported(one.row) and p50 is not None and height is not None:
            places.setdefault((one.machine, find_source(one)), []).append((p50, height, index))
    members = set()
    for points in places.values():
        front = set(find_front([(x, y) for x, y, _ in points]))
        members |= {index for x, y, index in points if (x, y) in front}
    return members
