"""Leaves out one barrier after the other: each has to be missed."""

from collections.abc import Callable

from ndp_rt.errors import DeviceError
from tests.emulation.emulator import Emulator

SEEDS = (0, 1, 2, 3)


def assert_every_barrier_is_needed(emulator: Emulator, is_right: Callable[[], bool]) -> None:
    """Fail unless `is_right()` holds in every schedule, and in one of them no longer when a barrier is left out.

    Args:
        emulator: what `is_right` launches its kernels with.
        is_right: launches on freshly filled outputs, and tells whether they hold the right values.
    """
    emulator.reached.clear()
    for seed in SEEDS:
        emulator.seed = seed
        assert is_right(), f"the result is wrong in schedule {seed}"
    barriers = dict(emulator.reached)
    assert barriers, "no thread came to a barrier: there is nothing to leave out"
    missed = []
    for barrier in barriers:
        emulator.left_out = barrier
        if any(_is_wrong(emulator, seed, is_right) for seed in SEEDS):
            missed.append(barrier)
    emulator.left_out = None
    needless = sorted(place for barrier, place in barriers.items() if barrier not in missed)
    assert not needless, f"nothing goes wrong without the barriers at {', '.join(needless)}"


def _is_wrong(emulator: Emulator, seed: int, is_right: Callable[[], bool]) -> bool:
    emulator.seed = seed
    try:
        return not is_right()
    except DeviceError:
        return True
