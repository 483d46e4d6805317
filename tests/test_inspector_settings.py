"""What callers give the inspector beside images: arrays for the maps, another threshold, time to warm up."""

import logging
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.bundle.manifest import encode_manifest, read_manifest
from ndp_rt.cli import main
from ndp_rt.errors import DeviceError, EngineError, InputError, MissingExtraError
from tests.test_inspector import PLANS, SIDE, draw_image


@pytest.fixture(scope="module", params=PLANS)
def inspector(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, plan=request.param, batches=(1, 4), threads=1, threshold=0.55) as opened:
        yield opened


@pytest.fixture
def one(tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, threads=1, threshold=0.55) as opened:
        yield opened


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (70, 91), (20, 300)])
def test_writes_the_map_into_the_callers_array(
    one: Inspector, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    image = draw_image(rng, *shape)
    expected = one.inspect(image)
    wide = np.full((shape[0] + 2, shape[1] + 5), -7, np.float32)
    target = wide[1:-1, 2:-3]
    result = one.inspect(image, map_out=target)
    assert result.anomaly_map is target and result.score == expected.score
    assert np.array_equal(target, expected.anomaly_map)
    wide[1:-1, 2:-3] = -7
    assert (wide == -7).all()


def test_makes_no_map_for_an_empty_array(one: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, 50, 60)
    expected, result = one.inspect(image), one.inspect(image, map_out=np.empty((0, 0), np.float32))
    assert result.anomaly_map.size == 0
    assert (result.score, result.defects) == (expected.score, expected.defects)


def test_writes_the_maps_of_a_batch_and_of_a_large_image(inspector: Inspector, rng: np.random.Generator) -> None:
    images = [draw_image(rng, 40 + i, 50) for i in range(6)]
    targets = [np.empty(image.shape, np.float32) for image in images]
    for result, target, expected in zip(
        inspector.inspect_batch(images, maps_out=targets), targets, inspector.inspect_batch(images), strict=True
    ):
        assert result.anomaly_map is target and np.array_equal(target, expected.anomaly_map)
    large = draw_image(rng, 150, 200, 3)
    target = np.empty((150, 200), np.float32)
    result = inspector.inspect_large(large, map_out=target)
    assert result.anomaly_map is target and np.array_equal(target, inspector.inspect_large(large).anomaly_map)


@pytest.mark.parametrize(
    "wrong",
    [
        np.empty((SIDE, SIDE), np.float64),
        np.empty((SIDE, SIDE + 1), np.float32),
        np.empty((SIDE, SIDE, 1), np.float32),
        np.empty((SIDE, SIDE * 2), np.float32)[:, ::2],
        np.empty((SIDE, SIDE), np.float32)[::-1],
        np.broadcast_to(np.float32(0), (SIDE, SIDE)),
        [[0.0]],
    ],
    ids=["dtype", "size", "axes", "columns", "reversed", "read-only", "list"],
)
def test_refuses_another_array_for_the_map(one: Inspector, rng: np.random.Generator, wrong: Any) -> None:
    image = draw_image(rng, SIDE, SIDE)
    with pytest.raises(InputError, match="map_out: expected"):
        one.inspect(image, map_out=wrong)
    with pytest.raises(InputError, match="image 1 of the batch: map_out"):
        one.inspect_batch([image, image], maps_out=[None, wrong])
    with pytest.raises(InputError, match="map_out"):
        one.inspect_large(image, map_out=wrong)


def test_refuses_a_list_of_maps_of_another_length(one: Inspector, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="maps_out: expected one for each of 2 images, got 1"):
        one.inspect_batch([draw_image(rng, 8, 8)] * 2, maps_out=[None])


def test_a_threshold_that_was_set_decides_from_the_next_image_on(one: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, SIDE, SIDE)
    score = one.inspect(image).score
    for threshold, is_defect in ((score, True), (np.nextafter(score, np.inf), False), (float("inf"), False)):
        one.set_threshold(threshold)
        result = one.inspect(image)
        assert (result.threshold, result.is_defect, one.threshold) == (threshold, is_defect, threshold)
        assert bool(result.defects) == is_defect
    one.set_threshold(0.25)
    with pickle.loads(pickle.dumps(one)) as copy:
        assert copy.threshold == 0.25
    with pytest.raises(InputError, match="expected a threshold that is a number"):
        one.set_threshold(float("nan"))
    assert one.threshold == 0.25


def test_a_threshold_that_no_score_can_reach_is_warned_of(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    bundle = bound_scores(tiny_bundle, tmp_path, largest=1.0)
    words = "the threshold 8.43 is above 1, the largest score that its maps allow, so every image is called good"
    with Inspector.open(bundle, threads=1, threshold=8.43) as opened:
        assert words in caplog.text
        for quiet in (1.0, 0.5, float("inf")):  # infinity asks for it
            caplog.clear()
            opened.set_threshold(quiet)
            assert "is above" not in caplog.text
        opened.set_threshold(8.43)
        assert words in caplog.text
    caplog.clear()
    with Inspector.open(tiny_bundle, threads=1, threshold=8.43):  # a bundle that does not know
        assert "is above" not in caplog.text


def test_commands_say_that_no_score_can_reach_a_threshold(
    tiny_bundle: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("ndp_rt"), "handlers", [])  # an earlier command's writes to its own stderr
    bundle = bound_scores(tiny_bundle, tmp_path, largest=1.0)
    assert main(["set-threshold", str(bundle), "8.43"]) == 0
    assert "ndp-rt: tiny: the threshold 8.43 is above 1" in capsys.readouterr().err
    assert cv2.imwrite(str(tmp_path / "a.png"), draw_image(rng, SIDE, SIDE))
    assert main(["inspect", str(bundle), str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]) == 0
    assert "the threshold 8.43 is above 1" in capsys.readouterr().err
    assert main(["set-threshold", str(bundle), "0.5"]) == 0
    assert "is above" not in capsys.readouterr().err


def bound_scores(tiny_bundle: Path, folder: Path, largest: float) -> Path:
    """Return a copy of the bundle whose manifest says how large its scores are at most."""
    bundle = Path(shutil.copytree(tiny_bundle, folder / "bounded.ndp"))
    manifest = replace(read_manifest(bundle), largest_score=largest)
    (bundle / "manifest.json").write_bytes(encode_manifest(manifest))
    return bundle


def test_a_stream_takes_a_threshold_that_is_set_meanwhile(one: Inspector, rng: np.random.Generator) -> None:
    results = one.stream([draw_image(rng, SIDE, SIDE)] * 4)
    assert next(results).threshold == 0.55
    one.set_threshold(0.1)
    assert [result.threshold for result in results] == [0.1] * 3


def test_warms_up_every_batch_size(inspector: Inspector) -> None:
    inspector.warm_up(count=1)
    with pytest.raises(InputError, match="count: expected 1 or more, got 0"):
        inspector.warm_up(count=0)


def test_refuses_settings_that_make_no_sense(tiny_bundle: Path) -> None:
    for settings, error, message in (
        ({"device": "cuda:99"}, (DeviceError, MissingExtraError), "cuda:99|no GPU|CuPy"),
        ({"device": "gpu"}, InputError, "expected a device of cpu, cuda, cuda:N, got 'gpu'"),
        ({"backend": "caffe"}, InputError, "openvino"),
        ({"plan": "both"}, InputError, "fused"),
        ({"precision": "fp8"}, InputError, "got 'fp8'"),
        ({"precision": "tf32"}, InputError, "has no threshold for tf32"),
        ({"precision": "int8"}, InputError, "has no layers chosen for int8"),
        ({"precision": "fp8", "threshold": 0.5}, InputError, "got 'fp8'"),
        ({"threads": 0}, InputError, "expected 1 or more threads"),
        ({"threshold": float("nan")}, InputError, "expected a threshold that is a number"),
        ({"mm_per_pixel": 0.0}, InputError, "expected mm_per_pixel above 0"),
        ({"white_level": 0}, InputError, "expected white_level from 1 to 65535, .* got 0"),
        ({"white_level": "auto"}, InputError, "got 'auto'. An array does not tell which value is white; of files"),
        ({"channels": "cmyk"}, InputError, "channels: expected .* got 'cmyk'"),
        ({"batches": (0,)}, InputError, "batch"),
    ):
        with pytest.raises(error, match=message):
            Inspector.open(tiny_bundle, **settings)


def test_builds_nothing_when_told_so(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    with pytest.raises(EngineError, match="ndp-rt build-engine"):
        Inspector.open(tiny_bundle, build=False)
    assert not list(tmp_path.rglob("*.blob"))
