"""A backend that another package might bring: graphs run by onnx's own reference evaluator, on the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.arrays import FloatArray
from ndp_rt.engines.backend import BuildOptions, EngineOptions, HostBackend, option
from ndp_rt.engines.engine import Engine
from ndp_rt.errors import EngineError
from ndp_rt.graphs.folding import fix_batch, load_model
from ndp_rt.program.tensors import TensorSpec

MODEL_FILE = "graph.onnx"


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(BuildOptions):
    """See `ndp_rt.engines.backend.BuildOptions`."""

    doc_string: str | None = option("--doc-string", "text that is stored in the graph", metavar="TEXT")
    strict: bool = option("--strict", "check the graph first")

    @property
    def traits(self) -> tuple[str, ...]:
        return ("strict",) if self.strict else ()


class ReferenceEngine(Engine):
    """See `ndp_rt.engines.engine.Engine`."""

    def __init__(self, path: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        self._evaluator: Any = ReferenceEvaluator(str(path))
        self._arrays: Mapping[str, FloatArray] = {}
        super().__init__(
            *(_describe(values) for values in (self._evaluator.proto_.graph.input, self._evaluator.proto_.graph.output))
        )

    @property
    def is_open(self) -> bool:
        return self._evaluator is not None

    def _point(self, arrays: Mapping[str, FloatArray]) -> None:
        self._arrays = arrays

    def _compute(self) -> None:
        results = self._evaluator.run(list(self.outputs), {name: self._arrays[name] for name in self.inputs})
        for name, result in zip(self.outputs, results, strict=True):
            self._arrays[name][...] = result

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        self._check_open()
        return {"Conv": {"f32": sum(node.op_type == "Conv" for node in self._evaluator.proto_.graph.node)}}

    def close(self) -> None:
        self._evaluator = None


class ReferenceBackend(HostBackend):
    """See `ndp_rt.engines.backend.HostBackend`."""

    name = "onnx-reference"
    precisions = ("fp32",)
    build_options = ReferenceOptions
    distributions = ("onnx",)
    remedy = "pip install onnx"

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        import onnx

        self.check_offered(options.precision)
        build = options.build if isinstance(options.build, ReferenceOptions) else ReferenceOptions()
        model = load_model(onnx_path)
        fix_batch(model, options.batch)
        if build.strict:
            onnx.checker.check_model(model)
        model.doc_string = build.doc_string or ""
        (artifact / MODEL_FILE).write_bytes(model.SerializeToString())
        return {"doc_string": model.doc_string}

    def load(self, artifact: Path, options: EngineOptions) -> ReferenceEngine:
        return ReferenceEngine(artifact / MODEL_FILE)

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        if set(counts["Conv"]) != {"f32"}:
            raise EngineError(f"asked for {precision}, got {counts}")


def _describe(values: Any) -> dict[str, TensorSpec]:
    return {
        value.name: TensorSpec(name=value.name, shape=tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
        for value in values
    }


BACKEND = ReferenceBackend()
