"""What a program costs on a GPU: copies, steps and their floors, launches, memory.

This module alone reaches into an inspector's private parts; nobody but a benchmark runs a program's steps one by one.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.kernel_work import GPUS, UNKNOWN_GPU, Work, count_preprocess, count_steps, time_floor_us
from ndp_rt.bench.timed.spec import TimedSpec
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.devices.cuda.driver import translate_errors
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.registry import find_device_backend
from ndp_rt.evaluate.record import Record, order_stages
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess import launch
from ndp_rt.kernels.score.launch import score
from ndp_rt.options import Options
from ndp_rt.program.manifest import InputContract
from ndp_rt.runtime import cuda_profile
from ndp_rt.runtime.cuda import CudaExecutor
from ndp_rt.runtime.cuda_profile import profile_steps, time_work
from ndp_rt.runtime.cuda_program import CudaProgram

FloatArray = NDArray[np.float32]
UPLOAD, PREPROCESS, POSTPROCESS, DOWNLOAD = "upload", "preprocess", "postprocess", "download"
ALL_KERNELS = "all kernels"
COPY_BYTES = 2**28  # past every GPU's cache
SOURCE = (
    "CUDA events around each step by itself, repeated, its inputs perhaps in the GPU's cache: a lower bound; steps of "
    "one op are added up, also where they run side by side"
)


def measure_cost(runner: CudaExecutor, bundle: Bundle, batch: int, gflop_per_s: float | None = None) -> Record:
    """Return what a batch costs on a GPU, in the words of a record's row.

    Measured with uint8 RGB images of the network's own size in pinned memory; what the host does before (copying the
    caller's image there, launching) is not in `stages_ms`.

    Args:
        runner: opened.
        bundle: what it runs.
        batch: one of its sizes.
        gflop_per_s: what a matrix product reaches in the program's precision; None: not known.

    Raises:
        DeviceError, EngineError: the device or an engine fails.
    """
    program, contract = runner.program, bundle.manifest.input
    # An engine whose end an op has taken over is named after what it gives: "segmentation_levels".
    steps_ms = {name.removesuffix("_levels"): value for name, value in profile_steps(program, batch).items()}
    stages_ms = time_transfers(program, contract, batch, runner.kernels)
    for name, value in steps_ms.items():
        stage = POSTPROCESS if name in ("smooth", "score") else name.split()[0]
        stages_ms[stage] = stages_ms.get(stage, 0.0) + value
    ceilings: Record = {**measure_ceilings(program, runner.kernels), "gflop_per_s": gflop_per_s}
    works = count_steps(program.find_steps(batch), bundle.manifest.decision)
    size_px = contract.height_px, contract.width_px
    works[PREPROCESS] = count_preprocess((batch, *size_px, 3), 1, *size_px, program.input_dtype)
    floors_ms = find_floors(program, works, ceilings)
    kernels_ms = add_up({name: steps_ms.get(name, stages_ms[PREPROCESS]) for name in works})
    return {
        "stages_ms": {stage: stages_ms[stage] / batch for stage in order_stages(stages_ms)},
        "stages_source": SOURCE,
        "gpu_memory_bytes": program.held_bytes + program.buffer_bytes,
        "gpu": {
            "engine_bytes": program.held_bytes,
            "buffer_bytes": program.buffer_bytes,
            "captured_batches": list(program.captured_sizes),
            "launch_us": time_launches(program, batch),
            "steps_ms": steps_ms,
            "ceilings": ceilings,
            "over_floor": {op: kernels_ms[op] / floor for op, floor in add_up(floors_ms).items()},
        },
    }


def find_floors(program: CudaProgram, works: Mapping[str, Work], ceilings: Record) -> dict[str, float]:
    """Return each kernel's floor in milliseconds: one launch, and the longer of what it must move and compute.

    The data sheet stands in for rates that were not measured; of a GPU that is not in the table they are left out.
    """
    sheet = next((one for known, one in GPUS.items() if known.lower() in program.device.name.lower()), UNKNOWN_GPU)
    gpu = replace(sheet, memory_gb_per_s=ceilings["gbyte_per_s"])
    if ceilings["gflop_per_s"] is not None:
        tflops = ceilings["gflop_per_s"] / 1e3
        if program.precision == "fp32":
            gpu = replace(gpu, fp32_tflops=tflops)
        elif program.precision != "tf32":  # our kernels do float32 outside the tensor cores
            gpu = replace(gpu, tensor_tflops=tflops)
    return {name: (ceilings["launch_us"] + time_floor_us(gpu, work)) / 1e3 for name, work in works.items()}


def add_up(steps: Mapping[str, float]) -> dict[str, float]:
    """Return values of steps by op, and those of all: single ones of small batches lie below a launch."""
    totals: dict[str, float] = {}
    for name, value in steps.items():
        for op in (name.split()[0], ALL_KERNELS):
            totals[op] = totals.get(op, 0.0) + value
    return totals


def measure_ceilings(program: CudaProgram, kernels: KernelSet) -> dict[str, float]:
    """Return the microseconds of a kernel with next to nothing to do, and what a copy reads and writes a second."""
    device, stream = program.device, program.stream
    memory = DeviceMemory(device, 2 * COPY_BYTES, "copies of a measurement")
    try:
        value, out = memory.view((1, 1), "float32"), memory.view((1,), "float32", COPY_BYTES)
        middle = memory.pointer + COPY_BYTES
        with translate_errors("timing a launch and a copy"):
            launch_ms = time_work(program, lambda: score(kernels, value, out, stream=stream))
            copy_ms = time_work(
                program, lambda: device.copy("DeviceToDevice", middle, memory.pointer, COPY_BYTES, stream)
            )
            stream.synchronize()
    finally:
        memory.close()
    return {"launch_us": launch_ms * 1e3, "gbyte_per_s": 2e-6 * COPY_BYTES / copy_ms}


def time_launches(program: CudaProgram, size: int) -> float:
    """Return the host's microseconds to put one run on the stream."""
    times = []
    for _ in range(cuda_profile.MEDIAN_COUNT):
        start = time.perf_counter()
        program.enqueue(size)
        times.append((time.perf_counter() - start) * 1e6)
        program.stream.synchronize()  # outside the clock: a full queue would make the next launch wait
    return float(np.median(times))


