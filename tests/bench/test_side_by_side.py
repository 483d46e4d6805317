"""Bundles side by side: which are taken, what is measured of each, and what becomes of one that fails."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench import side_by_side
from ndp_rt.bench.side_by_side import compare_accuracy, compare_times, open_bundles, read_timed_images
from ndp_rt.bench.timed.spec import TimedSpec
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import BundleError, EngineError, InputError
from ndp_rt.evaluate.record import Record
from tests.bench.fake_process import FakeProcess
from tests.evaluate.test_dataset import make_data, write_png


@pytest.fixture
def pair(tiny_bundle: Path, tmp_path: Path) -> list[Path]:
    """Two bundles of one name in folders of their own."""
    return [Path(shutil.copytree(tiny_bundle, tmp_path / folder / "tiny.ndp")) for folder in "ab"]


@contextmanager
def no_progress(name: str, count: int) -> Iterator[Callable[[], None]]:
    yield lambda: None


def compare(paths: Sequence[Path], data: Path, **changes: Any) -> Record:
    return compare_accuracy(open_bundles(paths), data, EngineSpec(threads=1, **changes), no_progress, "ndp-rt compare")


def give_times(monkeypatch: pytest.MonkeyPatch, times_ms: dict[str, float | None]) -> list[Any]:
    """Let bundles take given times; None: its process cannot be opened. Returns the images that are handed over."""
    handed: list[Any] = []

    def open_process(spec: TimedSpec, paths: Sequence[str], tell: Any) -> Any:
        time_ms = times_ms[Path(spec.bundle).parent.name]
        if time_ms is None:
            raise EngineError("disagrees with its golden vectors")
        process = FakeProcess(spec, lambda number: time_ms, [])
        monkeypatch.setattr(process, "ask", lambda name, images: handed.append((name, images)))
        return process

    monkeypatch.setattr(side_by_side, "open_process", open_process)
    return handed


def test_one_bundle_is_sent_to_evaluate(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="expected two at least.*got .*tiny.ndp alone.*ndp-rt evaluate"):
        open_bundles([tiny_bundle])


def test_a_bundle_beside_itself_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="the same folder"):
        open_bundles([tiny_bundle, tiny_bundle.parent / "." / tiny_bundle.name])


def test_a_folder_that_is_no_bundle_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "none.ndp").mkdir()
    with pytest.raises(BundleError, match="none.ndp"):
        open_bundles([tiny_bundle, tmp_path / "none.ndp"])


def test_bundles_of_one_name_are_told_apart_by_their_paths(pair: list[Path], tiny_bundle: Path) -> None:
    assert list(open_bundles(pair)) == [str(path) for path in pair]
    other = Path(shutil.copytree(tiny_bundle, pair[0].parent / "other.ndp"))
    assert list(open_bundles([pair[0], other])) == ["tiny.ndp", "other.ndp"]


def test_rows_hold_accuracy_time_and_size_of_each(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tmp_path / "data")
    handed = give_times(monkeypatch, {"a": 20.0, "b": 5.0})
    record = compare(pair, data)
    compare_times(record, open_bundles(pair), data, 1.0, lambda line: None)
    first, second = record["rows"]
    assert first["figures"] == second["figures"]
    assert first["size_bytes"] == sum(path.stat().st_size for path in pair[0].iterdir() if path.stem != "manifest")
    assert (first["timing"]["latency"]["p50_ms"], second["timing"]["latency"]["p50_ms"]) == (20.0, 5.0)
    assert second["timing"]["ratio"]["median"] == 0.25 and second["timing"]["ratio"]["to"] == first["name"]
    assert second["timing"]["warm_up"]["query_count"] == 10
    assert [(name, len(images)) for name, images in handed] == [("use_images", 4)] * 2
    assert record["refused"] == {}


def test_one_that_cannot_be_timed_keeps_its_accuracy(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tmp_path / "data")
    give_times(monkeypatch, {"a": None, "b": 5.0})
    record = compare(pair, data)
    compare_times(record, open_bundles(pair), data, 1.0, lambda line: None)
    assert record["rows"][0]["timing"] is None and record["rows"][0]["figures"]["overall"]["image_rocauc"] == 0.5
    assert record["rows"][1]["timing"]["ratio"]["to"] == str(pair[1])
    assert record["refused"] == {str(pair[0]): "disagrees with its golden vectors"}


def test_an_error_names_the_bundle_that_it_is_of(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiny.ndp: "):
        compare(pair, make_data(tmp_path / "data"), plan="guess")


def test_images_are_timed_that_every_bundle_takes_spread_over_the_data(tmp_path: Path) -> None:
    paths = [f"test/good/{index:02d}.png" for index in range(40)]
    for index, path in enumerate(paths):
        write_png(tmp_path / path, np.full((4, 4), index, np.uint8))
    rows = [{"figures": {"images": [{"path": path} for path in part]}} for part in (paths, paths[8:])]
    found = [int(image.max()) for image in read_timed_images(rows, tmp_path)]
    assert found[:3] == [8, 10, 12] and len(found) == 16
    with pytest.raises(InputError, match="every bundle takes"):
        read_timed_images([rows[0], {"figures": {"images": []}}], tmp_path)
