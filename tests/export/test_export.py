"""From a run folder to a bundle: what is in it, what it promises, and what is refused."""

import dataclasses
import errno
import json

import numpy as np
import pytest
import torch

from ndp_rt.bundle import open_bundle
from ndp_rt.bundle.assets import find_tensor_data
from ndp_rt.cli import main
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError, InputError, RunError, StorageError
from ndp_rt.export.models.ndpnet.program import export_run as export_ndpnet
from ndp_rt.export.models.ndpnet.program import read_network
from ndp_rt.export.models.ndpnet.rewrites import REWRITES
from ndp_rt.export.onnx import golden, parity
from ndp_rt.export.onnx.bundle import ExportSettings, choose_pictures, export_run
from ndp_rt.export.training.run_folder import load_run
from ndp_rt.program.program import DecisionRules
from ndp_rt.runtime.check import check_preprocessing
from tests.export.random_run import write_random_run
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    torch.set_num_threads(1)
    return write_random_run(tmp_path_factory.mktemp("surface"))


@pytest.fixture(scope="module")
def exported(run_path, tmp_path_factory):
    """The bundle of the run, exported once, with the lines that its export said."""
    lines = []
    export = export_run(run_path, tmp_path_factory.mktemp("out") / "surface.ndp", progress=lines.append)
    return export, lines


@pytest.fixture
def copied_run(run_path, tmp_path):
    """A copy of the run that a test may damage."""
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run_path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_bundle_opens_and_says_what_it_is(exported, run_path):
    bundle = open_bundle(exported[0].bundle.path)
    manifest = bundle.manifest
    assert manifest.name == "surface"
    assert manifest.model.rewrites == REWRITES
    assert (manifest.model.preset, manifest.model.width, manifest.model.weights) == ("edge", 4, "fp32")
    assert manifest.provenance["commands"] == ["ndp-rt train surface -o run", "ndp-rt export"]
    assert {"python", "torch", "onnx", "openvino"} <= set(manifest.provenance["versions"]["export"])
    assert manifest.reference == {"source": "0.png", "rule": "by hand"}
    assert manifest.largest_score == 1.0
    assert (bundle.path / "reference.png").read_bytes() == (run_path / "reference.png").read_bytes()
    assert exported[0].size_bytes == sum(path.stat().st_size for path in bundle.path.iterdir())


def test_golden_maps_are_those_of_the_trained_network_in_pytorch(exported, run_path):
    found, model = exported[0].bundle.golden(), read_network(load_run(run_path))
    with torch.no_grad():
        expected = model(torch.from_numpy(found.image))[0].numpy()
    assert_close(found.map, expected, "rewrite", "float32")
    assert_close(found.score, golden.score_maps(found.map, DecisionRules()), "rewrite", "float32")
    assert len(found.image) == 4
    assert np.array_equal(found.image, np.rint(found.image * 255).astype(np.uint8) / np.float32(255))


def test_golden_preprocessing_covers_grey_rgb_16_bits_shrinking_and_growing(exported):
    found = exported[0].bundle.golden()
    assert check_preprocessing(exported[0].bundle, found) == 0.0
    shapes = [(raw.dtype.name, raw.ndim) for raw in found.raw]
    assert shapes == [("uint8", 2), ("uint8", 3), ("uint16", 3)]
    assert any(min(raw.shape[:2]) > 64 for raw in found.raw) and any(max(raw.shape[:2]) < 64 for raw in found.raw)


def test_parity_is_measured_stored_and_within_the_table(exported):
    stored = exported[0].bundle.manifest.parity
    allowed = find_tolerance("engine.map", "fp32").absolute
    assert 0 <= stored["map_max_abs_difference"] <= allowed == stored["tolerance"]
    assert set(stored["cases"]) == {"openvino fused", "openvino staged", "onnxruntime fused"}
    assert len(stored["images"]) == 5
    assert any("parity, openvino fused" in line for line in exported[1])


def test_reference_features_are_stored_once(exported):
    bundle = exported[0].bundle
    content = (bundle.path / "reference.safetensors").read_bytes()
    data = {content[start : start + length] for start, length in find_tensor_data(content, ("f3", "f4", "f5")).values()}
    others = [path for path in bundle.path.iterdir() if path.name != "reference.safetensors"]
    assert not any(one in path.read_bytes() for one in data for path in others)


