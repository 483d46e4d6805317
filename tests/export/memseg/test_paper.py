"""MemSeg's preset `paper` from photographs to an inspector: both CPU backends, the commands, C, the fake GPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from ndp_rt import Inspector, open_bundle, read_image
from ndp_rt.cli import main
from ndp_rt.errors import InputError, RunError
from ndp_rt.export.features.weights import load_backbone
from ndp_rt.export.models.memseg.paper.network import DEEP_STRIDE, STRIDES, MemSegPaper
from ndp_rt.export.models.memseg.paper.program import export_network
from ndp_rt.export.models.memseg.paper.training import PaperTraining
from ndp_rt.export.onnx.bundle import ExportSettings, export_run, write_graphs
from ndp_rt.export.onnx.golden import make_noise, run_network, to_input
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, RunFolder
from ndp_rt.graphs.stages import make_stages
from ndp_rt.graphs.typed import make_typed
from ndp_rt.kernels.registry import find_op
from tests.capi.library import Library
from tests.capi.test_same_answers import check_equal, inspect
from tests.export.memseg.tiny_paper import random_resnet, train_paper
from tests.export.tiny_run import write_surface
from tests.fakes.fake_cupy import FakeCuda
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch
MEMORIES = ("images", "patches")
OPS = {"images": "nearest_sample", "patches": "nearest_neighbour"}


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surface(tmp_path_factory.mktemp("surface") / "data", count=10)


@pytest.fixture(scope="module", params=["images", pytest.param("patches", marks=pytest.mark.nightly)])
def memory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    """The images that `image_run` was trained on."""
    return []


@pytest.fixture(scope="module")
def image_run(surface: Path, drawn: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run with a memory of images; its backbone's weights lie beside it."""
    draw = PaperTraining.draw_example

    def watch(self: PaperTraining, rng: np.random.Generator, image: np.ndarray, textures: Any) -> Any:
        drawn.append(image)
        return draw(self, rng, image, textures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PaperTraining, "draw_example", watch)
        return train_paper(surface, tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="module")
def run(surface: Path, memory: str, image_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run."""
    if memory == "images":
        return image_run
    return train_paper(surface, tmp_path_factory.mktemp("patches") / "run", memory=memory, memory_patch_count=20)


@pytest.fixture(scope="module")
def bundle(run: RunFolder) -> Path:
    """The run's bundle."""
    return export_run(run.path, run.path.parent / "small.ndp").bundle.path


def spoil(image: np.ndarray) -> np.ndarray:
    spoilt = image.copy()
    spoilt[20:44, 20:44] = 255 - spoilt[20:44, 20:44]
    return spoilt


def test_the_manifest_holds_program_memory_and_rules(bundle: Path, memory: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["model"]["family"], manifest["model"]["preset"]) == ("memseg", "paper")
    assert manifest["model"]["rewrites"] == ["fold_batch_norm", "merge_softmax", "merge_pads"]
    (program,) = manifest["programs"]["cpu"]
    steps = [step.get("engine") or step["op"] for step in program["steps"]]
    assert steps == ["encoder", *[OPS[memory]] * 3, "segmentation"]
    shapes = manifest["assets"]["memory"]["tensors"]
    if memory == "images":
        assert shapes == {"s1": [3, 24, 16, 16], "s2": [3, 40, 8, 8], "s3": [3, 112, 4, 4]}
    else:
        assert shapes == {"s1": [20, 24], "s2": [20, 40], "s3": [20, 112]}
    assert manifest["decision"] == {"smooth": {"rule": "none"}, "score": {"rule": "top_k_mean", "k": 100}}
    assert set(manifest["parity"]["cases"]) == {"openvino staged", "onnxruntime staged"}
    operators = {
        node.op_type
        for stage in ("encoder", "segmentation")
        for node in onnx.load(bundle / f"{stage}.onnx", load_external_data=False).graph.node
    }
    assert not operators & {"Pad", "Shape", "BatchNormalization", "Constant", "Softmax", "Slice"}


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_it_inspects_and_names_its_stages(bundle: Path, surface: Path, memory: str, backend: str) -> None:
    good = read_image(surface / "0.png")
    with Inspector.open(bundle, backend=backend, threads=1) as inspector:
        result = inspector.inspect(spoil(good))
        assert result.anomaly_map.shape == good.shape
        assert set(result.timings_ms) >= {"encoder", OPS[memory], "segmentation"}
        golden = open_bundle(bundle).golden()
        for image, expected, score in zip(golden.image, golden.map, golden.score, strict=True):
            found = inspector.inspect(np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8))
            assert_close(found.anomaly_map, expected[0], "map", "float32")
            top = np.sort(expected.ravel())[-100:].mean()
            assert found.score == pytest.approx(score, abs=1e-4) and top == pytest.approx(float(score), abs=1e-5)


