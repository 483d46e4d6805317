"""How an image's time splits over upload, preprocessing, the plan's steps and download on a GPU, by CUDA events."""

import contextlib
from collections.abc import Callable
from math import prod

import numpy as np

from ndp_rt.bench.gpu_timing import STEP_REPEATS, time_steps
from ndp_rt.bench.graph_stages import ATTENTION, DECODER, ENCODER, SEGMENTATION
from ndp_rt.bench.stage_split import ENGINE, Split, order_stages
from ndp_rt.devices.cuda.driver import translate_errors
from ndp_rt.devices.cuda.graph import Capture
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess import launch
from ndp_rt.program.manifest import InputContract
from ndp_rt.runtime.cuda_program import CudaProgram

UPLOAD, PREPROCESS, POSTPROCESS, DOWNLOAD = "upload", "preprocess", "postprocess", "download"
# The steps of `ndp_rt.runtime.cuda_steps`. One engine for all that follows RBFRM, or for everything, is not split.
STEP_STAGES = {
    "encoder": ENCODER,
    "decoder": DECODER,
    "head": SEGMENTATION,
    "segmentation": SEGMENTATION,
    "tail": ENGINE,
    "fused": ENGINE,
    "smooth": POSTPROCESS,
    "score": POSTPROCESS,
}
RBFRM = "rbfrm "
SOURCE = (
    "CUDA events around each step by itself, repeated, its inputs perhaps in the GPU's cache: a lower bound; RBFRM's "
    "steps are added up, although they run side by side"
)
TAIL_SOURCE = "; engine: decoder and segmentation, which are one engine here"
FUSED_SOURCE = "; engine: the whole network, which is one engine here"


def split_gpu_stages(
    plan: CudaProgram, contract: InputContract, size: int, capture: Capture, kernels: KernelSet, count: int = 50
) -> Split:
    """Return an image's milliseconds by the keys of a record's `stages_ms`, and a sentence: how they were measured.

    Measured with uint8 RGB images of the network's own size in pinned memory; what the host does before (copying the
    caller's image there, launching) is not in it.

    Args:
        plan: opened; nobody else uses it meanwhile. Its `image` is overwritten.
        contract: the bundle's.
        size: images of a batch, one of the plan's.
        capture: as the plan's own.
        kernels: of ours, for the preprocessing.
        count: times of which each median is taken.

    Raises:
        DeviceError, EngineError: the device or an engine fails.
    """
    stages_ms = time_transfers(plan, contract, size, kernels, count)
    steps_ms = time_steps(plan, size, capture, count)
    for name, value in steps_ms.items():
        stage = ATTENTION if name.startswith(RBFRM) else STEP_STAGES.get(name, ENGINE)
        stages_ms[stage] = stages_ms.get(stage, 0.0) + value
    source = SOURCE + (TAIL_SOURCE if "tail" in steps_ms else FUSED_SOURCE if "fused" in steps_ms else "")
    return order_stages({stage: value / size for stage, value in stages_ms.items()}), source


def time_transfers(
    plan: CudaProgram, contract: InputContract, size: int, kernels: KernelSet, count: int
) -> dict[str, float]:
    """Return the milliseconds of a batch's upload, preprocessing and download, each by itself."""
    device, stream = plan.device, plan.stream
    runtime = device.cupy.cuda.runtime
    shape = (contract.height_px, contract.width_px, 3)
    image_bytes = size * prod(shape)
    results = [plan.get_tensor(size, name) for name in ("smoothed", "score")]
    result_bytes = sum(tensor.nbytes for tensor in results)
    with contextlib.ExitStack() as stack:
        images = DeviceMemory(device, image_bytes, "images of a measurement")
        stack.callback(images.close)
        images_host, results_host = (PinnedMemory(device, size_bytes) for size_bytes in (image_bytes, result_bytes))
        stack.callback(images_host.close)
        stack.callback(results_host.close)
        stack.callback(stream.synchronize)
        sources = [images.view(shape, "uint8", index * prod(shape)) for index in range(size)]
        target = plan.get_tensor(size, "image")

        def upload() -> None:
            runtime.memcpyAsync(
                images.pointer, images_host.pointer, image_bytes, runtime.memcpyHostToDevice, stream.ptr
            )

        def preprocess() -> None:
            for index, source in enumerate(sources):
                launch.preprocess(
                    kernels, source, target[index], contract, channels="rgb", dtype=plan.input_dtype, stream=stream
                )

        def download() -> None:
            offset = 0
            for tensor in results:
                runtime.memcpyAsync(
                    results_host.pointer + offset,
                    tensor.data.ptr,
                    tensor.nbytes,
                    runtime.memcpyDeviceToHost,
                    stream.ptr,
                )
                offset += tensor.nbytes

        works = {UPLOAD: upload, PREPROCESS: preprocess, DOWNLOAD: download}
        with translate_errors("timing copies to and from the GPU"):
            return {name: time_work(plan, work, count) for name, work in works.items()}


def time_work(plan: CudaProgram, work: Callable[[], None], count: int) -> float:
    """Return the milliseconds of what `work` puts on the plan's stream, the median of `count`, after a warm-up."""
    cuda = plan.device.cupy.cuda
    begin, end, found = cuda.Event(), cuda.Event(), []
    work()
    for _ in range(count):
        begin.record(plan.stream)
        for _ in range(STEP_REPEATS):
            work()
        end.record(plan.stream)
        end.synchronize()
        found.append(cuda.get_elapsed_time(begin, end) / STEP_REPEATS)
    return float(np.median(found))
