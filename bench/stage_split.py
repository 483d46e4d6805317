"""How an image's time splits over the parts of NDP-Net: measured by the plan itself, or by a profile of its engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.graph_stages import (
    ATTENTION,
    DECODER,
    ENCODER,
    ENGINE,
    OTHER,
    SEGMENTATION,
    name_stages,
    order_stages,
    sum_by_stage,
)
from ndp_rt.engines.backend import EngineOptions, Profiler
from ndp_rt.engines.engine import FloatArray
from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import fix_batch, load_model

# The record's key of each stage that a staged plan on the host tells apart (`ndp_rt.runtime.staged`).
PLAN_STAGES = {
    "encoder": ENCODER,
    "rbfrm": ATTENTION,
    "decoder": DECODER,
    "head": SEGMENTATION,
    "segmentation": SEGMENTATION,
}
AROUND = ("preprocess", "postprocess")  # what the inspector itself tells apart, beside its engine
PROFILE_MS = 3000.0  # about what all runs of a profile together take
MIN_RUNS, MAX_RUNS = 3, 15  # the least of so many shows each layer nearly undisturbed
MAX_OTHER_SHARE = 0.05  # of a profile, in layers of no stage; with more the split would be a guess

Split = tuple[dict[str, float], str]


def split_stages(
    parts_ms: Mapping[str, float],
    onnx_path: Path,
    profiler: Profiler | None,
    options: EngineOptions,
    compiled_path: Path | None = None,
) -> Split:
    """Return an image's milliseconds by the keys of a record's `stages_ms`, and a sentence: how they were measured.

    A plan of several engines has measured its own stages. One engine is compiled once more with the backend's clocks
    in it, and the shares that they show are scaled to the time that the engine takes without them.

    Args:
        parts_ms: an image's, as `Result.timings_ms` names them; `engine` is needed.
        onnx_path: the graph of the one engine, such as the bundle's `stage_path("fused")`.
        profiler: the backend that runs it; None: one that cannot tell layers apart.
        options: that its engine was compiled with.
        compiled_path: what is profiled instead, a graph made of that one with its nodes' names; None: it itself.

    Raises:
        InputError: `engine` is missing.
        BundleError, EngineError, MissingExtraError: the graph cannot be read or profiled.
    """
    if ENGINE not in parts_ms:
        raise InputError(f"the parts are {', '.join(parts_ms) or 'none'}; 'engine' is needed to split it.")
    around = {name: parts_ms[name] for name in AROUND if name in parts_ms}
    if any(name in parts_ms for name in PLAN_STAGES):
        inside, source = sum_plan_stages(parts_ms), "the plan's own clock around each of its engines and RBFRM"
    elif profiler is None:
        inside, source = {ENGINE: parts_ms[ENGINE]}, "not split: the backend does not tell layers apart"
    else:
        inside, source = profile_engine(parts_ms[ENGINE], onnx_path, profiler, options, compiled_path)
    return order_stages({**around, **inside}), source


def sum_plan_stages(parts_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the record's stages from those that a staged plan on the host measures."""
    sums: dict[str, float] = {}
    for name, stage in PLAN_STAGES.items():
        sums[stage] = sums.get(stage, 0.0) + parts_ms.get(name, 0.0)
    return sums


def profile_engine(
    engine_ms: float,
    onnx_path: Path,
    profiler: Profiler,
    options: EngineOptions,
    compiled_path: Path | None = None,
) -> Split:
    """Return `engine_ms` split by the layers' shares in a profile of the graph, and how that was done."""
    model = load_model(onnx_path)
    fix_batch(model, options.batch)
    run_count = count_runs(engine_ms * options.batch)
    layers_ms = profiler.profile(compiled_path or onnx_path, options, make_inputs(model), run_count)
    sums = sum_by_stage(layers_ms, name_stages(model))
    total_ms = sum(sums.values())
    other_share = sums.pop(OTHER, 0.0) / total_ms
    if other_share > MAX_OTHER_SHARE:
        return {ENGINE: engine_ms}, f"not split: {other_share:.0%} of a profile is in layers of no known stage"
    known_ms = sum(sums.values())
    source = f"shares of the layers in a profile by the backend (least of {run_count} runs), of the engine's time"
    if other_share > 0:
        source += f"; {other_share:.1%} in layers of no known stage are shared out"
    return {stage: engine_ms * value / known_ms for stage, value in sums.items()}, source


def count_runs(run_ms: float) -> int:
    """Return how often an engine is run for a profile, by what one run takes."""
    return MAX_RUNS if run_ms <= 0 else max(MIN_RUNS, min(MAX_RUNS, int(PROFILE_MS / run_ms)))


def make_inputs(model: Any) -> dict[str, FloatArray]:
    """Return random images, float32 in [0, 1), for every input of a graph whose batch is fixed."""
    rng = np.random.default_rng(0)
    inputs: dict[str, FloatArray] = {}
    for value in model.graph.input:
        shape = [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        inputs[value.name] = rng.random(shape, np.float32)
    return inputs
