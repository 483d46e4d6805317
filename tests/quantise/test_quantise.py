"""`ndp-rt quantise`: layers are chosen, stored and used; what cannot be done is refused and changes nothing."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.bundle import Bundle, open_bundle, write_bundle
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers
from ndp_rt.cli import main
from ndp_rt.device import find_cpu
from ndp_rt.engines.base import Engine
from ndp_rt.engines.int8_ranges import measure_all_layers
from ndp_rt.errors import EngineError, InputError
from ndp_rt.inspector import Inspector
from ndp_rt.quantise.run import QuantiseSettings
from ndp_rt.tolerances import find_tolerance

DEMO = Path(__file__).parents[2] / "ndp_rt" / "data" / "demo.ndp"
NEEDS_BF16 = pytest.mark.skipif(not find_cpu().has_bf16, reason="needs a processor with avx512_bf16 or amx_bf16")


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("fast_int8")
def test_layers_and_threshold_go_into_the_bundle_and_engines_use_them(
    tiny: Bundle, surface: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--precision", "int8"]
    assert main([*command, "--max-drop", "0.9", "--report", str(report)]) == 0
    printed = capfd.readouterr().out
    changed = open_bundle(tiny.path)
    layers = changed.int8_layers()
    assert layers is not None and set(layers.chosen) == {"int8"} and layers.chosen["int8"]
    assert json.loads(report.read_text()) == layers.report
    assert changed.threshold("int8").source == "calibrated" and changed.threshold("int8").good_image_count == 4
    assert changed.fingerprint == tiny.fingerprint  # engines of other precisions need no rebuild
    assert changed.engine_fingerprint("int8") != changed.fingerprint == changed.engine_fingerprint("bf16")
    for name in layers.limits:
        assert f"│ {name} " in printed
    assert main(["build-engine", str(tiny.path), "--precision", "int8"]) == 0
    assert "Convolution" in capfd.readouterr().out
    with Inspector.open(tiny.path, precision="int8") as inspector:
        result = inspector.inspect(cv2.imread(str(surface / "good_0.png")))
    assert result.threshold == changed.threshold("int8").value


def test_another_reference_takes_the_layers_along(tmp_path: Path) -> None:
    demo = open_bundle(DEMO, verify=False)
    layers = measure_all_layers(demo, demo.golden().image)
    files: dict[str, bytes | Path] = {name: demo.path / name for name in demo.manifest.files}
    files[INT8_FILE] = dataclasses.replace(layers, chosen={"int8": tuple(layers.limits)}).to_bytes()
    changed = write_bundle(tmp_path / "demo.ndp", manifest_without_files=demo.manifest, files=files)
    picture = np.ascontiguousarray(cv2.imread(str(demo.path / "reference.png"))[::-1])
    maps = {}
    for precision in ("fp32", "int8"):
        with Inspector.open(changed.path, precision=precision, threshold=0.5) as inspector:
            before = inspector.inspect(picture).anomaly_map
            inspector.set_reference(picture)
            maps[precision] = before, inspector.inspect(picture).anomaly_map
    for of_fp32, of_int8 in zip(maps["fp32"], maps["int8"], strict=True):
        assert 0.0 < np.abs(of_fp32 - of_int8).max() < find_tolerance("engine.map", "int8").absolute


def test_the_staged_plan_takes_no_int8(tiny: Bundle) -> None:
    with pytest.raises(InputError, match=r"plan is 'staged' with precision int8; .*Take that plan, or fp32 or bf16"):
        Inspector.open(tiny.path, precision="int8", plan="staged", threshold=0.5)


def test_layers_of_another_graph_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    layers = Int8Layers(limits={"encoder_1": 1.0, "other": 1.0}, chosen={"int8": ("encoder_1", "other")})
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in tiny.manifest.files}
    files[INT8_FILE] = layers.to_bytes()
    changed = write_bundle(tmp_path / "changed.ndp", manifest_without_files=tiny.manifest, files=files)
    with pytest.raises(EngineError, match="has no layer other; int8.json is about another graph"):
        Inspector.open(changed.path, precision="int8", threshold=0.5)


@NEEDS_BF16
@pytest.mark.usefixtures("fast_int8", "known_errors")
def test_build_engine_chooses_layers_where_none_are_chosen(tiny: Bundle, surface: Path) -> None:
    command = ["build-engine", str(tiny.path), "--precision", "mixed", "--calibration", str(surface)]
    assert main([*command, "--max-drop", "0.9"]) == 0
    layers = open_bundle(tiny.path).int8_layers()
    assert layers is not None and set(layers.chosen) == {"int8", "mixed"}
    before = read_tree(tiny.path)
    assert main(["build-engine", str(tiny.path), "--precision", "mixed"]) == 0
    assert read_tree(tiny.path) == before


@pytest.mark.usefixtures("known_errors")
def test_what_is_no_faster_is_refused_and_the_bundle_stays(
    tiny: Bundle, surface: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def compare(engines: Sequence[Engine], image: object, rounds: int = 15) -> list[list[float]]:
        return [[1.0] * 3 for _ in engines]

    monkeypatch.setattr("ndp_rt.quantise.search.compare_times", compare)
    before = read_tree(tiny.path)
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--precision", "int8", "--max-drop", "0.9"]
    assert main(command) == 1
    assert "int8: is no faster here: 1.00 of the time of fp32" in capfd.readouterr().err
    assert read_tree(tiny.path) == before


@pytest.mark.usefixtures("fast_int8", "known_errors")
def test_layers_are_put_back_until_nothing_is_lost(
    tiny: Bundle, surface: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With limits that only two layers or fewer meet, two are left: the cheapest."""
    from ndp_rt.quantise import search

    def exceeded(self: object, found: object, base: object) -> list[str]:
        return ["too many"] if len(compiled[-1]) > 2 else []

    compiled: list[list[str]] = []
    compile_trial = search.Trials.compile

    def remember(self: search.Trials, precision: str, layers: Sequence[str] = ()) -> Engine:
        compiled.append(list(layers))
        return compile_trial(self, precision, layers)

    monkeypatch.setattr("ndp_rt.quantise.figures.Limits.list_exceeded", exceeded)
    monkeypatch.setattr("ndp_rt.quantise.search.Trials.compile", remember)
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--precision", "int8"]
    assert main(command) == 0
    layers = open_bundle(tiny.path).int8_layers()
    assert layers is not None and len(layers.chosen["int8"]) == 2
    found = layers.report["precisions"]["int8"]["layers"]
    assert {one["choice"] for one in found} == {"int8", "put back: for accuracy"}


