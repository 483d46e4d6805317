"""What is measured beside the turns, in a process in which nothing is open: ceilings, the work of a graph, profiles.

What needs the onnx package is imported where it is used: `make gpu-check` does without.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ndp_rt.bench.timed.spec import OTHER_NETWORK, TimedSpec
from ndp_rt.bundle.open import open_bundle
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.registry import find_backend, find_device_backend, find_host_backend, list_backends, parse_device
from ndp_rt.files import make_temporary_folder
from ndp_rt.program.manifest import INT8_PRECISIONS

BACKENDS = {"tensorrt-fused": "tensorrt", "openvino-plain": "openvino"}  # of rivals that are not called so
PYTORCH = ("pytorch", "torch-compile", "torch-compile-autotuned")


def find_ceiling_backend(spec: TimedSpec) -> str | None:
    """Return the backend whose matrix product is one's ceiling; None where none is known.

    PyTorch is no backend on a CPU: it is held against the first one there, the most that the machine is known to give.
    """
    if spec.backend is not None:
        return spec.backend
    word = spec.models_on if spec.kind == OTHER_NETWORK and not spec.word.endswith(".onnx") else spec.word
    if word in PYTORCH:
        return next(iter(list_backends("cpu"))) if spec.device == "cpu" else "torch-cuda"
    return word if word in list_backends("cpu") else BACKENDS.get(word)


def measure_ceiling(name: str, precision: str, threads: int | None, device: str) -> dict[str, Any]:
    """Return what a matrix product reaches through the backend of a name: gflop_per_s, size, note."""
    from ndp_rt.bench.ceiling import measure_device_ceiling, measure_host_ceiling

    if name in list_backends("cpu"):
        return asdict(measure_host_ceiling(find_host_backend(name), precision, threads))
    one = CudaDevice(parse_device(device)[1])
    one.activate()
    return asdict(measure_device_ceiling(find_device_backend(name), one, precision))


def measure_copy(threads: int) -> float:
    """Return what copying reaches, in 10^9 bytes read and written a second."""
    from ndp_rt.bench.ceiling import measure_copy_gbyte_per_s

    return measure_copy_gbyte_per_s(threads)


def count_work(bundle: str, precision: str, batch: int) -> dict[str, float]:
    """Return an image's gflop and megabytes in the graphs of a bundle's first program; what ops do is not counted."""
    from ndp_rt.bench.flops import count_file

    opened = open_bundle(bundle)
    _, program = opened.manifest.find_program("cpu")
    found = [count_file(opened.stage_path(name), batch=batch, precision=precision) for name in program.stages]
    return {
        "gflop": sum(work.gflop_per_image for work in found),
        "megabytes": sum(work.megabytes_per_image for work in found),
    }


def split_host_stages(spec: TimedSpec, batch: int, parts_ms: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """Return how the time of an inspector of ours on a CPU splits over its stages, and how that was measured."""
    from ndp_rt.bench.stage_split import name_steps, split_stages
    from ndp_rt.graphs.quantised import prepare_graph

    bundle = open_bundle(spec.bundle)
    _, program = bundle.manifest.find_program("cpu", spec.plan)
    if len(program.steps) > 1:
        return name_steps(parts_ms)
    backend: Any = find_backend(spec.backend or "")
    options = EngineOptions(precision=spec.precision, batch=batch, threads=spec.threads)
    graph, profiler = bundle.stage_path(program.stages[0]), backend if hasattr(backend, "profile") else None
    family = bundle.manifest.model.family
    if spec.precision not in INT8_PRECISIONS:
        return split_stages(parts_ms, graph, family, profiler, options)
    with make_temporary_folder("split") as folder:
        quantised = prepare_graph(bundle, graph, spec.precision, Path(folder))
        return split_stages(parts_ms, graph, family, profiler, options, quantised)
