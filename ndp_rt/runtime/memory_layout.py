"""Places tensors in one block of memory; those that are never needed at the same time share bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ALIGNMENT_BYTES = 256  # what cudaMalloc aligns to, and TensorRT asks for


def align(size_bytes: int) -> int:
    """Return a size rounded up to ALIGNMENT_BYTES."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """The first and last step that needs a tensor; steps that run side by side have one number."""

    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Tell whether both are needed in some step."""
        return self.first <= other.last and other.first <= self.last


def find_lifetimes(touched: Iterable[Iterable[str]]) -> dict[str, Lifetime]:
    """Return how long each tensor is needed, from the names that each step touches, in the order of the steps."""
    lives: dict[str, Lifetime] = {}
    for number, names in enumerate(touched):
        for name in names:
            lives[name] = Lifetime(first=lives[name].first if name in lives else number, last=number)
    return lives


@dataclass(frozen=True, kw_only=True)
class BufferLayout:
    """Offsets of tensors in one block."""

    offsets_bytes: Mapping[str, int]
    size_bytes: int
    unshared_bytes: int  # what the tensors would take without sharing


def lay_out_buffers(sizes_bytes: Mapping[str, int], lifetimes: Mapping[str, Lifetime]) -> BufferLayout:
    """Place every tensor at the lowest offset that is free during its whole life, the largest first.

    The first-fit-by-size heuristic: not always the smallest block, and within a few per cent of it for chains like
    ours (tests/runtime/test_memory_layout.py compares with the lower bound: the most that is alive in one step).

    Args:
        sizes_bytes: of each tensor.
        lifetimes: of the same tensors.
    """
    placed: list[tuple[int, int, Lifetime]] = []  # start, end, life
    offsets: dict[str, int] = {}
    for name in sorted(sizes_bytes, key=lambda one: (-sizes_bytes[one], one)):
        size, life = align(sizes_bytes[name]), lifetimes[name]
        start = 0
        for other_start, other_end in sorted((start, end) for start, end, other in placed if other.overlaps(life)):
            if other_start >= start + size:
                break
            start = max(start, other_end)
        placed.append((start, start + size, life))
        offsets[name] = start
    return BufferLayout(
        offsets_bytes=offsets,
        size_bytes=max((end for _, end, _ in placed), default=0),
        unshared_bytes=sum(map(align, sizes_bytes.values())),
    )
