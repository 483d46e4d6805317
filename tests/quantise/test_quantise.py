"""`ndp-rt quantise`: layers are chosen, stored and used; what cannot be done is refused and changes nothing."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save

from ndp_rt.bundle import Bundle, open_bundle, write_bundle
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers
from ndp_rt.bundle.open import CALIBRATION_FILE
from ndp_rt.cli import main
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.int8_ranges import measure_all_layers
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import BundleError, EngineError, InputError
from ndp_rt.inspector import Inspector
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.quantise.run import QuantiseSettings, list_precisions, quantise_bundle
from tests.bricks import BRICKS

# Without them pairs of products of 8 bits are added in 16, which overflow; the golden vectors then refuse the build.
VNNI_FLAGS = {"avx_vnni", "avx512_vnni", "amx_int8"}
NEEDS_VNNI = pytest.mark.skipif(
    "avx2" in find_cpu().isa_flags and not VNNI_FLAGS & set(find_cpu().isa_flags),
    reason="needs a processor with avx_vnni, avx512_vnni or amx_int8",
)
NEEDS_BF16 = pytest.mark.skipif(not find_cpu().has_bf16, reason="needs a processor with avx512_bf16 or amx_bf16")


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_layers(bundle: Bundle, path: Path, *precisions: str) -> Bundle:
    """Return a copy of a bundle in which one layer computes in int8 in these precisions, with thresholds for them."""
    chosen = dict.fromkeys(precisions, ("encoder_1",))
    files: dict[str, bytes | Path] = {name: bundle.path / name for name in bundle.manifest.files}
    files[INT8_FILE] = Int8Layers(limits={"encoder_1": 1.0, "encoder_2": 1.0}, chosen=chosen).to_bytes()
    thresholds = {**bundle.manifest.thresholds, **{name: ThresholdSpec(value=0.5, source="manual") for name in chosen}}
    manifest = dataclasses.replace(bundle.manifest, thresholds=thresholds)
    return write_bundle(path, manifest_without_files=manifest, files=files)


@pytest.mark.usefixtures("fast_int8")
def test_layers_and_threshold_go_into_the_bundle_and_engines_use_them(
    tiny: Bundle, surface: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was chosen before goes, also for the precision that was not asked for: the ranges are others."""
    tiny = with_layers(tiny, tmp_path / "before.ndp", "int8", "mixed")
    report = tmp_path / "report.json"
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--precision", "int8"]
    assert main([*command, "--max-drop", "0.9", "--report", str(report)]) == 0
    printed = capfd.readouterr().out
    changed = open_bundle(tiny.path)
    layers = changed.int8_layers()
    assert layers is not None and set(layers.chosen) == {"int8"} and layers.chosen["int8"]
    assert json.loads(report.read_text()) == layers.report
    assert changed.threshold("int8").source == "calibrated" and changed.threshold("int8").good_image_count == 4
    assert changed.threshold("mixed").value is None
    words = f"ndp-rt quantise before.ndp --calibration {surface.name} --max-drop 0.9 --precision int8"
    assert changed.manifest.provenance["commands"][-1] == words
    assert changed.fingerprint == tiny.fingerprint  # engines of other precisions need no rebuild
    assert changed.engine_fingerprint("int8") != changed.fingerprint == changed.engine_fingerprint("bf16")
    for name in layers.limits:
        assert f"│ {name} " in printed
    assert main(["build-engine", str(tiny.path), "--precision", "int8"]) == 0
    assert "Convolution" in capfd.readouterr().out
    with Inspector.open(tiny.path, precision="int8") as inspector:
        result = inspector.inspect(cv2.imread(str(surface / "good_0.png")))
    assert result.threshold == changed.threshold("int8").value


