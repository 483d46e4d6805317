"""The stages of the families with pretrained features, built by NVIDIA's own compiler for GPUs that are not here."""

from pathlib import Path

import pytest

from ndp_rt.engines.backends.tensorrt.layers import sum_products
from ndp_rt.engines.backends.tensorrt_rtx.options import TensorRtRtxOptions
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.export.onnx.bundle import export_run
from tests.export.memseg.tiny_memseg import train_small
from tests.export.memseg.tiny_paper import train_paper
from tests.export.tiny_run import write_surface

pytestmark = pytest.mark.torch
pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["gaussian", "paper", "memseg"])
def test_the_compiler_takes_every_stage_and_computes_in_the_precision(model: str, tmp_path: Path) -> None:
    data = write_surface(tmp_path / "data", count=10)
    run = tmp_path / "run"
    folder = train_paper(data, run) if model == "paper" else train_small(model, data, run)
    bundle = export_run(folder.path, tmp_path / "small.ndp").bundle
    for precision, product in TYPES.items():
        build = TensorRtRtxOptions(targets="sm89")
        spec = EngineSpec(device="cuda", backend="tensorrt-rtx", precision=precision, build=build)
        record = build_engine(bundle, spec, cache_dir=tmp_path)
        assert {entry.key.stage for entry in record.entries} == set(bundle.manifest.find_program("cuda")[1].stages)
        products = sum_products(record.precision_by_layer_type())
        assert products[product] > 0.75 * sum(products.values())
