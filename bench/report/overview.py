"""Several records together: accuracy against milliseconds over bundles, rivals and precisions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_number, find_section

Row = Mapping[str, Any]
METRICS = {"image_rocauc": "image ROCAUC", "aupro": "AUPRO", "pixel_rocauc": "pixel ROCAUC"}
OURS, SINGLE_STREAM = "ndp-rt", "single-stream"
LEAST_GAP = 1e-4  # an accuracy of 1 has no place on the logarithmic axis
NO_ACCURACY = "no accuracy was measured; run `ndp-rt bench` with --data DIR"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row, the record that it is from, and a name that tells it from the others."""

    stored: StoredRecord
    row: Row
    name: str = ""

    def find_point(self, metric: str) -> tuple[float, float] | None:
        """Return its milliseconds and how far its accuracy is from 1; None: it has not both."""
        height, p50 = find_number(self.row, "accuracy", metric), find_number(self.row, "latency", "p50_ms")
        return None if height is None or p50 is None else (p50, max(1 - height, LEAST_GAP))

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
    def place(self) -> str:
        """On what its time and accuracy were found; a front joins rows of one place."""
        return f"{self.machine}; {self.source}"

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
    left_out: Mapping[str, tuple[str, ...]]


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
        found=tuple(replace(one, name=name) for one, name in zip(found, name_found(found), strict=True)),
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


def describe_owner(one: Found) -> str:
    """Return a row's bundle and preset."""
    preset = one.bundle.get("preset")
    return str(one.bundle.get("name") or "unnamed") + (f" ({preset})" if preset else "")


def find_front_names(overview: Overview, metric: str) -> set[str]:
    """Return the names of our rows that are on the fronts which the figures draw."""
    return {one.name for front in find_fronts(overview.found, metric) for one in front}


def is_reported(row: Mapping[str, Any]) -> bool:
    """Tell whether a row's accuracy is from a publication; otherwise it was measured in the run."""
    return str(find_section(row, "accuracy").get("source") or "").startswith("reported")


def is_single(row: Mapping[str, Any]) -> bool:
    """Tell whether a query of the row is one image by itself, so that its latency is what an image takes."""
    return bool(row.get("batch", 1) == 1 and row.get("scenario", SINGLE_STREAM) == SINGLE_STREAM)


def list_metrics(found: Sequence[Found]) -> list[str]:
    """Return the metrics that are drawn; none where no row has an accuracy."""
    metrics = [
        metric for metric in METRICS if any(find_number(one.row, "accuracy", metric) is not None for one in found)
    ]
    return [metric for metric in metrics if metric != "pixel_rocauc"] or metrics


def find_fronts(found: Sequence[Found], metric: str) -> list[list[Found]]:
    """Return, for each machine and data, ours whose single images no other of ours is at least as fast and as good as.

    Measured ones alone, by rising time; of equal ones the first.
    """
    places: dict[str, list[tuple[tuple[float, float], Found]]] = {}
    for one in found:
        point = one.find_point(metric)
        if one.row.get("kind") == OURS and is_single(one.row) and not is_reported(one.row) and point is not None:
            places.setdefault(one.place, []).append((point, one))
    fronts = []
    for points in places.values():
        front: list[Found] = []
        best = float("inf")
        for (_, gap), one in sorted(points, key=lambda pair: pair[0]):
            if gap < best:
                front.append(one)
                best = gap
        fronts.append(front)
    return fronts
