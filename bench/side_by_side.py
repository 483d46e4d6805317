"""Several bundles side by side on one labelled folder (`ndp-rt compare`): accuracy, decisions, times, size."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from ndp_rt.bench.measure import Series, Tell, count_all_rounds, make_row, open_process, take_turns
from ndp_rt.bench.request import check_above_zero
from ndp_rt.bench.run import describe_bundle, describe_data
from ndp_rt.bench.scenarios import SCENARIOS
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import OURS, TimedSpec
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.evaluate.record import Record, start_record
from ndp_rt.evaluate.run import evaluate_bundle
from ndp_rt.images.checks import Image
from ndp_rt.images.read import read_image

FORMAT = "ndp-rt comparison"
FORMAT_VERSION = 1
TIMED_IMAGE_COUNT = 16  # each process holds them in memory
FROM_EVALUATION = ("engine", "threshold", "figures")  # as evaluation.json has them
FROM_BENCH = ("latency", "round_p50_ms", "warm_up", "check", "ratio")  # as a row of `ndp-rt bench` has them

StartProgress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def open_bundles(paths: Sequence[Path]) -> dict[str, Bundle]:
    """Open bundles, and name each by its folder, or by its path where two folders have one name.

    Raises:
        InputError: fewer than two, or one twice.
        BundleError: one is no bundle, or damaged.
    """
    if len(paths) < 2:
        raise InputError(
            f"bundles: expected two at least, which are set side by side, and then DATA, got {paths[0]} alone. "
            "A single one is measured by ndp-rt evaluate."
        )
    resolved = [path.resolve() for path in paths]
    twice = [str(path) for path, place in zip(paths, resolved, strict=True) if resolved.count(place) > 1]
    if twice:
        raise InputError(f"bundles: expected each once, got {' and '.join(twice)}, which are the same folder.")
    names = [place.name for place in resolved]
    return {
        name if names.count(name) == 1 else str(path): open_bundle(path)
        for name, path in zip(names, paths, strict=True)
    }


def compare_accuracy(
    bundles: Mapping[str, Bundle],
    data: Path,
    spec: EngineSpec,
    start_progress: StartProgress,
    command: str,
    page: int | None = None,
) -> Record:
    """Evaluate every bundle, and return a record with a row for each, still without times.

    Args:
        bundles: by name.
        data: a folder in MVTec's layout.
        spec: the engines of every bundle.
        start_progress: given a bundle's name and the number of images, returns the context of a function that counts.
        command: for the record.
        page: as for `evaluate_bundle`.

    Raises:
        NdpRtError: as `evaluate_bundle`; the message names the bundle.
    """
    record = start_record(FORMAT, FORMAT_VERSION, command)
    record["data"] = describe_data(data, page)
    record["rows"] = rows = list[Record]()
    for name, bundle in bundles.items():
        try:
            _, found = evaluate_bundle(
                bundle.path,
                data,
                spec,
                page=page,
                start_progress=partial(start_progress, name),
                command=command,
            )
        except NdpRtError as error:
            if bundle.path.name in str(error):
                raise
            raise type(error)(f"{name}: {error}") from error
        size_bytes = sum(entry.size_bytes for entry in bundle.manifest.files.values())
        row = {"name": name, "bundle": describe_bundle(bundle), "size_bytes": size_bytes, "timing": None}
        rows.append(row | {part: found[part] for part in FROM_EVALUATION})
    return record


def compare_times(record: Record, bundles: Mapping[str, Bundle], data: Path, seconds: float, tell: Tell) -> None:
    """Time the bundles in turn on images of the data, as `ndp-rt bench` does, and add the times to the record.

    Args:
        record: of `compare_accuracy`; a row that cannot be timed keeps None, and `refused` gets the reason.
        bundles: by name, as there.
        data: as there.
        seconds: for each bundle, at least.
        tell: shows a line of progress.

    Raises:
        InputError: seconds is not above 0.
    """
    check_above_zero("seconds", seconds)
    images = read_timed_images(record["rows"], data)
    refused: dict[str, str] = {}
    found: dict[str, Series] = {}
    scenario = SCENARIOS["single-stream"]
    with ExitStack() as stack:
        processes: list[TimedProcess] = []
        for row in record["rows"]:
            try:
                one = open_process(make_spec(row, bundles[row["name"]]), (), tell)
                stack.callback(one.close)
                one.ask("use_images", images)
            except NdpRtError as error:
                refused[row["name"]] = str(error)
                continue
            processes.append(one)
        take_turns(processes, scenario, 1, seconds, tell, found, refused)
        timed = [one for one in processes if one.name in found]
        base = (timed[0].name, found[timed[0].name]) if timed else None
        rows = {one.name: make_row(one, 1, scenario, found[one.name], base) for one in timed}
    for row in record["rows"]:
        if row["name"] in rows:
            row["timing"] = {part: rows[row["name"]][part] for part in FROM_BENCH}
    record["refused"] = refused
    record["settings"] = {
        "seconds": seconds,
        "rounds": count_all_rounds(seconds),
        "timed_image_count": len(images),
        "inside_the_clock": "an image of the data in memory to the decision",
    }


def read_timed_images(rows: Sequence[Record], data: Path) -> list[Image]:
    """Return images that every bundle could inspect, spread evenly over the data, at most TIMED_IMAGE_COUNT.

    Raises:
        InputError: there are none.
    """
    usable = [[image["path"] for image in row["figures"]["images"]] for row in rows]
    shared = [path for path in usable[0] if all(path in others for others in map(set, usable))]
    if not shared:
        raise InputError(f"{data}: expected an image that every bundle takes, to be timed with, got none.")
    count = min(TIMED_IMAGE_COUNT, len(shared))
    return [read_image(data / shared[index * len(shared) // count]) for index in range(count)]


def make_spec(row: Record, bundle: Bundle) -> TimedSpec:
    """Return how a bundle is opened to be timed: with the engine that it was evaluated with."""
    engine = row["engine"]
    return TimedSpec(
        name=row["name"],
        word=OURS,
        kind=OURS,
        bundle=str(bundle.path),
        batches=(1,),
        **{name: engine[name] for name in ("device", "backend", "precision", "plan", "threads")},
    )
