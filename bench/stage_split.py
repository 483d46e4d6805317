"""How an image's time splits over the parts of a network: measured by the plan itself, or by a profile of its engine.

A program of several steps is told apart by them; one graph by what the model's family says of its nodes, and where it
says nothing by the modules that their names begin with.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.engines.backend import EngineOptions, Profiler
from ndp_rt.engines.engine import FloatArray
from ndp_rt.errors import InputError
from ndp_rt.evaluate.record import order_stages
from ndp_rt.export.models.registry import find_family

OTHER = "other"
ENGINE = "engine"  # what is not split further
# Names as PyTorch's exporter makes them: /module/module/Operator; a module's second call has a number.
MODULE = re.compile(r"/([^/]+?)(?:_\d+)?/")
# A backend goes on after a node's or a tensor's name with one of these: "/Conv/WithoutBiases", "Relu_output_0_nchwc".
BOUNDARIES = "/_"
AROUND = ("preprocess", "postprocess")  # what the inspector itself tells apart, beside its engine
TOTAL = "total"
PROFILE_MS = 3000.0  # about what all runs of a profile together take
MIN_RUNS, MAX_RUNS = 3, 15  # the least of so many shows each layer nearly undisturbed
MAX_OTHER_SHARE = 0.05  # of a profile, in layers of no stage; with more the split would be a guess

Split = tuple[dict[str, float], str]


def split_stages(
    parts_ms: Mapping[str, float],
    onnx_path: Path,
    family: str,
    profiler: Profiler | None,
    options: EngineOptions,
    compiled_path: Path | None = None,
) -> Split:
    """Return an image's milliseconds by the keys of a record's `stages_ms`, and a sentence: how they were measured.

    The engine is compiled once more with the backend's clocks in it, and the shares that they show are scaled to the
    time that it takes without them.

    Args:
        parts_ms: an image's, as `Result.timings_ms` names them; `engine` is needed.
        onnx_path: the graph of the one engine.
        family: of the model.
        profiler: the backend that runs it; None: one that cannot tell layers apart.
        options: that its engine was compiled with.
        compiled_path: what is profiled instead, a graph made of that one with its nodes' names; None: it itself.

    Raises:
        InputError: `engine` is missing.
        BundleError, EngineError, MissingExtraError: the graph cannot be read or profiled.
    """
    if ENGINE not in parts_ms:
        raise InputError(f"the parts are {', '.join(parts_ms) or 'none'}; 'engine' is needed to split it.")
    stages_ms = {name: parts_ms[name] for name in order_stages(parts_ms) if name in (*AROUND, ENGINE)}
    if profiler is None:
        return stages_ms, "not split: the backend does not tell layers apart"
    from ndp_rt.graphs.folding import fix_batch, load_model  # `make gpu-check` does without onnx

    engine_ms, model = stages_ms.pop(ENGINE), load_model(onnx_path)
    fix_batch(model, options.batch)
    run_count = count_runs(engine_ms * options.batch)
    layers_ms = profiler.profile(compiled_path or onnx_path, options, make_inputs(model), run_count)
    sums = sum_by_stage(layers_ms, name_stages(model, family))
    other_share = sums.pop(OTHER, 0.0) / sum(layers_ms.values())
    if other_share > MAX_OTHER_SHARE:
        source = f"not split: {other_share:.0%} of a profile is in layers of no known stage"
        sums = {ENGINE: engine_ms}
    else:
        source = f"shares of the layers in a profile by the backend (least of {run_count} runs), of the engine's time"
        source += f"; {other_share:.1%} in layers of no known stage are shared out" if other_share > 0 else ""
    stages_ms |= {stage: engine_ms * value / sum(sums.values()) for stage, value in sums.items()}
    return {name: stages_ms[name] for name in order_stages(stages_ms)}, source


def name_steps(parts_ms: Mapping[str, float]) -> Split:
    """Return what `split_stages` does of a plan of several steps, which has measured them itself.

    Args:
        parts_ms: an image's, as `Result.timings_ms` names them.
    """
    stages_ms = {name: parts_ms[name] for name in order_stages(parts_ms) if name not in (ENGINE, TOTAL)}
    return stages_ms, "the plan's own clock around each of its engines and ops"


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


def find_node_stages(model: Any, family: str) -> dict[int, str]:
    """Return the stage of each node, by its number in the graph.

    Without the family's word a node's stage is the module that its name begins with, or that of the node before it, and
    OTHER before the first module.

    Args:
        model: an onnx.ModelProto of the whole network, its nodes in topological order.
        family: of the model, installed or not.
    """
    with contextlib.suppress(InputError):
        known = find_family(family).find_node_stages(model)
        if known is not None:
            return {number: known.get(number, OTHER) for number in range(len(model.graph.node))}
    stages: dict[int, str] = {}
    for number, node in enumerate(model.graph.node):
        match = MODULE.match(node.name)
        stages[number] = match[1] if match else stages.get(number - 1, OTHER)
    return stages


def name_stages(model: Any, family: str) -> dict[str, str]:
    """Return the stage of every name that a backend may derive a layer's from: nodes, their outputs, the inputs."""
    stages = find_node_stages(model, family)
    named: dict[str, str] = {}
    for number, node in enumerate(model.graph.node):
        for name in (node.name, *node.output):
            if name:
                named[name] = stages[number]
        for name in node.input:  # an input of the graph belongs to its first reader
            if name:
                named.setdefault(name, stages[number])
    return named


def find_layer_stages(layers: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
    """Return the stage of every layer, by its name.

    A layer has the stage of the longest known name that its own begins with. One that begins with none (converted
    layouts, operators that a backend made up) has that of its neighbours where both agree, and is OTHER elsewhere.

    Args:
        layers: names in the order in which they run.
        named: from `name_stages`.
    """
    names = list(layers)
    found = [_find_longest(name, named) for name in names]
    stages = {}
    for index, name in enumerate(names):
        before = next((stage for stage in reversed(found[:index]) if stage is not None), None)
        after = next((stage for stage in found[index + 1 :] if stage is not None), None)
        around = {stage for stage in (before, after) if stage is not None}
        stages[name] = found[index] or (around.pop() if len(around) == 1 else OTHER)
    return stages


def sum_by_stage(layers_ms: Mapping[str, float], named: Mapping[str, str]) -> dict[str, float]:
    """Return the milliseconds of each stage that a layer has, in the order in which the stages end in the graph.

    Args:
        layers_ms: by layer, in the order in which they run.
        named: from `name_stages`.

    Raises:
        InputError: there is no layer, or none took any time.
    """
    if not any(value > 0 for value in layers_ms.values()):
        raise InputError(f"{len(layers_ms)} layers took 0 ms together. Profile more runs.")
    stages = find_layer_stages(layers_ms, named)
    sums: dict[str, float] = {}
    for name, value in layers_ms.items():
        sums[stages[name]] = sums.get(stages[name], 0.0) + value
    ends = {stage: number for number, stage in enumerate(named.values())}
    return {stage: sums[stage] for stage in sorted(sums, key=lambda stage: ends.get(stage, -1))}


def _find_longest(layer: str, named: Mapping[str, str]) -> str | None:
    for end in range(len(layer), 0, -1):
        if (end == len(layer) or layer[end] in BOUNDARIES) and layer[:end] in named:
            return named[layer[:end]]
    return None