def time_transfers(program: CudaProgram, contract: InputContract, size: int, kernels: KernelSet) -> dict[str, float]:
    """Return the milliseconds of a batch's upload, preprocessing and download, each by itself."""
    device, stream = program.device, program.stream
    shape = (contract.height_px, contract.width_px, 3)
    image_bytes = size * prod(shape)
    results = [program.get_tensor(size, name) for name in ("smoothed", "score")]
    with contextlib.ExitStack() as stack:
        images = DeviceMemory(device, image_bytes, "images of a measurement")
        stack.callback(images.close)
        pinned = [PinnedMemory(device, count) for count in (image_bytes, *(tensor.nbytes for tensor in results))]
        for memory in pinned:
            stack.callback(memory.close)
        stack.callback(stream.synchronize)
        sources = [images.view(shape, "uint8", index * prod(shape)) for index in range(size)]
        target = program.get_tensor(size, "image")
        dtype = program.input_dtype

        def upload() -> None:
            device.copy("HostToDevice", images.pointer, pinned[0].pointer, image_bytes, stream)

        def preprocess() -> None:
            for index, source in enumerate(sources):
                launch.preprocess(kernels, source, target[index], contract, channels="rgb", dtype=dtype, stream=stream)

        def download() -> None:
            for memory, tensor in zip(pinned[1:], results, strict=True):
                device.copy("DeviceToHost", memory.pointer, tensor.data.ptr, tensor.nbytes, stream)

        works = {UPLOAD: upload, PREPROCESS: preprocess, DOWNLOAD: download}
        with translate_errors("timing copies to and from the GPU"):
            return {name: time_work(program, work) for name, work in works.items()}


def trace_tensors(runner: CudaExecutor, bundle: Bundle, batch: int) -> Mapping[str, FloatArray]:
    """Return every tensor between the steps for the first golden image."""
    return runner.program.trace(np.repeat(bundle.golden().image[:1], batch, axis=0))


def count_free_bytes(runner: CudaExecutor) -> int:
    """Return how much of the GPU's memory nobody holds."""
    return int(runner.program.device.find_free_bytes()[0])


def build_from_stages(spec: TimedSpec) -> None:
    """Build engines from typed stages that `ndp-rt export-stages` wrote where the onnx package is."""
    options = Options(
        bundle=spec.bundle,
        device=spec.device,
        backend=spec.backend,
        precision=spec.precision,
        plan=spec.plan,
        batches=spec.batches,
    )
    build = find_device_backend(spec.backend or "").build_options(onnx_stages=spec.onnx_stages)
    build_engine(open_bundle(spec.bundle), replace(options.engine_spec, build=build), progress=print)
