"""Leaves out one barrier after the other: each has to be missed."""

from collections.abc import Callable

import pytest

from ndp_rt.errors import DeviceError
from tests.interpreter.interpreter import Interpreter

SEEDS = (0, 1, 2, 3)
# The compiler moves accesses in its own way for each.
on_every_architecture = pytest.mark.parametrize("interpreter", [75, 90, 120], indirect=True, ids="sm{}".format)


def assert_every_barrier_is_needed(interpreter: Interpreter, is_right: Callable[[], bool]) -> None:
    """Fail unless `is_right()` holds in every schedule, and in one of them no longer when a barrier is left out.

    Args:
        interpreter: what `is_right` launches its kernels with.
        is_right: launches on freshly filled outputs, and tells whether they hold the right values.
    """
    interpreter.reached.clear()
    for seed in SEEDS:
        interpreter.seed = seed
        assert is_right(), f"the result is wrong in schedule {seed}"
    barriers = dict(interpreter.reached)
    assert barriers, "no thread came to a barrier: there is nothing to leave out"
    missed = []
    for barrier in barriers:
        interpreter.left_out = barrier
        if any(_is_wrong(interpreter, seed, is_right) for seed in SEEDS):
            missed.append(barrier)
    interpreter.left_out = None
    needless = sorted(place for barrier, place in barriers.items() if barrier not in missed)
    assert not needless, f"nothing goes wrong without the barriers at {', '.join(needless)}"


def _is_wrong(interpreter: Interpreter, seed: int, is_right: Callable[[], bool]) -> bool:
    interpreter.seed = seed
    try:
        return not is_right()
    except DeviceError:
        return True
