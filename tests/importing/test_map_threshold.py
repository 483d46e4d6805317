"""Models whose score is another quantity than their map: what of the map is a defect."""

import logging
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector, import_onnx, open_bundle
from ndp_rt.cli import main
from ndp_rt.editing import calibrate
from tests.importing.models import MAP, MAP_OUTPUT, PEAK, SIDE, write_model

FACTORS = {"score far above the map": 1000.0, "score far below the map": 0.001}
GOOD_COUNT = 6
SPOT = np.s_[8:14, 20:26]


@pytest.fixture
def good(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(GOOD_COUNT):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(110, 140, (SIDE, SIDE, 3), dtype=np.uint8))
    return folder


def bring_in(folder: Path, factor: float) -> Path:
    """Return a bundle whose score is its map's largest value so many times."""
    body = f"{MAP}{PEAK}  k = Constant <value = float {{{factor}}}> ()\n  score = Mul(peak, k)\n"
    path = write_model(folder / "m.onnx", body, f"{MAP_OUTPUT}, float[N] score")
    done = import_onnx(path, folder / "m.ndp")
    assert done.bundle.manifest.decision.score == "output"
    return done.bundle.path


def spoil(good: Path) -> np.ndarray:
    """Return a good picture with a black and white spot."""
    picture: np.ndarray = cv2.imread(str(good / "0.png"))
    picture[SPOT] = np.indices((6, 6)).sum(axis=0)[..., None] % 2 * 255
    return picture


@pytest.mark.parametrize("case", FACTORS)
def test_defects_are_where_the_map_reaches_a_threshold_of_its_own(tmp_path: Path, good: Path, case: str) -> None:
    bundle = bring_in(tmp_path, FACTORS[case])
    assert main(["set-threshold", str(bundle), "--calibrate", str(good), "--threads", "1"]) == 0
    near = np.zeros((SIDE, SIDE), np.bool_)
    near[5:17, 17:29] = True
    with Inspector.open(bundle, threads=1) as inspector:
        results = [inspector.inspect(spoil(good)), inspector.inspect_large(spoil(good), overlap_px=0)]
        assert not inspector.inspect(cv2.imread(str(good / "1.png"))).is_defect
        assert all(one.is_defect and one.defects for one in results)
        for result in results:
            mask = result.make_mask()
            assert mask.any() and not (mask & ~near).any()
            assert max(one.peak for one in result.defects) == pytest.approx(result.score / FACTORS[case], rel=1e-4)
            assert result.map_threshold != result.threshold
        inspector.set_threshold(results[0].score * 2)  # of the decision alone
        assert not inspector.inspect(spoil(good)).is_defect


def test_a_threshold_by_hand_leaves_the_maps(tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bring_in(tmp_path, 1000.0)
    assert main(["set-threshold", str(bundle), "--calibrate", str(good), "--threads", "1"]) == 0
    calibrated = open_bundle(bundle).threshold("fp32")
    assert f"; of the map: {calibrated.map_value:.6g}" in capsys.readouterr().out
    assert main(["set-threshold", str(bundle), "7"]) == 0
    assert open_bundle(bundle).threshold("fp32").map_value == calibrated.map_value


def test_a_map_without_a_threshold_of_its_own_is_warned_of(
    tmp_path: Path, good: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bring_in(tmp_path, 1000.0)
    with caplog.at_level(logging.WARNING, "ndp_rt"):
        calibrate(open_bundle(bundle), [good / "0.png"], threads=1)  # which is what the warning asks for
        assert not caplog.text
        for _ in range(2):
            with Inspector.open(bundle, threads=1, threshold=math.inf) as inspector:
                assert inspector.inspect(spoil(good)).defects == ()
                inspector.set_threshold(1.0)
                result = inspector.inspect(spoil(good))
    assert caplog.text.count("no threshold for its map") == 1 and "set-threshold" in caplog.text
    assert result.map_threshold == result.threshold == 1.0
