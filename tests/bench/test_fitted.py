"""Rivals fitted to good images: the real ones where anomalib is installed; the coreset and the refusals anywhere."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.bench.request import BenchRequest, list_specs
from ndp_rt.bench.rivals import expand, find_rival
from ndp_rt.bench.rivals.modules import ANOMALIB, FITTED
from ndp_rt.bench.timed.rival import TimedRival
from ndp_rt.bench.timed.service import measure_accuracy
from ndp_rt.errors import DataError, InputError
from ndp_rt.program.manifest import InputContract
from tests.bricks import BRICKS

NEEDS_ANOMALIB = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="needs anomalib: pip install -e '.[peers]'"
)
SIDE_PX = 64
SPOT = slice(40, 52), slice(12, 24)


def write_images(folder: Path, count: int, *, has_spot: bool = False) -> None:
    folder.mkdir(parents=True)
    for seed in range(count):
        rng = np.random.default_rng(seed + 100 * has_spot)
        image = 110 + 30 * np.sin(np.arange(SIDE_PX) / 3.0) + rng.normal(0.0, 2.0, (SIDE_PX, SIDE_PX))
        if has_spot:
            image[SPOT] = 240
        assert cv2.imwrite(str(folder / f"{seed}.png"), np.clip(image, 0, 255).astype(np.uint8))


@pytest.fixture
def surface(tmp_path: Path) -> Path:
    """Good images to fit to, and some of each kind to judge."""
    data = tmp_path / "surface"
    write_images(data / "train" / "good", 12)
    write_images(data / "test" / "good", 3)
    write_images(data / "test" / "spot", 3, has_spot=True)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[SPOT] = 255
    (data / "ground_truth" / "spot").mkdir(parents=True)
    for seed in range(3):
        assert cv2.imwrite(str(data / "ground_truth" / "spot" / f"{seed}_mask.png"), mask)
    return data


@pytest.mark.torch
def test_the_recipes_are_those_that_are_offered() -> None:
    from ndp_rt.bench.rivals.torch_fitted import RECIPES

    assert tuple(RECIPES) == FITTED


@pytest.mark.torch
def test_without_good_images_nothing_is_fitted(tmp_path: Path) -> None:
    from ndp_rt.bench.rivals.torch_fitted import build_fitted

    with pytest.raises(DataError, match="expected good images in train/good, got none"):
        build_fitted("Padim", tmp_path, InputContract())


def test_anomalib_means_those_that_can_be_fitted_where_there_are_images(tmp_path: Path) -> None:
    assert expand(["anomalib"], "cpu", tmp_path) == tuple(f"anomalib:{name}" for name in FITTED)
    assert len(expand(["anomalib"], "cpu")) == len(ANOMALIB)
    with pytest.raises(InputError, match="one of Padim, Patchcore, Stfpm with --fit"):
        find_rival("anomalib:Dsr", "cpu", fit=tmp_path)
    with pytest.raises(InputError, match="Patchflow, ReverseDistillation without --fit"):
        find_rival("anomalib:Stfpm", "cpu")


def test_another_bundle_takes_turns_under_its_own_name() -> None:
    together, alone = list_specs(BenchRequest(bundle=BRICKS, against=(str(BRICKS),)), {})
    assert [spec.name for spec in together] == ["ndp-rt openvino fp32", "bricks openvino fp32"] and not alone
    assert together[1].bundle == str(BRICKS)


@NEEDS_ANOMALIB
@pytest.mark.parametrize("model", FITTED)
def test_a_fitted_model_finds_the_spot(
    model: str, tiny_bundle: Path, surface: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndp_rt.bench.rivals import torch_fitted

    monkeypatch.setattr(torch_fitted, "STUDENT_STEPS", 30)
    request = BenchRequest(
        bundle=tiny_bundle, against=(f"anomalib:{model}",), fit=surface, threads=1, models_on="openvino"
    )
    timed = TimedRival(list_specs(request, {})[1][0])
    try:
        accuracy = measure_accuracy(timed, surface)
    finally:
        timed.close()
    assert timed.opened.facts["input_px"] == [SIDE_PX, SIDE_PX]
    assert timed.opened.facts["weights"] == "fitted to 12 images of surface, backbone lite0"
    assert accuracy["image_rocauc"] == 1.0 and accuracy["pixel_rocauc"] > 0.9