@pytest.mark.nightly
def test_the_fake_gpu_gives_what_the_cpu_gives(bundle: Path, surface: Path, fake_gpu: FakeCuda) -> None:
    images = [read_image(surface / "3.png"), spoil(read_image(surface / "4.png"))]
    with (
        Inspector.open(bundle, threads=1) as host,
        Inspector.open(bundle, device="cuda", backend="fake", batches=(2,)) as opened,
    ):
        for image, found in zip(images, opened.inspect_batch(images), strict=True):
            expected = host.inspect(image)
            assert_close(found.anomaly_map, expected.anomaly_map, "map", "float32")
            assert found.score == pytest.approx(expected.score, abs=1e-4)
    assert fake_gpu.device_heap.blocks == fake_gpu.pinned_heap.blocks == {}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_its_graphs_have_every_type_of_a_gpus(bundle: Path, precision: str) -> None:
    for model in make_stages(open_bundle(bundle), "staged").values():
        onnx.checker.check_model(make_typed(model, precision), full_check=True)


def test_c_gets_what_python_gets(bundle: Path, surface: Path, library: Library) -> None:
    options: dict[str, Any] = {"threads": 1}
    handle = library.open(bundle, **options)
    image = spoil(read_image(surface / "5.png"))
    with Inspector.open(bundle, **options) as opened:
        check_equal(inspect(library, handle, image, "GREY8"), opened.inspect(image))
    library.lib.ndp_rt_inspector_close(handle)


@pytest.mark.nightly
def test_the_commands_take_it(
    bundle: Path,
    surface: Path,
    memory: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    spoilt = tmp_path / "spoilt.png"
    assert cv2.imwrite(str(spoilt), spoil(read_image(surface / "6.png")))
    assert main(["build-engine", str(bundle), "--backend", "onnxruntime", "--threads", "1"]) == 0
    assert main(["inspect", str(bundle), str(spoilt), "-o", str(tmp_path / "out"), "--threads", "1"]) in (0, 3)
    command = ["bench", str(bundle), "--seconds", "0.1", "--threads", "1", "-o", str(tmp_path / "bench.jsonl")]
    assert main(command) == 0
    assert "small (preset paper), cpu" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "bench.jsonl").read_text().splitlines()[-1])["rows"]
    assert {"encoder", OPS[memory], "segmentation"} <= set(row["stages_ms"])


@pytest.mark.nightly
@pytest.mark.parametrize(
    "settings", [ExportSettings(rewrite=False), ExportSettings(weights="fp16")], ids=["plain", "fp16"]
)
def test_other_forms_of_the_graphs_agree_too(run: RunFolder, tmp_path: Path, settings: ExportSettings) -> None:
    manifest = export_run(run.path, tmp_path / "small.ndp", settings).bundle.manifest
    assert (manifest.model.rewrites == ()) is not settings.rewrite
    assert manifest.model.weights == settings.weights