def test_thresholds_are_predicted_from_every_held_out_score(exported, run_path):
    run = load_run(run_path)
    model = export_ndpnet(run, rewrite=True, weights="fp32")
    with torch.no_grad():
        pictures = [picture for name, picture in choose_pictures(run, model).items() if "held-out" in name]
        maps = [model.trained(torch.from_numpy(golden.to_input(picture)))[0].numpy() for picture in pictures]
    scores = golden.score_maps(np.concatenate(maps), model.decision)
    threshold = exported[0].bundle.threshold("fp32")
    assert threshold.source == "calibrated" and threshold.good_image_count == 3
    assert (
        threshold.value is not None and threshold.value > scores.max() - find_tolerance("engine.map", "fp32").absolute
    )


def test_the_held_out_images_are_carried_along(exported, run_path):
    run, found = load_run(run_path), open_bundle(exported[0].bundle.path).calibration_images()
    wanted = np.concatenate([run.read_input(path) for path in run.calibration_paths])
    assert found.dtype == np.uint8 and found.shape == wanted.shape == (3, 3, 64, 64)
    assert np.abs(found / 255.0 - wanted).max() <= 0.5001 / 255.0


@pytest.mark.nightly
def test_half_precision_weights_make_a_smaller_bundle_and_say_what_rounding_did(run_path, exported, tmp_path):
    export = export_run(run_path, tmp_path / "half.ndp", ExportSettings(weights="fp16"))
    bundle = open_bundle(export.bundle.path)
    assert export.size_bytes < 0.7 * exported[0].size_bytes
    rounding = bundle.manifest.parity["weight_rounding"]["map_max_abs_difference"]
    assert 0 < rounding < 1e-2
    assert "float16" in bundle.manifest.golden["made_by"]
    assert len(bundle.golden().image) == 2
    assert_close(bundle.golden().map, exported[0].bundle.golden().map[:2], "half_weights", "float32")


@pytest.mark.nightly
def test_plain_export_names_no_rewrites_and_gives_the_same_golden_vectors(run_path, exported, tmp_path):
    export = export_run(run_path, tmp_path / "plain.ndp", ExportSettings(rewrite=False))
    assert export.bundle.manifest.model.rewrites == ()
    golden_file = "golden.safetensors"
    assert (export.bundle.path / golden_file).read_bytes() == (exported[0].bundle.path / golden_file).read_bytes()


@pytest.mark.nightly
def test_exporting_twice_gives_identical_files(run_path, exported, tmp_path):
    export = export_run(run_path, tmp_path / "surface.ndp")
    assert export.bundle.manifest.files == exported[0].bundle.manifest.files
    assert export.bundle.fingerprint == exported[0].bundle.fingerprint


def test_a_bundle_that_is_there_stays_unless_overwriting_is_asked_for(run_path, tmp_path):
    path = tmp_path / "a.ndp"
    path.mkdir()
    with pytest.raises(StorageError, match="--overwrite"):
        export_run(run_path, path)
    assert not list(path.iterdir())


def test_a_full_temporary_folder_is_named(run_path, tmp_path, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ndp_rt.export.onnx.bundle.write_graphs", fill)
    with pytest.raises(StorageError, match=r"cannot be written there \(No space left on device\)\. .* set TMPDIR"):
        export_run(run_path, tmp_path / "a.ndp")
    assert not list(tmp_path.iterdir())


def test_a_difference_from_pytorch_writes_nothing(run_path, tmp_path, monkeypatch):
    narrow = dataclasses.replace(find_tolerance("engine.map", "fp32"), absolute=-1.0)
    monkeypatch.setattr(parity, "find_tolerance", lambda operation, precision: narrow)
    with pytest.raises(EngineError, match="No bundle was written"):
        export_run(run_path, tmp_path / "a.ndp")
    assert not list(tmp_path.iterdir())


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"run\.json"):
        export_run(tmp_path / "nothing", tmp_path / "a.ndp")


def test_an_unfinished_run_is_refused_with_the_command_that_finishes_it(copied_run, tmp_path):
    document = json.loads((copied_run / "run.json").read_text())
    (copied_run / "run.json").write_text(json.dumps({**document, "finished": False}))
    with pytest.raises(RunError, match="ndp-rt train surface -o run --resume"):
        export_run(copied_run, tmp_path / "a.ndp")


