"""The layout of buffers: nothing that is needed together shares bytes, and little is wasted."""

from itertools import combinations

import numpy as np
import pytest

from ndp_rt.runtime.memory_layout import ALIGNMENT_BYTES, Lifetime, lay_out_buffers
from tests.runtime.lower_bound import find_lower_bound


def draw_chain(rng: np.random.Generator, count: int) -> tuple[dict[str, int], dict[str, Lifetime]]:
    """Return tensors of random sizes that live for one to four steps."""
    sizes = {f"t{i}": int(rng.integers(1, 5000)) for i in range(count)}
    first = {name: int(rng.integers(0, 8)) for name in sizes}
    return sizes, {n: Lifetime(first=f, last=f + int(rng.integers(0, 4))) for n, f in first.items()}


@pytest.mark.parametrize("count", [1, 2, 5, 17, 60])
def test_tensors_that_live_at_the_same_time_share_no_byte(rng: np.random.Generator, count: int) -> None:
    sizes, lives = draw_chain(rng, count)
    layout = lay_out_buffers(sizes, lives)
    for one, other in combinations(sizes, 2):
        if lives[one].overlaps(lives[other]):
            a, b = layout.offsets_bytes[one], layout.offsets_bytes[other]
            assert a + sizes[one] <= b or b + sizes[other] <= a, (one, other)
    assert all(layout.offsets_bytes[n] + size <= layout.size_bytes for n, size in sizes.items())
    assert all(offset % ALIGNMENT_BYTES == 0 for offset in layout.offsets_bytes.values())
    assert find_lower_bound(sizes, lives) <= layout.size_bytes <= layout.unshared_bytes


def test_a_chain_of_steps_reuses_its_first_buffer_in_the_third_step() -> None:
    sizes = {"a": 1000, "b": 1000, "c": 1000}
    lives = {"a": Lifetime(first=0, last=1), "b": Lifetime(first=1, last=2), "c": Lifetime(first=2, last=3)}
    layout = lay_out_buffers(sizes, lives)
    assert layout.offsets_bytes["a"] == layout.offsets_bytes["c"] != layout.offsets_bytes["b"]
    assert (layout.size_bytes, layout.unshared_bytes) == (2048, 3072)


def test_nothing_takes_nothing() -> None:
    layout = lay_out_buffers({}, {})
    assert (layout.size_bytes, layout.unshared_bytes, find_lower_bound({}, {})) == (0, 0, 0)
