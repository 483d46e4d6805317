"""What may falsify a time: other processes, a hypervisor, a clock that jumps, a machine that sleeps; and its words."""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ndp_rt.errors import InputError
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
# NTP slews a clock by 0.05 % at most and steps it from 0.128 s on.
JUMP_S, JUMP_SHARE = 0.1, 1e-3


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Clocks in seconds. `boot` runs on while the machine sleeps, where `monotonic` stands; None: there is none."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boot: Callable[[], float] | None = (
        (lambda: time.clock_gettime(time.CLOCK_BOOTTIME)) if hasattr(time, "CLOCK_BOOTTIME") else None
    )


@dataclass(frozen=True, kw_only=True)
class CpuSeconds:
    """CPU time since some beginning: all that the usable cores worked, our own share of it, and what was stolen."""

    busy_s: float
    own_s: float
    steal_s: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """What went on beside one timed block.

    Attributes:
        elapsed_s: by the monotonic clock.
        other_s: CPU time of other processes; counters that tick every 10 ms may make that of a short block negative.
        steal_s: time that a hypervisor gave to others.
        clock_jumps_s: each of the wall clock's, forwards positive.
        sleeps_s: each time that the machine slept.
    """

    elapsed_s: float
    other_s: float
    steal_s: float
    clock_jumps_s: tuple[float, ...] = ()
    sleeps_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Sample:
    wall_s: float
    monotonic_s: float
    boot_s: float | None
    cpu: CpuSeconds


@dataclass(kw_only=True)
class Watch:
    """Looks at clocks and CPU time at the start and the end of timed blocks.

    Attributes:
        pids: processes that count as our own, with all that they started; this one always does.
        clocks: for tests.
        read_cpu: CPU time of the machine and of ours, given `pids`; for tests.
        blocks: what was seen, in order.
    """

    pids: Collection[int] = ()
    clocks: Clocks = field(default_factory=Clocks)
    read_cpu: Callable[[Collection[int]], CpuSeconds] = field(default_factory=lambda: read_cpu_seconds)
    blocks: list[Block] = field(default_factory=list)
    _start: _Sample | None = field(default=None, init=False)

    def start_block(self) -> None:
        """Look before a block is timed; a block that was not ended is forgotten."""
        self._start = self._look()

    def end_block(self) -> Block:
        """Look again, and return what went on since `start_block`.

        Raises:
            InputError: no block was started.
        """
        if self._start is None:
            raise InputError("no block was started; call start_block() before each end_block().")
        start, end, self._start = self._start, self._look(), None
        elapsed_s = max(end.monotonic_s - start.monotonic_s, 1e-9)
        busy_s, own_s = end.cpu.busy_s - start.cpu.busy_s, end.cpu.own_s - start.cpu.own_s
        slept_s = 0.0
        if start.boot_s is not None and end.boot_s is not None:
            slept_s = (end.boot_s - start.boot_s) - elapsed_s
        jumped_s = (end.wall_s - start.wall_s) - elapsed_s - max(slept_s, 0.0)
        limit_s = max(JUMP_S, JUMP_SHARE * elapsed_s)
        block = Block(
            elapsed_s=elapsed_s,
            other_s=busy_s - own_s,
            steal_s=end.cpu.steal_s - start.cpu.steal_s,
            clock_jumps_s=(jumped_s,) if abs(jumped_s) > limit_s else (),
            sleeps_s=(slept_s,) if slept_s > limit_s else (),
        )
        self.blocks.append(block)
        return block

    @property
    def clock_jumps_s(self) -> list[float]:
        """The wall clock's jumps during all blocks."""
        return [jump for block in self.blocks for jump in block.clock_jumps_s]

    @property
    def sleeps_s(self) -> list[float]:
        """How long the machine slept during all blocks, each time."""
        return [sleep for block in self.blocks for sleep in block.sleeps_s]

    @property
    def other_load_cores(self) -> float:
        """Cores that other processes used during all blocks, on average."""
        return self._average([block.other_s for block in self.blocks])

    @property
    def steal_cores(self) -> float:
        """Cores that a hypervisor gave to others during all blocks, on average."""
        return self._average([block.steal_s for block in self.blocks])

    def _average(self, core_seconds: Sequence[float]) -> float:
        elapsed_s = sum(block.elapsed_s for block in self.blocks)
        return max(0.0, sum(core_seconds)) / elapsed_s if elapsed_s > 0 else 0.0

    def _look(self) -> _Sample:
        boot = self.clocks.boot
        return _Sample(
            wall_s=self.clocks.wall(),
            monotonic_s=self.clocks.monotonic(),
            boot_s=None if boot is None else boot(),
            cpu=self.read_cpu(self.pids),
        )


