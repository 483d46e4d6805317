"""The least that each kernel must move and compute, and the time below which no GPU does it: its floor.

A floor is arithmetic, not a measurement. It counts every input read once and every output written once, and the
arithmetic that the definition cannot do without; launches, and what a cache happens to hold already, are not in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ndp_rt.bundle.programs import list_reads, list_tensors
from ndp_rt.kernels.checks import HELD_AS, check_element_type
from ndp_rt.kernels.smooth.launch import count_smooth_tiles
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import Program

MAP_BYTES = 4  # maps and scores are float32 in every precision
PATCH_SIZES = (2, 4)


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


def _find_bytes(dtype: str) -> int:
    check_element_type("dtype", dtype)
    return np.dtype(HELD_AS[dtype]).itemsize


def count_rbfrm(
    shape: tuple[int, int, int, int], reference_shape: tuple[int, int, int, int], size: int, dtype: str
) -> Work:
    """Return the work of `rbfrm`: two products of n N rows with the M patches of the reference.

    Args:
        shape: [n, c, h, w] of the features.
        reference_shape: [1, c, h', w'] of the reference.
        size: K.
        dtype: the features' type; float32 is not computed on tensor cores.
    """
    n, c, h, w = shape
    _, _, reference_h, reference_w = reference_shape
    rows, length = n * (h // size) * (w // size), c * size * size
    reference_count = (reference_h // size) * (reference_w // size)
    return Work(
        moved_bytes=_find_bytes(dtype) * length * (2 * rows + reference_count),
        flop_count=2 * (2 * rows * reference_count * length),
        on_tensor_cores=dtype != "float32",
    )


def count_nearest_sample(shape: tuple[int, int, int, int], sample_count: int, dtype: str) -> Work:
    """Return the work of `nearest_sample`: for each value of each pair a subtraction and an addition."""
    n, *rest = shape
    length = prod(rest)
    return Work(
        moved_bytes=_find_bytes(dtype) * length * (2 * n + sample_count), flop_count=2 * n * sample_count * length
    )


def count_nearest_neighbour(shape: tuple[int, int, int, int], patch_count: int, dtype: str) -> Work:
    """Return the work of `nearest_neighbour`: a product of n h w positions with the patches is the most of it."""
    n, c, h, w = shape
    return Work(
        moved_bytes=_find_bytes(dtype) * (n * h * w * (c + 1) + patch_count * c),
        flop_count=2 * n * h * w * patch_count * c,
        on_tensor_cores=dtype != "float32",
    )


def count_retrieval(manifest: BundleManifest, program: Program, n: int, dtype: str) -> dict[str, Work]:
    """Return the work of every step of a program that looks something up in a memory, by the step's name."""
    counts = {"nearest_sample": count_nearest_sample, "nearest_neighbour": count_nearest_neighbour}
    tensors = list_tensors(manifest, program.steps)
    found = {}
    for step in program.steps:
        if step.op in counts:
            features, remembered = list_reads(manifest, step, tensors)
            _, c, h, w = features.with_batch(n)
            found[f"{step.op} {step.writes[0]}"] = counts[step.op]((n, c, h, w), remembered.fixed_shape[0], dtype)
    return found


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
        moved_bytes=n * h * w * c * image_bytes + value_count * _find_bytes(dtype),
        flop_count=resize_flops + value_count,
    )


# Eq. 11 for one pixel: two maps are interpolated, by 3 subtractions and 3 multiply-adds each, and three are weighed.
FUSE_FLOPS = 2 * 3 * 3 + 3 * 2
# The mean's additions, one axis after the other, and its factor. The median's comparisons are left out: how few do when
# neighbours share them is not known.
SMOOTH_FLOPS = 4 + 4 + 1


def count_smooth_levels(n: int, h: int, w: int) -> Work:
    """Return the work of `smooth_levels`: n maps of h x w pixels from their levels, smoothed."""
    level_values = h * w + (h // 2) * (w // 2) + (h // 4) * (w // 4)
    return Work(moved_bytes=MAP_BYTES * n * (level_values + h * w), flop_count=(FUSE_FLOPS + SMOOTH_FLOPS) * n * h * w)


def count_score(n: int, value_count: int) -> Work:
    """Return the work of `score`: one comparison for each of n x value_count values."""
    return Work(moved_bytes=MAP_BYTES * n * (value_count + 1), flop_count=n * value_count)


def count_inspection(n: int, h: int, w: int, width: int, dtype: str) -> dict[str, Work]:
    """Return the work of every kernel call of one inspection of n uint8 RGB images that need no resizing, in order.

    Args:
        n: images.
        h: rows of the network's input.
        w: columns of it.
        width: channels of level 1 (`ModelSpec.width`).
        dtype: the type at the borders of the stages.
    """
    calls = {"preprocess": count_preprocess((n, h, w, 3), 1, h, w, dtype)}
    for level, channels in ((3, 4 * width), (4, 8 * width), (5, 8 * width)):
        shape = (channels, h >> (level - 1), w >> (level - 1))
        for size in PATCH_SIZES:
            calls[f"rbfrm r{level}k{size}"] = count_rbfrm((n, *shape), (1, *shape), size, dtype)
    tile_count = count_smooth_tiles(h, w)
    return calls | {"smooth_levels": count_smooth_levels(n, h, w), "score": count_score(n, tile_count)}
