"""The least memory that any layout of tensors can have."""

from collections.abc import Mapping

from ndp_rt.runtime.memory_layout import Lifetime, align


def find_lower_bound(sizes_bytes: Mapping[str, int], lifetimes: Mapping[str, Lifetime]) -> int:
    """Return the largest sum of sizes that are needed in one step: no layout is smaller."""
    steps = {step for life in lifetimes.values() for step in (life.first, life.last)}
    return max(
        (sum(align(sizes_bytes[n]) for n, life in lifetimes.items() if life.first <= s <= life.last) for s in steps),
        default=0,
    )
