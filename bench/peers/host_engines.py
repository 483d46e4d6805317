"""The fused graph on the CPU through a backend's engine, with the inspector's own pre- and postprocessing around it."""

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.peers.base import Answer, BundlePeer, Image, check_images
from ndp_rt.bench.peers.fused_graph import make_fused_graph
from ndp_rt.bench.peers.host_smoothing import HostSmoother
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.errors import ClosedError, InputError
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.program.manifest import INT8_PRECISIONS, InputContract


class HostEnginePeer(BundlePeer):
    """See `ndp_rt.bench.peers.base.Peer`."""

    def __init__(self, name: str, backend: str, *, needs_plain: bool = False) -> None:
        """Choose what runs.

        Args:
            name: in the record.
            backend: one whose engines run on the host.
            needs_plain: refuse a graph with rewrites.
        """
        self.name = name
        # Which layers are in int8 is a choice made for our own graph; a rival runs the graph as it is.
        self.precisions = tuple(one for one in find_host_backend(backend).precisions if one not in INT8_PRECISIONS)
        self._backend = find_host_backend(backend)
        self._needs_plain = needs_plain

    def find(self) -> str | None:
        status = self._backend.find()
        if status.version is None:
            return f"{self._backend.name} is not installed: {status.remedy}."
        if importlib.util.find_spec("onnx") is None:
            return "onnx is not installed: pip install onnx."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> "HostRunner":
        if self._needs_plain and bundle.manifest.model.rewrites:
            raise InputError(
                f"{self.name}: the bundle holds the rewritten graph; the plain one is taken. Write it with ndp-rt "
                "export RUN -o PLAIN.ndp --no-rewrite, and give it with --plain PLAIN.ndp."
            )
        options = EngineOptions(precision=precision, batch=batch, threads=threads)
        engine = build_engine(self._backend.name, make_fused_graph(bundle, "fp32", batch), options)
        facts = {self._backend.name: self._backend.find().version, "rewrites": list(bundle.manifest.model.rewrites)}
        return HostRunner(engine, bundle.manifest.input, batch, facts)


def build_engine(backend: str, model: Any, options: EngineOptions) -> Engine:
    """Compile and load an ONNX graph of one batch size in float32, as `compile_file` does.

    Args:
        backend: one whose engines run on the host.
        model: an onnx.ModelProto.
        options: its batch is the graph's.
    """
    with tempfile.TemporaryDirectory(prefix="ndp-rt-rival-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        return compile_file(backend, path, options)


def compile_file(backend: str, path: Path, options: EngineOptions) -> Engine:
    """Compile and load an ONNX file as it is, past the cache of engines and our rewrites, and check its precision.

    Raises:
        EngineError: the backend refuses it, or computes in another precision.
        MissingExtraError: the backend is not installed.
    """
    one, options = find_host_backend(backend), replace(options, rewrites=False)
    with tempfile.TemporaryDirectory(prefix="ndp-rt-rival-") as folder:
        artifact = Path(folder)
        one.compile(path, artifact, options)
        engine = one.load(artifact, options)
        try:
            one.check_precision(engine.precision_by_layer_type(), options.precision)  # reads the artifact too
        except BaseException:
            engine.close()
            raise
        return engine


class HostRunner:
    """See `ndp_rt.bench.peers.base.PeerRunner`."""

    def __init__(self, engine: Engine, contract: InputContract, batch: int, facts: Mapping[str, Any]) -> None:
        """Take over an engine from `image` to `map`."""
        h, w = contract.height_px, contract.width_px
        self.facts = dict(facts)
        self._engine: Engine | None = engine
        self._preprocess = Preprocessor(contract)
        self._shape = (batch, h, w, 3)
        self._inputs = {"image": np.empty((batch, 3, h, w), np.float32)}
        self._outputs = {"map": np.empty((batch, 1, h, w), np.float32)}
        self._smooth = HostSmoother(batch, h, w)

    def run(self, images: Sequence[Image]) -> Answer:
        if self._engine is None:
            raise ClosedError("the rival is closed. Open another.")
        check_images(images, self._shape)
        for image, out in zip(images, self._inputs["image"], strict=True):
            self._preprocess(image, out)
        self._engine.run(self._inputs, self._outputs)
        return self._smooth(self._outputs["map"])

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
