"""Engines made in this process, past the cache, for graphs that are not a bundle's own."""

from pathlib import Path

from ndp_rt.engines.base import Engine, EngineOptions
from ndp_rt.engines.registry import find_backend


def compile_engine(backend: str, onnx_path: Path, artifact: Path, options: EngineOptions) -> Engine:
    """Compile and load an engine; `artifact` is a folder for its files, made if it is not there.

    Raises:
        MissingExtraError: the backend is not installed.
        EngineError: it refuses the graph.
    """
    one = find_backend(backend)
    artifact.mkdir(exist_ok=True)
    one.compile(onnx_path, artifact, options)
    return one.load(artifact, options)
