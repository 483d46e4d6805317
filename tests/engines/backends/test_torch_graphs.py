"""Whole stages that NDP-Net's operators do not reach, through torch-cuda: other families' and imported models'."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ndp_rt import ImportSettings, import_onnx
from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.capi.installed import DEMO
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.export.onnx.bundle import export_run
from ndp_rt.graphs.folding import fix_batch
from ndp_rt.graphs.stages import make_stages
from ndp_rt.graphs.typed import make_typed
from tests.engines.staged_plan import load_engine
from tests.export.memseg.tiny_memseg import train_small
from tests.export.memseg.tiny_paper import train_paper
from tests.export.tiny_run import write_surface

pytestmark = pytest.mark.torch

ANOMALIB = Path(__file__).parents[2] / "data" / "anomalib"
PRECISIONS = ["fp32", "fp16", "bf16"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def check_stages(bundle: Bundle, folder: Path, precision: str, rng: np.random.Generator) -> None:
    """Hold the default plan's outputs to ONNX Runtime's of the float32 graphs, in shares of the largest value."""
    plan, _ = bundle.manifest.find_program("cuda")
    for name, model in make_stages(bundle, plan).items():
        options = EngineOptions(precision=precision)
        (folder / name).mkdir()
        engine = load_engine(make_typed(model, precision), folder / name, options)
        fix_batch(model, 1)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = {spec.name: rng.random(spec.with_batch(1), np.float32) for spec in engine.inputs.values()}
        given |= {"image": bundle.golden().image[:1]} if "image" in given else {}
        expected = dict(zip(engine.outputs, session.run(list(engine.outputs), given), strict=True))
        specs = (*engine.inputs.values(), *engine.outputs.values())
        tensors = {s.name: torch.zeros(s.with_batch(1), dtype=getattr(torch, s.dtype)) for s in specs}
        for one, values in given.items():
            tensors[one].copy_(torch.from_numpy(values))
        engine.bind({one: tensor.data_ptr() for one, tensor in tensors.items()})
        for _ in range(2):  # nothing of the first run is left
            engine.enqueue(0)
        for one, values in expected.items():
            difference = float(np.abs(tensors[one].float().numpy() - values).max() / np.abs(values).max())
            allowed = find_tolerance("engine.map", precision).absolute
            print(f"{name} {precision} {one}: {difference:.2e} of {allowed:.0e}")
            assert difference <= allowed


@pytest.mark.nightly(but=3)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["demo", "Padim", "Patchcore", "Stfpm"])
def test_the_demo_and_imported_models_give_what_onnx_runtime_gives(
    name: str, precision: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    if name == "demo":
        bundle = open_bundle(DEMO)
    else:
        settings = ImportSettings(source="anomalib")
        bundle = import_onnx(ANOMALIB / name / "model.onnx", tmp_path / "raw.ndp", settings).bundle
    check_stages(bundle, tmp_path, precision, rng)


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["gaussian", "paper", "memseg"])
def test_trained_families_give_what_onnx_runtime_gives(model: str, tmp_path: Path, rng: np.random.Generator) -> None:
    data = write_surface(tmp_path / "data", count=10)
    run = tmp_path / "run"
    folder = train_paper(data, run) if model == "paper" else train_small(model, data, run)
    bundle = export_run(folder.path, tmp_path / "small.ndp").bundle
    for precision in PRECISIONS:
        (tmp_path / precision).mkdir()
        check_stages(bundle, tmp_path / precision, precision, rng)
