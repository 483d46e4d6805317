"""Compiles and times engines of a bundle's fused graph with some of its layers in int8."""

import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.decide.score import score_map
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from ndp_rt.engines.backends.openvino.engine import open_graph
from ndp_rt.engines.engine import Engine
from ndp_rt.files import make_temporary_folder
from ndp_rt.graphs.folding import load_model
from ndp_rt.graphs.quantised import name_layers, quantise
from ndp_rt.kernels.smooth.host import smooth
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE, DecisionRules

BACKEND = "openvino"
FEWEST_ROUNDS, MOST_ROUNDS, ROUNDS_S = 7, 60, 5.0  # of engines that take turns
UNNAMED_TRANSPOSED = "ConvolutionBackpropData_"  # what OpenVINO calls a transposed convolution with a bias
BIASED = "/WithoutBiases"  # ends what it calls a convolution with one


class Trials:
    """Compiles such engines; a context manager, which removes its files."""

    def __init__(self, bundle: Bundle, limits: Mapping[str, float], threads: int | None = None) -> None:
        """Read the graph.

        Args:
            limits: of every layer (`ndp_rt.engines.int8_ranges`).
            threads: of every engine.
        """
        self._model = load_model(bundle.stage_path(bundle.manifest.find_single_stage()))
        self._layers = name_layers(self._model)
        self.rules = bundle.manifest.decision
        self._limits = limits
        self._threads = threads
        self._count = 0
        self._folder = make_temporary_folder("quantise")

    def __enter__(self) -> "Trials":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._folder.cleanup()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Every layer that can be in int8, in the graph's order."""
        return tuple(self._layers)

    def compile(self, precision: str, layers: Collection[str] = ()) -> Engine:
        """Compile an engine with these layers in int8.

        Args:
            precision: "fp32" or "bf16" for no layers, "int8" or "mixed" for some: of the others.
        """
        path = self._write(layers)
        try:
            return open_graph(path, EngineOptions(precision=precision, threads=self._threads))
        finally:  # an engine needs no file, and dozens would fill the disk: 190 MB each for `paper`
            path.unlink()

    def profile(self, precision: str, layers: Collection[str], image: FloatArray, runs: int = 10) -> dict[str, float]:
        """Return the least milliseconds of each layer, and under "" of everything else, for an image [3, h, w]."""
        path = self._write(layers)
        try:
            # Layers that are put back compute as they are, not by Winograd's algorithm.
            options = EngineOptions(precision=precision, threads=self._threads, rewrites=False)
            times = OpenVinoBackend().profile(path, options, {"image": np.ascontiguousarray(image[None])}, runs)
        finally:
            path.unlink()
        return assign_times(times, {name: node.name or node.output[0] for name, node in self._layers.items()})

    def _write(self, layers: Collection[str]) -> Path:
        self._count += 1
        path = Path(self._folder.name) / f"trial-{self._count}.onnx"
        quantised = quantise(self._model, {name: self._limits[name] for name in layers})
        path.write_bytes(quantised.SerializeToString())
        return path


def assign_times(times: Mapping[str, float], nodes: Mapping[str, str]) -> dict[str, float]:
    """Return a profile by layer, the rest under "".

    Args:
        times: milliseconds by OpenVINO's names, in the order in which they run.
        nodes: each layer's node in the graph, in the graph's order.
    """
    owners = {f"{node}{end}": layer for layer, node in nodes.items() for end in ("", BIASED)}
    found = {owners.get(name, ""): 0.0 for name in times} | {"": 0.0}
    unnamed = [name for name in times if name.startswith(UNNAMED_TRANSPOSED)]
    without = [layer for layer in nodes if layer not in found]
    if len(unnamed) == len(without):  # the decoder's, one after another
        owners |= dict(zip(unnamed, without, strict=True))
    for name, value in times.items():
        layer = owners.get(name, "")
        found[layer] = found.get(layer, 0.0) + value
    return found


def run_maps(engine: Engine, rules: DecisionRules, images: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, float]]:
    """Yield the map [h, w], smoothed if the rules say so, and the score of each image [3, h, w]."""
    outputs = _make_outputs(engine)
    raw = outputs[MAP][0, 0]
    scratch = np.empty_like(raw)
    for image in images:
        engine.run({IMAGE: np.ascontiguousarray(image[None])}, outputs)
        found = raw.copy()
        if rules.smooth != "none":
            smooth(raw, found, scratch, size_px=rules.smooth_size_px)
        yield found, float(outputs[OWN_SCORE][0]) if rules.score == "output" else score_map(found, rules)


def _make_outputs(engine: Engine) -> dict[str, FloatArray]:
    return {name: np.empty(spec.with_batch(1), np.float32) for name, spec in engine.outputs.items()}


def compare_times(engines: Sequence[Engine], image: FloatArray) -> list[list[float]]:
    """Return the milliseconds of every round for each engine; they take turns, so that what slows one slows all.

    The number of rounds depends on how long one takes.
    """
    batch = np.ascontiguousarray(image[None])
    outputs = [_make_outputs(engine) for engine in engines]
    times: list[list[float]] = [[] for _ in engines]
    began = time.monotonic()
    for turn in range(MOST_ROUNDS + 2):
        if turn > FEWEST_ROUNDS + 2 and time.monotonic() - began > ROUNDS_S:
            break
        for engine, out, found in zip(engines, outputs, times, strict=True):
            start = time.perf_counter()
            engine.run({"image": batch}, out)
            if turn > 1:  # the first two warm up
                found.append((time.perf_counter() - start) * 1e3)
    return times


def find_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Return the median over the rounds of one engine's time over another's."""
    return statistics.median(one / other for one, other in zip(times, base, strict=True))
