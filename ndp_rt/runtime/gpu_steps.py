"""NDP-Net's steps on a GPU: engines and kernels over named tensors, in waves of steps that may run side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ndp_rt.devices.cuda.buffers import BufferLayout, Lifetime, lay_out_buffers
from ndp_rt.engines.engine import DTYPE_BYTES, DeviceEngine
from ndp_rt.errors import EngineError
from ndp_rt.kernels.smooth.launch import count_smooth_tiles
from ndp_rt.program.tensors import TensorSpec

REPAIRED_LEVELS = (3, 4, 5)
PATCH_SIZES = (2, 4)
MAPS = ("am1", "am2", "am3")
# What leaves the plan: needed until it was copied away, after the last step.
RESULTS = ("smoothed", "score", "reconstruction")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One engine or kernel: what it reads and writes, by name, and how it is put on a stream."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    enqueue: Callable[[Any], None]


Wave = Sequence[Step]


def list_repaired() -> list[tuple[int, int]]:
    """Return (level, K) of every RBFRM, the most work first, so that a wave's long steps start first."""
    return [(level, size) for level in REPAIRED_LEVELS for size in PATCH_SIZES]


def name_repaired(level: int, size: int) -> str:
    """Return the name of the features of `level` rebuilt from patches of K = size."""
    return f"r{level}k{size}"


def collect_tensors(stages: Mapping[str, DeviceEngine], size: int) -> dict[str, TensorSpec]:
    """Return every tensor between the steps of one batch size, those of our kernels included.

    Raises:
        EngineError: two engines disagree about a tensor, or there is no am1.
    """
    tensors: dict[str, TensorSpec] = {}
    for stage, engine in stages.items():
        for spec in (*engine.inputs.values(), *engine.outputs.values()):
            known = tensors.setdefault(spec.name, spec)
            if known != spec:
                raise EngineError(
                    f"tensor {spec.name} is {spec.dtype} {list(spec.shape)} in engine {stage} and {known.dtype} "
                    f"{list(known.shape)} in another; engines of one build agree. Build again with --rebuild."
                )
    missing = [name for name in ("image", "reconstruction", *MAPS) if name not in tensors]
    if missing:
        raise EngineError(f"the engines have no tensor {', '.join(missing)}. Build again with --rebuild.")
    shape = tensors["am1"].shape
    tile_count = count_smooth_tiles(shape[2] or 0, shape[3] or 0)
    tensors["smoothed"] = TensorSpec(name="smoothed", shape=shape)
    tensors["tile_maxima"] = TensorSpec(name="tile_maxima", shape=(size, tile_count))
    tensors["score"] = TensorSpec(name="score", shape=(size,))
    return tensors


def find_lifetimes(waves: Sequence[Wave]) -> dict[str, Lifetime]:
    """Return, by the numbers of the waves, how long each tensor is needed; `image` from before the first wave."""
    touched: dict[str, list[int]] = {"image": [0]}
    for number, wave in enumerate(waves):
        for step in wave:
            for name in (*step.reads, *step.writes):
                touched.setdefault(name, []).append(number)
    lifetimes = {name: Lifetime(first=min(numbers), last=max(numbers)) for name, numbers in touched.items()}
    for name in RESULTS:
        lifetimes[name] = Lifetime(first=lifetimes[name].first, last=len(waves))
    return lifetimes


def count_bytes(spec: TensorSpec) -> int:
    """Return the bytes of a tensor whose shape is fixed."""
    assert None not in spec.shape
    return prod(size for size in spec.shape if size is not None) * DTYPE_BYTES[spec.dtype]


def lay_out_tensors(
    tensors: Mapping[str, TensorSpec], scratch_bytes: Mapping[str, int], waves: Sequence[Wave]
) -> BufferLayout:
    """Place all tensors, and the scratch memory of kernels, that the waves touch."""
    lifetimes = find_lifetimes(waves)
    sizes = {name: scratch_bytes[name] if name in scratch_bytes else count_bytes(tensors[name]) for name in lifetimes}
    return lay_out_buffers(sizes, lifetimes)
