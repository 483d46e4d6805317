"""`ndp-rt set-threshold`: by hand, and from good images."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector, open_bundle
from ndp_rt.cli import main
from ndp_rt.engines.build import find_engine
from ndp_rt.images.read import read_image


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that may be changed; its engines are those of the original."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy.ndp"))


@pytest.fixture
def good_images(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for index in range(30):
        cv2.imwrite(str(folder / f"{index:02d}.png"), rng.integers(0, 256, (64, 64), dtype=np.uint8))
    return folder


def test_by_hand_changes_one_precision_and_no_engine(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Inspector.open(bundle, threads=1):
        before = open_bundle(bundle)
    assert main(["set-threshold", str(bundle), "0.125"]) == 0
    assert "0.6 (manual" in capsys.readouterr().out
    assert main(["set-threshold", str(bundle), "0.25", "--precision", "bf16"]) == 0
    after = open_bundle(bundle)
    assert (after.threshold("fp32").value, after.threshold("fp32").source) == (0.125, "manual")
    assert after.threshold("bf16").value == 0.25
    assert after.fingerprint == before.fingerprint and find_engine(after) is not None
    with Inspector.open(bundle, threads=1, build=False) as inspector:
        assert inspector.threshold == 0.125


def test_a_rate_that_all_images_are_needed_for_lets_all_of_them_pass(bundle: Path, good_images: Path) -> None:
    arguments = ["set-threshold", str(bundle), "--calibrate", str(good_images), "--false-alarm-rate", "0.1"]
    assert main([*arguments, "--no-variations"]) == 0
    threshold = open_bundle(bundle).threshold("fp32")
    assert threshold.source == "calibrated" and threshold.good_image_count == 30
    assert threshold.false_alarm_rate_bound == pytest.approx(1 - 0.05 ** (1 / 30))
    with Inspector.open(bundle, threads=1) as inspector:
        results = [inspector.inspect(read_image(path)) for path in good_images.iterdir()]
    assert not any(result.is_defect for result in results)
    assert max(result.score for result in results) == pytest.approx(threshold.value)


def test_variations_raise_the_threshold_and_groups_are_counted(bundle: Path, good_images: Path) -> None:
    arguments = ["set-threshold", str(bundle), "--calibrate", str(good_images), "--group-by", r"\d(?=\.png)"]
    assert main([*arguments, "--no-variations"]) == 0
    plain = open_bundle(bundle).threshold("fp32")
    assert (plain.good_image_count, plain.group_count) == (30, 10)
    assert "5.00% of good images predicted" in plain.note and "varied" not in plain.note
    assert main(arguments) == 0
    varied = open_bundle(bundle).threshold("fp32")
    assert varied.value > plain.value
    assert "10 independent group(s) of good images (30 images), light, focus and position varied," in varied.note


def test_with_a_rate_says_what_it_cannot_promise(bundle: Path, good_images: Path) -> None:
    arguments = ["set-threshold", str(bundle), "--calibrate", str(good_images), "--false-alarm-rate", "0.01"]
    assert main(arguments) == 0
    assert "takes 299" in open_bundle(bundle).threshold("fp32").note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected VALUE or --calibrate, got neither"),
        (["0.5", "--calibrate", "x"], "expected VALUE or --calibrate, got both"),
        (["0.5", "--false-alarm-rate", "0.1"], "expected --calibrate with it"),
        (["nan"], "finite"),
        (["0.5", "--precision", "fp8"], "fp8"),
        (["--calibrate", "/nowhere/at/all"], "does not exist"),
    ],
)
def test_refuses_what_makes_no_sense(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    assert main(["set-threshold", str(bundle), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_wrong_pattern_is_refused(bundle: Path, good_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["set-threshold", str(bundle), "--calibrate", str(good_images), "--group-by", "lot("]) == 1
    assert "regular expression, got 'lot('" in capsys.readouterr().err
    assert open_bundle(bundle).threshold("fp32").source == "manual"


def test_a_wrong_rate_is_refused_before_images_are_scored(
    bundle: Path, good_images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Inspector, "inspect", None)
    assert main(["set-threshold", str(bundle), "--calibrate", str(good_images), "--false-alarm-rate", "1"]) == 1
    assert "above 0 and below 1, got 1.0" in capsys.readouterr().err


def test_an_unreadable_good_image_stops_the_calibration(
    bundle: Path, good_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good_images / "zz.png").write_bytes(b"")
    assert main(["set-threshold", str(bundle), "--calibrate", str(good_images)]) == 1
    assert "zz.png" in capsys.readouterr().err
    assert open_bundle(bundle).threshold("fp32").source == "manual"