def read_cpu_seconds(pids: Collection[int]) -> CpuSeconds:
    """Return the CPU time of the cores that this process may use, and of the processes `pids`, this one and theirs.

    A process that has ended counts through its parent, where that waited for it.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    psutil = import_psutil()
    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [cores[index] for index in sorted(os.sched_getaffinity(0)) if index < len(cores)]
    working = ("user", "nice", "system", "irq", "softirq", "interrupt", "dpc")  # guests are part of user and nice
    busy_s = sum(getattr(core, name, 0.0) for core in cores for name in working)
    own_s = 0.0
    for process in _list_tree(psutil, {os.getpid(), *pids}):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has just ended, or is not ours to look at
            continue
        own_s += times.user + times.system
        own_s += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return CpuSeconds(busy_s=busy_s, own_s=own_s, steal_s=sum(getattr(core, "steal", 0.0) for core in cores))


def _list_tree(psutil: Any, pids: Collection[int]) -> list[Any]:
    """Return the processes of these numbers and all that they started, each once."""
    found: dict[int, Any] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                found[one.pid] = one
        except psutil.Error:
            continue
    return list(found.values())


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


def warn_host_bound(outside_ms: float, total_ms: float) -> str | None:
    """Return a warning where much of an image's time passes before and after the engine; None: it does not."""
    if total_ms <= 0 or outside_ms / total_ms < BOUND_SHARE:
        return None
    return f"host-bound: preprocessing and postprocessing take {outside_ms:.3f} of {total_ms:.3f} ms"


def warn_launch_bound(launch_ms: float, total_ms: float) -> str | None:
    """Return a warning where the host spends much of a query's time on putting work on the GPU; None: it does not."""
    if total_ms <= 0 or launch_ms / total_ms < BOUND_SHARE:
        return None
    return f"launch-bound: putting the work on the GPU takes {launch_ms:.3f} of {total_ms:.3f} ms"


def warn_transfer_bound(transfer_ms: float, total_ms: float) -> str | None:
    """Return a warning where copies to and from the GPU take much of a query's time; None: they do not."""
    if total_ms <= 0 or transfer_ms / total_ms < BOUND_SHARE:
        return None
    return f"transfer-bound: copies to and from the GPU take {transfer_ms:.3f} of {total_ms:.3f} ms"


def warn_throttled(before_gflop_per_s: float, after_gflop_per_s: float) -> str | None:
    """Return a warning where the same ceiling was lower after the run than before; None: it was not."""
    if after_gflop_per_s >= (1 - THROTTLED_SHARE) * before_gflop_per_s:
        return None
    return (
        f"throttled: the ceiling fell from {before_gflop_per_s:.0f} to {after_gflop_per_s:.0f} GFLOP/s during the run"
    )


def warn_other_load(other_load_cores: float, core_count: int, steal_cores: float = 0.0) -> list[str]:
    """Return warnings where others used more than a little of the cores; none: they did not.

    Args:
        other_load_cores: that other processes used, on average.
        core_count: that this process may use.
        steal_cores: that a hypervisor gave to others.
    """
    limit, warnings = OTHER_LOAD_SHARE * core_count, []
    if other_load_cores > limit:
        warnings.append(f"other load: other processes used {other_load_cores:.1f} cores while this was timed")
    if steal_cores > limit:
        warnings.append(f"other load: the hypervisor gave {steal_cores:.1f} cores to others while this was timed")
    return warnings


def warn_oversubscribed(threads: int, core_count: int) -> str | None:
    """Return a warning where there are more threads than cores; None: there are not."""
    return f"oversubscribed: {threads} threads on {core_count} cores" if threads > core_count else None


def warn_clock(clock_jumps_s: Sequence[float], sleeps_s: Sequence[float] = ()) -> list[str]:
    """Return a warning for each jump of the wall clock and each sleep of the machine."""
    jumps = [f"clock jumped: the wall clock moved by {jump:+.1f} s while this was timed" for jump in clock_jumps_s]
    sleeps = [f"clock jumped: the machine slept for {sleep:.1f} s while this was timed" for sleep in sleeps_s]
    return jumps + sleeps
