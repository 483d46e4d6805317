"""The bundle's whole network as one graph, as rivals run it on the CPU, and what turns its maps into answers there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.rivals.base import Answer, FloatArray, OpenRival, Rival, enlarge
from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.score import score_map
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.files import make_temporary_folder
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.kernels.smooth import host
from ndp_rt.program.manifest import INT8_PRECISIONS, BundleManifest
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE, DecisionRules

ONNX = {"onnx": "pip install onnx"}  # what a graph is made with


def make_fused_graph(bundle: Bundle, precision: str, batch: int) -> Any:
    """Return an onnx.ModelProto with the input `image` and the output `map`; needs the onnx package.

    A model that gives the score itself has a second one, OWN_SCORE.

    Whether it is the plain graph or a rewritten one is as the bundle was exported.

    Raises:
        InputError: a precision that graphs have not, or a model that is no single graph.
        BundleError, EngineError: the graph cannot be read, or not be written in this precision.
    """
    from ndp_rt.graphs.folding import fix_batch, fold_constants, load_model, remove_unused, rename_tensors
    from ndp_rt.graphs.typed import make_typed

    stage = bundle.manifest.find_single_stage()
    model = load_model(bundle.stage_path(stage))
    fold_constants(model)
    (program,) = [one for one in bundle.manifest.programs["cpu"].values() if one.stages == (stage,)]
    rename_tensors(model.graph, {program.outputs[MAP]: MAP})
    names = (MAP, OWN_SCORE) if bundle.manifest.decision.score == "output" else (MAP,)
    kept = [value for value in model.graph.output if value.name in names]  # no other output is asked for
    kept.sort(key=lambda value: names.index(value.name))
    del model.graph.output[:]
    model.graph.output.extend(kept)
    remove_unused(model)
    # Without a shape the output is not taken for a level's map, which ends in float32: here levels are fused in halves.
    shape = type(kept[0].type.tensor_type.shape)()
    shape.CopyFrom(model.graph.output[0].type.tensor_type.shape)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    typed = make_typed(model, precision)
    typed.graph.output[0].type.tensor_type.shape.CopyFrom(shape)
    fix_batch(typed, batch)
    return typed


def find_own_score(manifest: BundleManifest) -> str | None:
    """Return in words why a rival that scores maps does not fit a bundle; None: it does."""
    if manifest.decision.score == "output":
        return "expected a model whose score is its map's, got one that gives a score of its own."
    return None


class HostSmoother:
    """Smooths and scores maps by a bundle's rules, with OpenCV's filters, which are the fastest on a CPU."""

    def __init__(self, rules: DecisionRules, batch: int, height_px: int, width_px: int) -> None:
        """Allocate for maps [batch, 1, height_px, width_px]."""
        self._rules = rules
        self._maps = np.empty((batch, 1, height_px, width_px), np.float32)
        self._scores = np.empty(batch, np.float32)
        self._scratch = np.empty((height_px, width_px), np.float32)

    def __call__(self, maps: FloatArray, own_scores: FloatArray | None = None) -> Answer:
        """Return smoothed maps and their scores, in memory that the next call overwrites.

        Args:
            maps: as they were allocated for.
            own_scores: the model's, [batch], where it gives them; they are returned.
        """
        if self._rules.smooth == "none":
            np.copyto(self._maps, maps)
        else:
            host.smooth(maps, self._maps, self._scratch, size_px=self._rules.smooth_size_px)
        if own_scores is not None:
            return self._maps, own_scores
        self._scores[:] = [score_map(smoothed[0], self._rules) for smoothed in self._maps]
        return self._maps, self._scores


class HostEngineRival(Rival):
    """The fused graph through a backend's engine, with the inspector's own pre- and postprocessing around it."""

    needs = ONNX

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
        return super().find()

    def find_misfit(self, manifest: BundleManifest) -> str | None:
        if self._needs_plain and manifest.model.rewrites:
            return (
                f"expected the plain graph, got {manifest.name}'s rewritten one. Write it with ndp-rt export RUN -o "
                "PLAIN.ndp --no-rewrite, and give it with --plain PLAIN.ndp."
            )
        return super().find_misfit(manifest)

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        options = EngineOptions(precision=precision, batch=batch, threads=threads)
        engine = build_engine(self._backend.name, make_fused_graph(bundle, "fp32", batch), options)
        contract = bundle.manifest.input
        h, w = contract.height_px, contract.width_px
        inputs = {IMAGE: np.empty((batch, 3, h, w), np.float32)}
        outputs = {name: np.empty(spec.with_batch(batch), np.float32) for name, spec in engine.outputs.items()}
        map_h, map_w = outputs[MAP].shape[2:]
        preprocess, smooth = Preprocessor(contract), HostSmoother(bundle.manifest.decision, batch, map_h, map_w)

        def call(images: Any) -> Answer:
            for image, out in zip(images, inputs[IMAGE], strict=True):
                preprocess(image, out)
            engine.run(inputs, outputs)
            maps, scores = smooth(outputs[MAP], outputs.get(OWN_SCORE))
            return enlarge(maps, (h, w)), scores

        facts = {self._backend.name: self._backend.find().version, "rewrites": list(bundle.manifest.model.rewrites)}
        return OpenRival((batch, h, w, 3), call, facts, engine.close)


def build_engine(backend: str, model: Any, options: EngineOptions) -> Engine:
    """Compile and load an ONNX graph of one batch size as it is, past the cache of engines and our rewrites.

    Args:
        backend: one whose engines run on the host.
        model: an onnx.ModelProto.
        options: its batch is the graph's.

    Raises:
        EngineError: the backend refuses it, or computes in another precision.
        MissingExtraError: the backend is not installed.
    """
    with make_temporary_folder("rival") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        engine = compile_engine(backend, path, Path(folder) / "engine", replace(options, rewrites=False))
        try:
            counts = engine.precision_by_layer_type()
            find_host_backend(backend).check_precision(counts, options.precision)  # reads the artifact too
        except BaseException:
            engine.close()
            raise
        return engine
