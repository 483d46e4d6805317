"""The least that each kernel must move and compute, and the time below which no GPU does it: its floor.

It counts every input read once and every output written once, and the arithmetic that the definition cannot do
without; what a cache happens to hold already is not in it. The peaks here are data sheets'; `ndp_rt.bench.gpu_cost`
takes what the GPU at hand reaches, and adds launches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, prod

from ndp_rt.kernels.op import CountedOp
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.program import DecisionRules
from ndp_rt.program.tensors import DTYPE_BYTES
from ndp_rt.runtime.cuda_steps import SCORE, SMOOTHED, CudaSteps


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU's peak figures, as the vendor states them: dense (no sparsity), boost clock."""

    tensor_tflops: float  # float16 and bfloat16, sums in float32
    fp32_tflops: float  # outside the tensor cores; a multiply-add counts as 2
    memory_gb_per_s: float
    source: str


# Where a data sheet gives tensor figures with sparsity only, half of them.
GPUS: Mapping[str, Gpu] = {
    "H200": Gpu(tensor_tflops=989.5, fp32_tflops=67, memory_gb_per_s=4800, source="NVIDIA H200 data sheet, SXM"),
    "H100": Gpu(tensor_tflops=989.5, fp32_tflops=67, memory_gb_per_s=3350, source="NVIDIA H100 data sheet, SXM"),
    "A100": Gpu(tensor_tflops=312, fp32_tflops=19.5, memory_gb_per_s=2039, source="NVIDIA A100 80 GB data sheet, SXM"),
    "L4": Gpu(tensor_tflops=121, fp32_tflops=30.3, memory_gb_per_s=300, source="NVIDIA L4 data sheet"),
    "RTX 4090": Gpu(
        tensor_tflops=165.2, fp32_tflops=82.6, memory_gb_per_s=1008, source="NVIDIA Ada GPU architecture, appendix A"
    ),
    "T4": Gpu(tensor_tflops=65, fp32_tflops=8.1, memory_gb_per_s=320, source="NVIDIA T4 data sheet; no bfloat16"),
}


UNKNOWN_GPU = Gpu(tensor_tflops=inf, fp32_tflops=inf, memory_gb_per_s=inf, source="none")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an operation must move between memory and the GPU, and compute.

    Attributes:
        moved_bytes: each input read once, each output written once.
        flop_count: operations; a multiply-add counts as 2.
        on_tensor_cores: whether tensor cores can do them.
    """

    moved_bytes: int
    flop_count: int
    on_tensor_cores: bool = False


def time_floor_us(gpu: Gpu, work: Work) -> float:
    """Return the time in microseconds that moving or computing takes at the GPU's peak, whichever is longer."""
    tflops = gpu.tensor_tflops if work.on_tensor_cores else gpu.fp32_tflops
    return max(work.moved_bytes / (gpu.memory_gb_per_s * 1e3), work.flop_count / (tflops * 1e6))


def count_steps(steps: CudaSteps, rules: DecisionRules) -> dict[str, Work]:
    """Return the work of a batch's kernels, ops' and the decision's, by the step's name.

    An op that does not say how much it computes (`CountedOp`) counts as what it moves.
    """
    works: dict[str, Work] = {}
    listed = {one.name: one for wave in steps.waves for one in wave}
    merged_flops = 0  # of ops whose work smoothing has taken over
    for step in (step for step in steps.program.steps if step.op):
        op, reads = find_op(step.op), steps.list_reads(step)
        flop_count = op.count_flops(step.params, reads) if isinstance(op, CountedOp) else 0
        name = f"{step.op} {step.writes[0]}"
        if name not in listed:
            merged_flops += flop_count
            continue
        works[name] = Work(
            moved_bytes=sum(spec.size_bytes for spec in (*reads, *(steps.specs[one] for one in step.writes))),
            flop_count=flop_count,
            on_tensor_cores=isinstance(op, CountedOp) and op.is_product and reads[0].dtype != "float32",
        )
    if SMOOTHED in steps.specs:
        moved = sum(steps.specs[name].size_bytes for name in (*listed["smooth"].reads, SMOOTHED))
        # The mean's additions, one axis after the other, and its factor. The median's comparisons are left out: how few
        # do when neighbours share them is not known.
        mean_flops = 2 * (rules.smooth_size_px - 1) + 1
        flop_count = merged_flops + mean_flops * prod(steps.specs[SMOOTHED].fixed_shape)
        works["smooth"] = Work(moved_bytes=moved, flop_count=flop_count)
    (scored,) = listed["score"].reads
    values, scores = steps.specs[scored], steps.specs[SCORE]
    comparison_count = prod(values.fixed_shape)
    works["score"] = Work(moved_bytes=values.size_bytes + scores.size_bytes, flop_count=comparison_count)
    return works


def count_preprocess(
    image_shape: tuple[int, int, int, int], image_bytes: int, out_h: int, out_w: int, dtype: str
) -> Work:
    """Return the work of `preprocess`.

    Args:
        image_shape: [n, h, w, c] of the images.
        image_bytes: bytes of one value: 1 or 2.
        out_h: rows of the network's input.
        out_w: columns of it.
        dtype: its type.
    """
    n, h, w, c = image_shape
    value_count = n * 3 * out_h * out_w
    # A resized value is a sum over its pixels of the image: as many multiply-adds as the image has values.
    resize_flops = 0 if (h, w) == (out_h, out_w) else 2 * n * h * w * min(c, 3)
    return Work(
        moved_bytes=n * h * w * c * image_bytes + value_count * DTYPE_BYTES[dtype],
        flop_count=resize_flops + value_count,
    )
