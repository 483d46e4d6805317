"""Builds a typed ONNX file for generations of GPUs, of which this machine needs none.

The compiler writes what a GPU's driver finishes at the first run, so the optimisation level and the tiling level change
nothing in it, nor does the system that it is for (tried with 1.7: the same bytes). Turing's file holds finished kernels
and is up to nine times as large, while the others share theirs: so Turing has a file of its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.tensorrt.layers import check_products, compare_products, count_types, sum_products
from ndp_rt.engines.backends.tensorrt.library import describe
from ndp_rt.engines.backends.tensorrt.logger import listen
from ndp_rt.engines.backends.tensorrt.plan_build import BuiltPlan, build_network
from ndp_rt.engines.backends.tensorrt_rtx.options import TURING
from ndp_rt.errors import EngineError

if TYPE_CHECKING:
    import tensorrt_rtx as trt

LAYERS = "Layers:\n"  # begins what the compiler logs of an engine's layers
# One a line, of which the kind and the type of the first input are read.
LAYER = re.compile(r"^Name: .*?, LayerType: (\w+)(?:, Inputs: \[ .*?Datatype: (\w+))?", re.MULTILINE)
Counts = Mapping[str, Mapping[str, int]]


def group_targets(targets: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return which generations share a file."""
    groups = [(TURING,) if TURING in targets else (), tuple(name for name in targets if name != TURING)]
    return [group for group in groups if group]


def name_plan(group: tuple[str, ...]) -> str:
    """Return the name of the file for these generations."""
    return f"model-{'-'.join(group)}.plan"


def find_plan(artifact: Path, target: str) -> Path | None:
    """Return the file of an artifact that is for a generation, or None."""
    return next((path for path in artifact.glob("model-*.plan") if target in path.stem.split("-")[1:]), None)


def build_for(lib: Any, onnx_path: Path, options: EngineOptions, group: tuple[str, ...]) -> tuple[BuiltPlan, Counts]:
    """Build one file, and return with it how many layers of each kind compute in which type.

    Raises:
        EngineError: the compiler refuses the graph, or computes in another precision than was asked for.
    """
    reports: list[str] = []

    def take_line(severity: str, message: str) -> None:
        if message.startswith(LAYERS):
            reports.append(message)

    def configure(config: "trt.IBuilderConfig") -> None:
        config.num_compute_capabilities = len(group)
        for index, name in enumerate(group):
            if not config.set_compute_capability(getattr(lib.ComputeCapability, name.upper()), index):
                raise EngineError(f"{describe(lib)} does not build for {name}. Leave it out of --for.")

    with listen(lib, take_line):
        built = build_network(lib, onnx_path, options, configure)
    counts = count_types([layer for report in reports[-1:] for layer in read_layers(report)])
    check_products(counts, options.precision, lib, f"{describe(lib)}'s engine for {', '.join(group)}")
    compare_products(sum_products(counts), built.products, options.precision, lib)
    return built, counts


def read_layers(report: str) -> list[dict[str, Any]]:
    """Return the layers in what the compiler logs of an engine, with the keys that the engine inspector has."""
    found = LAYER.findall(report)
    return [{"LayerType": kind, "Inputs": [{"Datatype": dtype}] if dtype else []} for kind, dtype in found]