def test_a_bundle_without_images_says_what_to_give(tiny: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["quantise"], ["build-engine", "--precision", "int8"]):
        assert main([command[0], str(tiny.path), *command[1:]]) == 1
        assert "holds no calibration images" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"has no layers chosen for int8. Choose them with: ndp-rt quantise"):
        Inspector.open(tiny.path, precision="int8")


@pytest.mark.usefixtures("known_errors")
def test_images_of_one_colour_are_refused(tiny: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flat").mkdir()
    cv2.imwrite(str(tmp_path / "flat" / "black.png"), np.zeros((64, 64), np.uint8))
    code = main(["quantise", str(tiny.path), "--calibration", str(tmp_path / "flat"), "--precision", "int8"])
    error = capfd.readouterr().err
    assert code == 1 and error.startswith("ndp-rt: error: ") and error.count("\n") == 1, error


def test_labelled_images_without_masks_are_refused(
    tiny: Bundle, surface: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("good", "hole"):
        (tmp_path / "data" / "test" / kind).mkdir(parents=True)
        (tmp_path / "data" / "test" / kind / "one.png").write_bytes((surface / "good_0.png").read_bytes())
    command = ["quantise", str(tiny.path), "--calibration", str(surface), "--validation", str(tmp_path / "data")]
    assert main(command) == 1
    assert "one.png: has no mask; one is taken for each defective image" in capfd.readouterr().err


def test_arguments_of_int8_go_with_int8_alone(tiny: Bundle, surface: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build-engine", str(tiny.path), "--calibration", str(surface)]) == 1
    assert "--calibration came with --precision fp32" in capfd.readouterr().err


@pytest.mark.parametrize("change", [{"max_drop": -0.1}, {"max_drop": 1.0}, {"precisions": ("fp32",)}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        QuantiseSettings(**change)  # type: ignore[arg-type]
