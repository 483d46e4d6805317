"""How cost grows: the words for given points, and one sweep of each kind with the tiny bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench import sweep
from ndp_rt.bench.timed.spec import OURS, TimedSpec
from ndp_rt.bundle import open_bundle
from ndp_rt.errors import InputError


def quiet(line: str) -> None:
    """Progress is for people."""


def make_spec(bundle: Path, **changes: Any) -> TimedSpec:
    values: dict[str, Any] = {
        "name": "ndp-rt openvino fp32",
        "word": OURS,
        "kind": OURS,
        "bundle": str(bundle),
        "precision": "fp32",
        "batches": (1,),
        "backend": "openvino",
        "plan": "fused",
        "threads": 1,
    }
    return TimedSpec(**(values | changes))


def make_points(values: list[tuple[int, float]], rate: Any, **more: Any) -> list[dict[str, Any]]:
    points = [
        {"value": value, "images_per_s": per_s, "latency": {"p50_ms": 1e3 / per_s}, **more} for value, per_s in values
    ]
    return sweep.set_efficiency(points, rate)


def per_image(point: dict[str, Any]) -> float:
    return float(point["images_per_s"])


def test_batches_are_followed_to_where_they_stop_paying() -> None:
    points = make_points([(1, 100.0), (2, 180.0), (4, 300.0), (8, 340.0), (16, 345.0)], per_image)
    (words,) = sweep.describe_growth("batch", points)
    assert words == (
        "Batch 16 has the highest throughput, 345 images/s, 3.45 times that of 1; 4 has 80% or more of it. A query's "
        "time goes from 10 to 2.899 ms."
    )


def test_threads_are_linear_up_to_where_four_fifths_are_lost() -> None:
    points = make_points(
        [(1, 10.0), (2, 19.0), (4, 28.0)], lambda point: float(point["images_per_s"]) / int(point["value"])
    )
    (words,) = sweep.describe_growth("threads", points)
    assert words.startswith("Throughput a thread is 80% of linear or more up to 2, and 70% of it at 4. Threads: 4 has")
    (words,) = sweep.describe_growth("threads", points[:2])
    assert words.startswith("Throughput a thread is 80% of linear or more up to 2. Threads: 2 has")


def test_sizes_are_said_by_series() -> None:
    def per_pixel(point: dict[str, Any]) -> float:
        return float(point["images_per_s"]) * int(point["value"]) ** 2

    resized = make_points([(256, 36.0), (512, 35.0)], per_pixel, series="inspect")
    tiled = make_points([(256, 36.0), (512, 4.0), (1024, 1.4)], per_pixel, series="inspect_large")
    one, two = sweep.describe_growth("size", [*resized, *tiled])
    assert one.startswith("inspect: Throughput in pixels is 80% of linear or more up to 512. Side 256 has")
    assert two.startswith(
        "inspect_large: Throughput in pixels is 80% of linear or more up to 256, and 44% of it at 512"
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("axis", "cores", "values"),
    [
        ("batch", 2, [1, 2, 4]),
        ("threads", 2, [1, 2]),
        ("streams", 1, [1, 2]),
        ("size", 2, [64, 128, 256, 64, 128]),
    ],
)
def test_every_axis_is_measured_and_checked(
    tiny_bundle: Path, axis: str, cores: int, values: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BATCHES", (1, 2, 4))
    monkeypatch.setattr(sweep, "FACTORS", {"inspect": (1, 2, 4), "inspect_large": (1, 2)})
    found = sweep.measure_sweep(axis, make_spec(tiny_bundle), open_bundle(tiny_bundle), cores, 0.1, quiet)
    assert found["axis"] == axis
    assert [point["value"] for point in found["points"]] == values
    for point in found["points"]:
        assert point["check"]["map_max_abs_difference"] <= point["check"]["allowed"]
        assert point["images_per_s"] > 0 and point["latency"]["p50_ms"] > 0
    assert found["points"][0]["efficiency"] == 1.0
    assert all(isinstance(sentence, str) and sentence for sentence in found["words"])


@pytest.mark.parametrize(("axis", "device"), [("colour", "cpu"), ("threads", "cuda")])
def test_rejects_an_axis_that_is_none(tiny_bundle: Path, axis: str, device: str) -> None:
    with pytest.raises(InputError, match="got 'colour'" if device == "cpu" else "threads is for a CPU"):
        sweep.measure_sweep(axis, make_spec(tiny_bundle, device=device), open_bundle(tiny_bundle), 2, 0.1, quiet)


def test_larger_images_show_the_same_texture() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    larger = sweep.enlarge(image, 5)
    assert larger.shape == (5, 5, 3) and larger.flags.c_contiguous
    assert (larger[2:4, 2:4] == image).all() and (larger[4, 4] == image[0, 0]).all()