@pytest.mark.parametrize("name", ["model.safetensors", "reference.png", "calibration.json", "run.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_run_is_refused(copied_run, tmp_path, name, damage):
    content = (copied_run / name).read_bytes()
    (copied_run / name).unlink()
    if damage == "cut":
        (copied_run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError):
        export_run(copied_run, tmp_path / "a.ndp")


@pytest.mark.parametrize("name", ["format_version", "preset", "input", "settings", "data", "commands", "finished"])
@pytest.mark.parametrize("value", [None, 1.5])
def test_a_damaged_description_is_named(copied_run, tmp_path, name, value):
    document = json.loads((copied_run / "run.json").read_text())
    changed = {key: entry for key, entry in document.items() if key != name}
    (copied_run / "run.json").write_text(json.dumps(changed if value is None else {**changed, name: value}))
    with pytest.raises(RunError, match=rf"run\.json is damaged: {name} is missing or no longer itself"):
        export_run(copied_run, tmp_path / "a.ndp")


def test_weights_of_another_network_are_refused(copied_run, tmp_path):
    document = json.loads((copied_run / "run.json").read_text())
    (copied_run / "run.json").write_text(json.dumps({**document, "settings": {**document["settings"], "width": 6}}))
    with pytest.raises(RunError, match="does not hold the weights that its record says") as refusal:
        export_run(copied_run, tmp_path / "a.ndp")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


def test_a_held_out_image_that_is_gone_is_named(copied_run, tmp_path):
    (copied_run / "calibration.json").write_text(json.dumps(["/nowhere/good.png"]))
    with pytest.raises(RunError, match=r"/nowhere/good\.png"):
        export_run(copied_run, tmp_path / "a.ndp")


@pytest.mark.nightly
def test_a_run_with_another_number_of_groups_than_images_is_damaged(copied_run, tmp_path):
    (copied_run / "calibration_groups.json").write_text('["monday"]')
    with pytest.raises(RunError, match="expected 3 groups, got 1"):
        load_run(copied_run)


def test_a_run_without_held_out_images_gets_no_threshold(copied_run, tmp_path):
    (copied_run / "calibration.json").write_text("[]")
    export = export_run(copied_run, tmp_path / "a.ndp")
    threshold = open_bundle(export.bundle.path).threshold("fp32")
    assert (threshold.value, threshold.source) == (None, "none")
    assert "no good images" in threshold.note
    assert export.bundle.calibration_images() is None


@pytest.mark.parametrize(
    "settings", [{"weights": "int4"}, {"false_alarm_rate": 1.5}, {"calibration_image_count": -1}, {"threads": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError):
        ExportSettings(**settings)


def test_what_is_no_bundle_is_refused_before_the_work(run_path, tmp_path):
    target = tmp_path / "photos.ndp"
    target.mkdir()
    (target / "holiday.jpg").write_text("precious")
    lines = []
    with pytest.raises(StorageError, match="expected a bundle to overwrite"):
        export_run(run_path, target, ExportSettings(overwrite=True), progress=lines.append)
    assert lines == []


def test_command_prints_size_parity_and_thresholds(run_path, tmp_path, capsys):
    path = tmp_path / "surface.ndp"
    options = ["--weights", "fp16", "--false-alarm-rate", "0.01", "--calibration-images", "1"]
    assert main(["export", str(run_path), "-o", str(path), *options]) == 0
    assert len(open_bundle(path).calibration_images()) == 1
    printed = capsys.readouterr().out
    assert "fp16 weights" in printed and "difference from PyTorch on 5 images" in printed
    assert "threshold fp32" in printed and "it takes 299" in printed
    assert main(["export", str(run_path), "-o", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.parametrize("is_refused", [False, True])
def test_layers_for_int8_are_chosen_at_once_and_none_is_no_failure(run_path, tmp_path, monkeypatch, capsys, is_refused):
    def quantise_bundle(bundle, settings, *, progress):
        assert bundle.path == tmp_path / "tiles.ndp"
        assert (settings.false_alarm_rate, settings.threads, settings.precisions) == (0.2, 1, None)
        raise EngineError("is no faster here") if is_refused else InputError("stop")

    monkeypatch.setattr("ndp_rt.quantise.run.quantise_bundle", quantise_bundle)
    options = ["--quantise", "--threads", "1", "--false-alarm-rate", "0.2"]
    code = main(["export", str(run_path), "-o", str(tmp_path / "tiles.ndp"), *options])
    words = "tiles.ndp is ready, without int8 layers: is no faster here" if is_refused else "stop"
    assert code == (0 if is_refused else 1) and words in capsys.readouterr().err
    assert open_bundle(tmp_path / "tiles.ndp").int8_layers() is None