@pytest.mark.nightly
def test_a_resumed_run_ends_with_the_same_weights(
    image_run: RunFolder, surface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndp_rt.export.training.loop import Trainer

    step = Trainer._step

    def stop(self: Trainer, phase: int, batch: object) -> dict[str, float]:
        if self.state.step == 1:
            self._stop_signal = 2
        return step(self, phase, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_paper(surface, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train_paper(surface, tmp_path / "cut", resumes=True)
    assert (image_run / WEIGHTS_FILE).read_bytes() == (resumed / WEIGHTS_FILE).read_bytes()


def test_images_of_the_memory_are_not_trained_on(image_run: RunFolder, drawn: list[np.ndarray]) -> None:
    model = MemSegPaper("lite0", 64, 64, memory="images", count=3).eval()
    model.load_state_dict(load_file(image_run / WEIGHTS_FILE))
    assert len(drawn) == 6
    with torch.no_grad():
        for image in drawn:
            rgb = np.repeat(image.transpose(2, 0, 1)[None], 3, axis=1)
            features = model.encoder(torch.from_numpy(rgb))[len(STRIDES)]
            assert (features - model.memory.levels[0]).abs().mean(dim=(1, 2, 3)).min() > 1e-4
    document = json.loads((image_run / "run.json").read_text())
    assert document["memory_count"] == 3
    assert set(document["painted_image_rocauc"]) == {"last", "averaged"}


def test_the_encoder_stays_as_it_was_and_what_lies_behind_it_does_not(image_run: RunFolder) -> None:
    trained, file = load_file(image_run / WEIGHTS_FILE), image_run.path.parent / "lite0.pth"
    given = load_backbone("lite0", file, STRIDES).state_dict()
    assert all(torch.equal(trained[f"encoder.backbone.{name}"], tensor) for name, tensor in given.items())
    deep = load_backbone("lite0", file, (*STRIDES, DEEP_STRIDE)).take_blocks(DEEP_STRIDE).state_dict()
    changed = {name for name, tensor in deep.items() if not torch.equal(trained[f"segmentation.deep.{name}"], tensor)}
    assert {"0.0.expand.0.weight", "0.0.expand.1.running_mean"} <= changed


def test_a_run_without_its_memorys_size_is_damaged(image_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(image_run.path, tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    del document["memory_count"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="expected memory_count from 1, got None"):
        export_run(tmp_path / "run", tmp_path / "small.ndp")


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("memory_kind", MEMORIES)
def test_resnet18s_graphs_agree_with_pytorch(tmp_path: Path, memory_kind: str) -> None:
    """Random weights in torchvision's names, and batch norms that have settled on random images."""
    import onnxruntime

    torch.manual_seed(0)
    torch.save(random_resnet(), tmp_path / "resnet18.pth")
    model = MemSegPaper("resnet18", 64, 64, memory=memory_kind, count=4)
    model.encoder.backbone = load_backbone("resnet18", tmp_path / "resnet18.pth", STRIDES)
    with torch.no_grad():
        images = torch.rand(6, 3, 64, 64)
        found = model.encoder(images)
        model.memory.fill([level[:4] for level in found[len(STRIDES) :]])
        differences = model.memory(found[len(STRIDES) :])
        values = (*found[1 : len(STRIDES)], *differences)
        for scale, value in zip(
            [*model.segmentation.feature_scales, *model.segmentation.difference_scales], values, strict=True
        ):
            scale.fit(value, 100.0)
        for norm in [one for one in model.segmentation.modules() if isinstance(one, torch.nn.BatchNorm2d)]:
            norm.momentum = None  # the mean of all batches
        model.segmentation.train()
        for _ in range(2):
            model.segmentation.find_logits(found[0], found[1 : len(STRIDES)], differences)
    exported = export_network(model.eval(), (64, 64), rewrite=True, provenance={})
    write_graphs(exported, tmp_path, weights="fp32")
    image = to_input(make_noise(64, 64))
    tensors = {"image": image}
    for step in exported.programs["cpu"]["staged"].steps:
        if step.engine:
            session = onnxruntime.InferenceSession(tmp_path / f"{step.engine}.onnx", providers=["CPUExecutionProvider"])
            names = [one.name for one in session.get_inputs()]
            outputs = session.run(None, {name: tensors[name] for name in names})
            tensors |= dict(zip([one.name for one in session.get_outputs()], outputs, strict=True))
        else:
            part = exported.assets["memory"].tensors[step.reads[1].partition(".")[2]]
            (difference,) = find_op(step.op).define({}, tensors[step.reads[0]], part)
            tensors[step.writes[0]] = difference.astype(np.float32)
    expected = run_network(model, image)
    assert expected.std() > 1e-3  # it says something
    assert_close(tensors["map"], expected, "map", "float32")


def test_the_memory_is_an_option_of_preset_paper_alone(
    surface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(surface), "-o", str(tmp_path / "run"), "--model", "memseg"]
    assert main([*command, "--memory", "patches"]) == 1
    assert "--memory patches: expected --preset paper with it, got preset lite." in capsys.readouterr().err
    assert main([*command, "--preset", "paper"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected --backbone-weights FILE with weights under torchvision's names" in line
    assert not (tmp_path / "run").exists()


def test_the_memory_cannot_be_swapped_by_one_image(bundle: Path, surface: Path) -> None:
    with (
        Inspector.open(bundle, threads=1) as inspector,
        pytest.raises(InputError, match="expected a model with a reference image, got one without"),
    ):
        inspector.set_reference(read_image(surface / "0.png"))
