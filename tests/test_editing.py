"""Another reference for a bundle, on disk and while it runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors.numpy import save

from ndp_rt import Inspector, editing, open_bundle
from ndp_rt.bundle import write_bundle
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers
from ndp_rt.bundle.open import CALIBRATION_FILE
from ndp_rt.cli import main
from ndp_rt.editing import CARRIED_OVER, set_reference, set_threshold
from ndp_rt.errors import EngineError, ImageFileError, NdpRtError, StorageError
from ndp_rt.images.preprocess import preprocess
from ndp_rt.program.manifest import ThresholdSpec
from tests.bricks import BRICKS
from tests.conftest import TORCH_REMEDY, is_installed
from tests.tolerances import assert_close


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A real network's bundle: random weights where PyTorch is there to export it, else the package's own."""
    if is_installed("torch"):
        from ndp_rt.export.onnx.bundle import export_run
        from tests.export.random_run import write_random_run

        run = write_random_run(tmp_path_factory.mktemp("surface"))
        return export_run(run, tmp_path_factory.mktemp("out") / "surface.ndp").bundle.path
    if BRICKS.is_dir():
        return BRICKS
    pytest.skip(TORCH_REMEDY)


@pytest.fixture
def bundle(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy.ndp"))


@pytest.fixture
def photograph(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Another surface than the bundle's, of a size of its own."""
    image = np.kron(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    assert cv2.imwrite(str(tmp_path / "other.png"), image)
    return tmp_path / "other.png"


def inspect_noise(path: Path, **settings: object) -> np.ndarray:
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with Inspector.open(path, threads=1, threshold=0.5, **settings) as inspector:
        return inspector.inspect(image).anomaly_map


@pytest.mark.nightly
def test_all_plans_and_backends_use_the_new_reference(bundle: Path, photograph: Path) -> None:
    before = inspect_noise(bundle)
    set_reference(bundle, photograph, threads=1)
    after = inspect_noise(bundle)
    assert np.abs(after - before).max() > 1e-6
    assert_close(inspect_noise(bundle, plan="staged"), after, "map", "float32")
    if is_installed("onnxruntime"):
        assert_close(inspect_noise(bundle, backend="onnxruntime"), after, "map", "float32")


@pytest.mark.nightly
@pytest.mark.parametrize("plan", ["fused", "staged"])
def test_a_running_inspector_gives_what_the_changed_bundle_gives(bundle: Path, photograph: Path, plan: str) -> None:
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = cv2.imread(str(photograph))[:, :, ::-1]
    with Inspector.open(bundle, plan=plan, batches=(1, 2), threads=1, threshold=0.5) as inspector:
        before, hash_before = inspector.inspect(image), inspector.engine_hash
        inspector.set_reference(picture)
        running = inspector.inspect(image).anomaly_map
        pair = inspector.inspect_batch([image, image])
        assert inspector.engine_hash != hash_before
    assert np.abs(running - before.anomaly_map).max() > 1e-6
    set_reference(bundle, photograph, threads=1)
    assert_close(running, inspect_noise(bundle), "map", "float32")
    for result in pair:
        assert_close(result.anomaly_map, running, "map", "float32")


def test_the_changed_bundle_is_whole_and_says_what_happened(bundle: Path, photograph: Path) -> None:
    before = open_bundle(bundle)
    old = before.golden()
    after = set_reference(bundle, photograph, threads=1)
    assert after.fingerprint != before.fingerprint
    assert json.dumps(open_bundle(bundle).manifest.to_json()) == json.dumps(after.manifest.to_json())
    assert after.manifest.reference["source"] == "other.png"
    assert "plan 'staged' on the CPU, fp32" in after.manifest.golden["made_by"]
    assert after.manifest.provenance["commands"][-1] == "ndp-rt set-reference copy.ndp other.png"
    new = after.golden()
    assert np.array_equal(old.image, new.image)
    assert not np.array_equal(old.map, new.map)
    for one, other in zip((*old.raw, *old.raw_expected), (*new.raw, *new.raw_expected), strict=True):
        assert np.array_equal(one, other)
    assert [path.name for path in bundle.parent.iterdir() if path.suffix == ".ndp"] == ["copy.ndp"]


def test_a_bundle_behind_a_link_is_changed_in_its_place(bundle: Path, photograph: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.ndp"
    link.symlink_to(bundle)
    before = open_bundle(bundle).fingerprint
    set_reference(link, photograph, threads=1)
    assert link.is_symlink() and open_bundle(bundle).fingerprint != before


def test_int8_layers_and_calibration_images_stay(bundle: Path, photograph: Path) -> None:
    """The ranges are of what the surface looks like, not of the one image."""
    plain = open_bundle(bundle)
    files: dict[str, bytes | Path] = {name: bundle / name for name in plain.manifest.files}
    files[INT8_FILE] = Int8Layers(limits={"a": 1.0}, chosen={"int8": ("a",)}).to_bytes()
    files[CALIBRATION_FILE] = save({"good": np.zeros((1, 1, 64, 64), np.uint8)})
    before = write_bundle(bundle, manifest_without_files=plain.manifest, files=files, overwrite=True)
    after = set_reference(bundle, photograph, threads=1)
    assert after.int8_limits("int8") == {"a": 1.0} and after.calibration_images() is not None
    assert after.engine_fingerprint("int8") != before.engine_fingerprint("int8")


def test_the_reference_picture_is_what_the_features_are_made_of(bundle: Path, photograph: Path) -> None:
    after = set_reference(bundle, photograph, threads=1)
    contract = after.manifest.input
    picture = cv2.imread(str(bundle / "reference.png"))[:, :, ::-1]
    assert picture.shape == (contract.height_px, contract.width_px, 3)
    features = after.read_asset("reference")
    again = set_reference(bundle, bundle / "reference.png", threads=1).read_asset("reference")
    assert all(np.array_equal(features[name], again[name]) for name in features)
    prepared = np.empty((3, contract.height_px, contract.width_px), np.float32)
    preprocess(cv2.imread(str(photograph))[:, :, ::-1], contract, prepared)
    assert np.abs(picture.transpose(2, 0, 1) / 255.0 - prepared).max() <= 0.5 / 255 + 1e-6


def test_thresholds_lose_their_promise_until_they_are_calibrated(
    bundle: Path, photograph: Path, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = open_bundle(bundle).manifest.thresholds
    good = tmp_path / "good"
    good.mkdir()
    for index in range(5):
        cv2.imwrite(str(good / f"{index}.png"), rng.integers(0, 256, (64, 64), dtype=np.uint8))
    assert main(["set-reference", str(bundle), str(photograph), "--threads", "1"]) == 0
    for precision, threshold in open_bundle(bundle).manifest.thresholds.items():
        assert threshold.value == before[precision].value
        if threshold.value is not None:
            assert (threshold.source, threshold.note) == ("manual", CARRIED_OVER)
            assert threshold.false_alarm_rate_bound is None
    arguments = ["set-reference", str(bundle), str(photograph), "--threads", "1", "--calibrate", str(good)]
    assert main(arguments) == 0
    assert open_bundle(bundle).threshold("fp32").source == "calibrated"
    assert "fp32: threshold" in capsys.readouterr().out


def test_the_maps_threshold_is_carried_over_too() -> None:
    former = ThresholdSpec(value=7.0, source="calibrated", good_image_count=9, confidence=0.95, map_value=3.0)
    carried = ThresholdSpec(value=7.0, source="manual", note=CARRIED_OVER, map_value=3.0)
    assert editing._carry_over(former) == carried


def test_a_threshold_that_another_process_sets_meanwhile_is_kept(
    bundle: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle)
    set_threshold(opened, "bf16", ThresholdSpec(value=0.25, source="manual"))
    set_threshold(opened, "fp32", ThresholdSpec(value=0.75, source="manual"))  # `opened` knows nothing of the first
    assert open_bundle(bundle).threshold("bf16").value == 0.25
    recompute = editing.recompute_golden

    def recompute_slowly(*arguments: Any) -> Any:
        set_threshold(open_bundle(bundle), "fp32", ThresholdSpec(value=0.5, source="manual"))
        return recompute(*arguments)

    monkeypatch.setattr(editing, "recompute_golden", recompute_slowly)
    assert set_reference(bundle, photograph, threads=1).threshold("fp32").value == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibrate", "good", "--false-alarm-rate", "2"], "above 0 and below 1, got 2.0"),
        (["--calibrate", "good", "--precision", "fp8"], "got 'fp8'"),
        (["--calibrate", "nowhere"], "nowhere does not exist"),
        (["--false-alarm-rate", "0.1"], "expected --calibrate with it"),
    ],
)
def test_options_are_checked_before_the_reference_is_changed(
    bundle: Path,
    photograph: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(photograph.parent)
    (photograph.parent / "good").mkdir()
    shutil.copy(photograph, photograph.parent / "good")
    before = (bundle / "manifest.json").read_bytes()
    assert main(["set-reference", str(bundle), str(photograph), *options]) == 1
    assert message in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_change_that_fails_leaves_the_bundle_as_it_was(
    bundle: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    (tmp_path / "empty.png").write_bytes(b"")

    def expect(error: type[NdpRtError], image: Path) -> None:
        with pytest.raises(error):
            set_reference(bundle, image, threads=1)
        assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before

    expect(ImageFileError, tmp_path / "empty.png")

    def disagree(*args: object, **settings: object) -> None:
        raise EngineError("the fused graph disagrees")

    def fail(*args: object, **settings: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("ndp_rt.editing.compare_golden", disagree)
        expect(EngineError, photograph)
    with monkeypatch.context() as patch:
        patch.setattr("ndp_rt.editing.replace_files", fail)
        expect(StorageError, photograph)
