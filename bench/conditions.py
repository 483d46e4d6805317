"""What may falsify a time: other processes, a hypervisor, threads without a core; and the words for it.

A clock that is set, or a machine that sleeps, moves no time: they are taken by the monotonic clock, which stands then.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ndp_rt.evaluate.machine import import_psutil

# Above the 3 to 5 % that undisturbed inspections vary by, below what one other busy process causes on two cores.
UNSTABLE_CV = 0.1
# A round's median averages most disturbances away; rounds that differ by more are not of one machine state.
UNSTABLE_ROUNDS = 0.1
# Of an inspection's time: with a third, removing it gains more than any kernel made twice as fast.
BOUND_SHARE = 1 / 3
# A ceiling is a best of many, which repeats within some 7 % on a busy two-core machine.
THROTTLED_SHARE = 0.1
# Of the cores: what an idle system's services take stays below, one busy thread on up to twenty cores is above.
OTHER_LOAD_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A clock and CPU time, in seconds since some beginning."""

    monotonic_s: float
    busy_s: float  # that the usable cores worked
    own_s: float  # our share of it
    steal_s: float  # that a hypervisor gave to others


def look(pids: Collection[int]) -> Moment:
    """Return the clock now, and the CPU time of the usable cores, and of `pids`, this process and all their children.

    A process that has ended counts through its parent, where that waited for it.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    psutil = import_psutil()
    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [cores[index] for index in sorted(os.sched_getaffinity(0)) if index < len(cores)]
    working = ("user", "nice", "system", "irq", "softirq", "interrupt", "dpc")  # guests are part of user and nice
    own: set[Any] = set()
    for pid in (os.getpid(), *pids):
        with contextlib.suppress(psutil.Error):  # it has just ended, or is not ours to look at
            process = psutil.Process(pid)
            own |= {process, *process.children(recursive=True)}
    return Moment(
        monotonic_s=time.monotonic(),
        busy_s=sum(getattr(core, name, 0.0) for core in cores for name in working),
        own_s=sum(add_times(psutil, one) for one in own),
        steal_s=sum(getattr(core, "steal", 0.0) for core in cores),
    )


class Watch:
    """Looks at CPU time before and after a timed block, a `with`; then it says what went on beside it."""

    other_load_cores = steal_cores = 0.0  # that other processes used, and that a hypervisor gave to others, on average

    def __init__(self, pids: Collection[int] = (), look: Callable[[Collection[int]], Moment] = look) -> None:
        """Take the processes that count as our own, with all that they started; this one always does."""
        self._pids, self._look = pids, look

    def __enter__(self) -> "Watch":
        self._start = self._look(self._pids)
        return self

    def __exit__(self, *error: object) -> None:
        start, end = self._start, self._look(self._pids)
        elapsed_s = max(end.monotonic_s - start.monotonic_s, 1e-9)
        # Counters that tick every 10 ms may make the load of a short block negative.
        other_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
        self.other_load_cores = max(0.0, other_s / elapsed_s)
        self.steal_cores = max(0.0, (end.steal_s - start.steal_s) / elapsed_s)

    def list_warnings(self, core_count: int) -> list[str]:
        """Return what may falsify the block's times, where others used more than a little of so many cores."""
        limit, found = OTHER_LOAD_SHARE * core_count, []
        if self.other_load_cores > limit:
            found.append(f"other load: other processes used {self.other_load_cores:.1f} cores while this was timed")
        if self.steal_cores > limit:
            found.append(f"other load: the hypervisor gave {self.steal_cores:.1f} cores to others while this was timed")
        return found


def add_times(psutil: Any, process: Any) -> float:
    """Return the CPU time of a process and of its children that have ended; 0 where it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return sum(getattr(times, name, 0.0) for name in ("user", "system", "children_user", "children_system"))


def warn_unstable(cv: float, round_p50_ms: Sequence[float] = ()) -> str | None:
    """Return a warning where times, or the medians of rounds, vary too much to be compared closely; None: they do not.

    Args:
        cv: standard deviation over mean of the times.
        round_p50_ms: the median of each round.
    """
    spread = max(round_p50_ms) / min(round_p50_ms) - 1 if len(round_p50_ms) > 1 and min(round_p50_ms) > 0 else 0.0
    found = []
    if cv > UNSTABLE_CV:
        found.append(f"the times vary by {cv:.0%} (standard deviation over mean)")
    if spread > UNSTABLE_ROUNDS:
        found.append(f"the slowest round's median is {spread:.0%} above the fastest's")
    return f"unstable: {'; '.join(found)}" if found else None


BOUNDS = {
    "host-bound": "preprocessing and postprocessing take",
    "launch-bound": "putting the work on the GPU takes",
    "transfer-bound": "copies to and from the GPU take",
}


def warn_bound(kind: str, part_ms: float, total_ms: float) -> str | None:
    """Return a warning where what a kind of BOUNDS says takes much of an image's time; None: it does not."""
    if total_ms <= 0 or part_ms / total_ms < BOUND_SHARE:
        return None
    return f"{kind}: {BOUNDS[kind]} {part_ms:.3f} of {total_ms:.3f} ms"


def warn_throttled(before_gflop_per_s: float, after_gflop_per_s: float) -> str | None:
    """Return a warning where the same ceiling was lower after the run than before; None: it was not."""
    if after_gflop_per_s >= (1 - THROTTLED_SHARE) * before_gflop_per_s:
        return None
    return (
        f"throttled: the ceiling fell from {before_gflop_per_s:.0f} to {after_gflop_per_s:.0f} GFLOP/s during the run"
    )


def warn_oversubscribed(threads: int, core_count: int) -> str | None:
    """Return a warning where there are more threads than cores; None: there are not."""
    return f"oversubscribed: {threads} threads on {core_count} cores" if threads > core_count else None