@NEEDS_VNNI
@pytest.mark.nightly
def test_another_reference_takes_the_layers_along(tmp_path: Path) -> None:
    bricks = open_bundle(BRICKS, verify=False)
    layers = measure_all_layers(bricks, bricks.golden().image)
    files: dict[str, bytes | Path] = {name: bricks.path / name for name in bricks.manifest.files}
    files[INT8_FILE] = dataclasses.replace(layers, chosen={"int8": tuple(layers.limits)}).to_bytes()
    changed = write_bundle(tmp_path / "bricks.ndp", manifest_without_files=bricks.manifest, files=files)
    picture = np.ascontiguousarray(cv2.imread(str(bricks.path / "reference.png"))[::-1])
    maps = {}
    for precision in ("fp32", "int8"):
        with Inspector.open(changed.path, precision=precision, threshold=0.5) as inspector:
            before = inspector.inspect(picture).anomaly_map
            inspector.set_reference(picture)
            maps[precision] = before, inspector.inspect(picture).anomaly_map
    for of_fp32, of_int8 in zip(maps["fp32"], maps["int8"], strict=True):
        assert 0.0 < np.abs(of_fp32 - of_int8).max() < find_tolerance("engine.map", "int8").absolute


def test_without_bf16_mixed_is_refused_at_once(
    tiny: Bundle, surface: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = dataclasses.replace(find_cpu(), model_name="Old Processor", isa_flags=("avx2",))
    for module in ("engines.backends.openvino.backend", "quantise.run"):
        monkeypatch.setattr(f"ndp_rt.{module}.find_cpu", lambda: plain)
    for words, message in (
        (
            "build-engine",
            "for precision mixed, which is int8 and bf16, got Old Processor. Take int8 or fp32.",
        ),
        ("quantise", "precision on Old Processor: expected one of int8, got 'mixed'."),
    ):
        assert main([words, str(tiny.path), "--precision", "mixed", "--calibration", str(surface)]) == 1
        assert message in capfd.readouterr().err
    assert list_precisions() == ("int8",)


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    tiny: Bundle, surface: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the system says of it: whoever runs this may be allowed to write anywhere."""
    monkeypatch.setattr("ndp_rt.quantise.run.os.access", lambda path, mode: path != tiny.path.parent)
    assert main(["quantise", str(tiny.path), "--calibration", str(surface)]) == 1
    captured = capfd.readouterr()
    assert f"{tiny.path.parent}: cannot be written" in captured.err and captured.out == ""


def test_layers_that_changed_since_the_bundle_was_opened_are_not_built(tiny: Bundle, tmp_path: Path) -> None:
    before = with_layers(tiny, tmp_path / "changed.ndp", "int8")
    layers = Int8Layers(limits={"encoder_1": 2.0}, chosen={"int8": ("encoder_1",)})
    files: dict[str, bytes | Path] = {name: before.path / name for name in before.manifest.files}
    files[INT8_FILE] = layers.to_bytes()
    write_bundle(before.path, manifest_without_files=before.manifest, files=files, overwrite=True)
    with pytest.raises(BundleError, match="was changed by another process since it was opened. Open it again"):
        build_engine(before, EngineSpec(precision="int8"), cache_dir=tmp_path / "cache")


def test_the_staged_plan_takes_no_int8(tiny: Bundle) -> None:
    with pytest.raises(InputError, match=r"one engine for precision int8 .*got 'staged'\. Take another plan"):
        Inspector.open(tiny.path, precision="int8", plan="staged", threshold=0.5)


def test_layers_of_another_graph_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    layers = Int8Layers(limits={"encoder_1": 1.0, "other": 1.0}, chosen={"int8": ("encoder_1", "other")})
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in tiny.manifest.files}
    files[INT8_FILE] = layers.to_bytes()
    changed = write_bundle(tmp_path / "changed.ndp", manifest_without_files=tiny.manifest, files=files)
    with pytest.raises(EngineError, match="expected the layers of int8.json, got none named other"):
        Inspector.open(changed.path, precision="int8", threshold=0.5)


@pytest.mark.nightly
@NEEDS_BF16
@pytest.mark.usefixtures("fast_int8")
def test_build_engine_chooses_layers_where_none_are_chosen(tiny: Bundle, surface: Path) -> None:
    command = ["build-engine", str(tiny.path), "--precision", "mixed", "--calibration", str(surface)]
    assert main([*command, "--max-drop", "0.9"]) == 0
    layers = open_bundle(tiny.path).int8_layers()
    assert layers is not None and set(layers.chosen) == {"int8", "mixed"}
    before = read_tree(tiny.path)
    assert main(["build-engine", str(tiny.path), "--precision", "mixed"]) == 0
    assert read_tree(tiny.path) == before


@pytest.mark.nightly
def test_what_is_no_faster_is_refused_and_the_bundle_stays(
    tiny: Bundle, surface: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def compare(engines: Sequence[Engine], image: object) -> list[list[float]]:
        return [[1.0] * 3 for _ in engines]

    monkeypatch.setattr("ndp_rt.quantise.search.compare_times", compare)
    before = read_tree(tiny.path)
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--precision", "int8", "--max-drop", "0.9"]
    assert main(command) == 1
    assert "int8: is no faster here: 1.00 of the time of fp32" in capfd.readouterr().err
    assert read_tree(tiny.path) == before


def test_without_other_images_the_bundles_own_are_used(
    tiny: Bundle, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = rng.integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in tiny.manifest.files}
    files[CALIBRATION_FILE] = save({"good": good})
    carrying = write_bundle(tmp_path / "carrying.ndp", manifest_without_files=tiny.manifest, files=files)

    def stop(bundle: Bundle, images: np.ndarray, *, threads: int | None) -> None:
        assert np.array_equal(images[:3], np.repeat(good, 3, axis=1) / np.float32(255))
        raise EngineError(f"ranges of {len(images)} images")

    monkeypatch.setattr("ndp_rt.quantise.run.measure_limits", stop)
    with pytest.raises(EngineError, match="ranges of 35 images"):
        quantise_bundle(carrying, QuantiseSettings())


def test_a_bundle_without_images_says_what_to_give(tiny: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["quantise"], ["build-engine", "--precision", "int8"]):
        assert main([command[0], str(tiny.path), *command[1:]]) == 1
        assert "expected calibration images in it, got none" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"has no layers chosen for int8. Choose them with: ndp-rt quantise"):
        Inspector.open(tiny.path, precision="int8")


@NEEDS_BF16
def test_layers_of_the_other_precision_do_not_count(tiny: Bundle, tmp_path: Path) -> None:
    changed = with_layers(tiny, tmp_path / "changed.ndp", "int8")
    with pytest.raises(InputError, match=r"has no layers chosen for mixed. Choose them with: ndp-rt quantise"):
        Inspector.open(changed.path, precision="mixed")
    with pytest.raises(EngineError, match=r"expected layers for mixed, got none. Choose them: ndp-rt quantise"):
        Inspector.open(changed.path, precision="mixed", threshold=0.5)


def test_labelled_images_without_masks_are_refused(
    tiny: Bundle, surface: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("good", "hole"):
        (tmp_path / "data" / "test" / kind).mkdir(parents=True)
        (tmp_path / "data" / "test" / kind / "one.png").write_bytes((surface / "good_0.png").read_bytes())
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--validation", str(tmp_path / "data")]
    assert main(command) == 1
    assert "one.png: mask: expected ground_truth/hole/one_mask.png, got none" in capfd.readouterr().err


def test_arguments_of_int8_go_with_int8_alone(tiny: Bundle, surface: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build-engine", str(tiny.path), "--calibration", str(surface)]) == 1
    assert "with --calibration, got fp32" in capfd.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"max_drop": -0.1}, {"max_drop": 1.0}, {"precisions": ("fp32",)}, {"threads": 0}, {"false_alarm_rate": 2.0}],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        QuantiseSettings(**change)  # type: ignore[arg-type]
