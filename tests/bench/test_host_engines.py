"""Rivals through OpenVINO run their graph as it is, whatever our own engines do to theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from ndp_rt.bench.rivals import onnx_file
from ndp_rt.bench.rivals.base import Rival
from ndp_rt.bench.rivals.fused_graph import HostEngineRival, compile_file
from ndp_rt.bench.rivals.modules import export_engine
from ndp_rt.bench.rivals.onnx_file import OnnxFileRival
from ndp_rt.bundle import open_bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from tests.tiny_bundle import SIDE

Open = Callable[[Path, Path], Any]


def write_square(path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, SIDE, SIDE]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "square", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def open_it(rival: Rival, bundle: Path) -> Any:
    return rival.open(open_bundle(bundle, verify=False), "fp32", 1, threads=1)


def open_module(bundle: Path, folder: Path) -> Any:
    import torch

    class Square(torch.nn.Module):
        def forward(self, image: Any) -> tuple[Any, Any]:
            maps = image.square().mean(1, keepdim=True)
            return maps, maps.amax(dim=(1, 2, 3))

    return export_engine(Square(), (1, SIDE, SIDE, 3), 1)


@pytest.mark.parametrize(
    "open_rival",
    [
        pytest.param(lambda bundle, folder: open_it(HostEngineRival("one", "openvino"), bundle), id="our-network"),
        pytest.param(lambda bundle, folder: open_it(OnnxFileRival(write_square(folder / "x.onnx")), bundle), id="file"),
        pytest.param(open_module, id="module", marks=pytest.mark.torch),
    ],
)
def test_no_rival_gets_the_rewrites_of_our_engines(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_rival: Open
) -> None:
    compiled: list[EngineOptions] = []
    compile_model = OpenVinoBackend.compile

    def note_options(backend: OpenVinoBackend, path: Path, artifact: Path, options: EngineOptions) -> Any:
        compiled.append(options)
        return compile_model(backend, path, artifact, options)

    monkeypatch.setattr(OpenVinoBackend, "compile", note_options)
    monkeypatch.setattr(onnx_file, "has_onnxruntime", lambda: False)
    open_rival(tiny_bundle, tmp_path).close()
    assert [options.rewrites for options in compiled] == [False]


def test_a_file_is_compiled_for_the_batch_and_threads_that_are_asked_for(tmp_path: Path) -> None:
    engine = compile_file("openvino", write_square(tmp_path / "x.onnx"), EngineOptions(batch=3, threads=1))
    assert engine.inputs["x"].shape == (3, 3, SIDE, SIDE)
    assert int(engine._compiled.get_property("INFERENCE_NUM_THREADS")) == 1  # type: ignore[attr-defined]
    engine.close()
