"""NDP-Net as one engine: the reference is part of the graph, so a new one means a new engine."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.open import Bundle
from ndp_rt.bundle.reference import replace_reference
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.engine import Call, Engine, OverlappingEngine
from ndp_rt.errors import StorageError
from ndp_rt.program.manifest import INT8_PRECISIONS
from ndp_rt.runtime.plan import Features, hash_features, missing_size

FloatArray = NDArray[np.float32]

STAGES = ("fused",)


class FusedPlan:
    """See `ndp_rt.runtime.plan.OverlappingPlan`; `make_reference` returns `RebuiltEngines`."""

    stage_names: tuple[str, ...] = ()

    def __init__(
        self, bundle: Bundle, engines: Mapping[int, Engine], backend: str, options: EngineOptions, engine_hash: str
    ) -> None:
        """Take the engines.

        Args:
            bundle: for the graph and the encoder, when the reference changes.
            engines: by batch size.
            backend: that compiled them.
            options: that they were compiled with, batch size aside.
            engine_hash: names the engines.
        """
        self._bundle = bundle
        self._engines = {size: engines[size] for size in sorted(engines)}
        self._backend = backend
        self._options = options
        self._engine_hash = engine_hash
        self.stage_timings_ms: dict[str, float] = {}

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(self._engines)

    @property
    def engine_hash(self) -> str:
        return self._engine_hash

    def run(self, batch: FloatArray, map_out: FloatArray, reconstruction_out: FloatArray) -> None:
        engine = self._find_engine(batch)
        engine.run({"image": batch}, {"map": map_out, "reconstruction": reconstruction_out})

    @property
    def stream_count(self) -> int:
        engines = self._engines.values()
        return min((one.stream_count if isinstance(one, OverlappingEngine) else 0 for one in engines), default=0)

    def bind(self, batch: FloatArray, map_out: FloatArray, reconstruction_out: FloatArray, *, is_alone: bool) -> Call:
        engine = self._find_engine(batch)
        assert isinstance(engine, OverlappingEngine)  # else stream_count is 0
        outputs = {"map": map_out, "reconstruction": reconstruction_out}
        return engine.bind({"image": batch}, outputs, is_alone=is_alone)

    def compute_features(self, image: FloatArray) -> dict[str, FloatArray]:
        # The fused engine keeps its features to itself, so the encoder is compiled for this one image.
        options = EngineOptions(precision="fp32", batch=1, threads=self._options.threads)
        with tempfile.TemporaryDirectory(prefix="ndp-rt-encoder-") as folder:
            encoder = compile_engine(self._backend, self._bundle.stage_path("encoder"), Path(folder), options)
            try:
                outputs = {name: np.empty(spec.with_batch(1), np.float32) for name, spec in encoder.outputs.items()}
                encoder.run({"image": np.ascontiguousarray(image)}, outputs)
            finally:
                encoder.close()
        return {name: outputs[name] for name in ("f3", "f4", "f5")}

    def make_reference(self, features: Features) -> "RebuiltEngines":
        changed = replace_reference(self._bundle.stage_path("fused").read_bytes(), features)
        engines = {}
        with tempfile.TemporaryDirectory(prefix="ndp-rt-reference-") as name:
            folder = Path(name)
            graph = put_beside_weights({self._bundle.stage_path("fused").name: changed}, self._bundle, folder)
            if self._options.precision in INT8_PRECISIONS:
                # Imported here: it needs the onnx package, which a machine with nothing but a GPU's may lack.
                from ndp_rt.graphs.quantised import prepare_graph

                graph = prepare_graph(self._bundle, graph, self._options.precision, folder)
            for size in self.batch_sizes:
                options = dataclasses.replace(self._options, batch=size)
                engines[size] = compile_engine(self._backend, graph, folder / f"engine-{size}", options)
        return RebuiltEngines(engines, hash_features(features))

    def use_reference(self, prepared: Any) -> None:
        rebuilt: RebuiltEngines = prepared
        old, self._engines = self._engines, dict(rebuilt.engines)
        self._engine_hash = f"{self._engine_hash.partition('+')[0]}+{rebuilt.digest}"
        for engine in old.values():
            engine.close()

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines = {}

    def _find_engine(self, batch: FloatArray) -> Engine:
        engine = self._engines.get(len(batch))
        if engine is None:
            raise missing_size(len(batch), self.batch_sizes)
        return engine


class RebuiltEngines:
    """Fused engines with another reference."""

    def __init__(self, engines: Mapping[int, Engine], digest: str) -> None:
        self.engines = engines
        self.digest = digest


def put_beside_weights(changed: Mapping[str, bytes], bundle: Bundle, folder: Path) -> Path:
    """Put the fused graph into `folder` with the files that it keeps weights in; return the graph's path.

    Args:
        changed: the graph, and other files that differ from the bundle's, by name.
        bundle: has the files that do not.
        folder: exists.

    Raises:
        StorageError: no space.
    """
    file = bundle.stage_path("fused").name
    others = set(list_external_locations(changed[file])) - set(changed)
    try:
        for name, content in changed.items():
            (folder / name).write_bytes(content)
        for name in others:
            link_or_copy(bundle.path / name, folder / name)
    except OSError as error:
        raise StorageError(
            f"{folder}: the changed graph cannot be written ({error.strerror}). Free some space, or set TMPDIR."
        ) from error
    return folder / file


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or links are not allowed
        shutil.copyfile(source, target)
