"""Rivals through OpenVINO run their graph as it is, whatever our own engines do to theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from ndp_rt.bench.rivals.fused_graph import HostEngineRival
from ndp_rt.bench.rivals.modules import export_module
from ndp_rt.bench.rivals.onnx_file import open_openvino
from ndp_rt.bundle import open_bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from tests.tiny_bundle import SIDE


def write_square(path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, SIDE, SIDE]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "square", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_no_rival_gets_the_rewrites_of_our_engines(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[EngineOptions] = []
    compile_model = OpenVinoBackend.compile

    def note_options(backend: OpenVinoBackend, path: Path, artifact: Path, options: EngineOptions) -> Any:
        compiled.append(options)
        return compile_model(backend, path, artifact, options)

    monkeypatch.setattr(OpenVinoBackend, "compile", note_options)
    bundle = open_bundle(tiny_bundle, verify=False)
    HostEngineRival("one", "openvino").open(bundle, "fp32", 1, threads=1).close()
    assert [options.rewrites for options in compiled] == [False]


@pytest.mark.parametrize("is_file", [True, pytest.param(False, marks=pytest.mark.torch)])
def test_files_and_modules_are_compiled_past_our_engines_for_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    asked: list[tuple[list[int], Any]] = []
    compile_model = openvino.Core.compile_model

    def note_settings(core: openvino.Core, model: Any, device: str, settings: Any) -> Any:
        asked.append((list(model.inputs[0].shape), settings))
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", note_settings)
    if is_file:
        session = open_openvino(write_square(tmp_path / "x.onnx"), (2, 3, SIDE, SIDE), 1)
        (found,) = session.run(np.full((2, 3, SIDE, SIDE), 0.5, np.float32))
    else:
        found, _ = open_module()(np.full((2, 3, SIDE, SIDE), 0.5, np.float32))
    assert (found == 0.25).all() and found.shape[0] == 2
    assert asked[0][0] == [2, 3, SIDE, SIDE] and asked[0][1]["INFERENCE_NUM_THREADS"] == 1
    assert asked[0][1]["INFERENCE_PRECISION_HINT"] == "f32"  # left alone it picks bf16 where the CPU has it


def open_module() -> Any:
    import torch

    class Square(torch.nn.Module):
        def forward(self, image: Any) -> tuple[Any, Any]:
            maps = image.square().mean(1, keepdim=True)
            return maps, maps.amax(dim=(1, 2, 3))

    return export_module(Square(), (2, SIDE, SIDE, 3), 1)
