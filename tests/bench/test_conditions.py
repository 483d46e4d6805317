"""What may falsify a time: clocks that jump, sleeps, others' load; and the words for each."""

import subprocess
import sys
import time
from collections.abc import Collection

import pytest

from ndp_rt.bench import conditions
from ndp_rt.bench.conditions import (
    Clocks,
    CpuSeconds,
    Watch,
    read_cpu_seconds,
    warn_clock,
    warn_host_bound,
    warn_launch_bound,
    warn_other_load,
    warn_oversubscribed,
    warn_throttled,
    warn_transfer_bound,
    warn_unstable,
)
from ndp_rt.errors import InputError, MissingExtraError
from ndp_rt.evaluate import machine

SPIN = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"


class FakeMachine:
    """Clocks and CPU time that a test moves."""

    def __init__(self, *, has_boot: bool = True) -> None:
        self.wall_s, self.monotonic_s, self.boot_s = 1e9, 50.0, 70.0
        self.busy_s = self.own_s = self.steal_s = 1000.0
        self.asked: list[Collection[int]] = []
        boot = (lambda: self.boot_s) if has_boot else None
        self.clocks = Clocks(wall=lambda: self.wall_s, monotonic=lambda: self.monotonic_s, boot=boot)

    def read_cpu(self, pids: Collection[int]) -> CpuSeconds:
        self.asked.append(pids)
        return CpuSeconds(busy_s=self.busy_s, own_s=self.own_s, steal_s=self.steal_s)

    def watch(self) -> Watch:
        return Watch(pids=(7,), clocks=self.clocks, read_cpu=self.read_cpu)

    def run(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds
        self.boot_s += seconds


def test_steady_clocks_show_nothing() -> None:
    fake = FakeMachine()
    watch = fake.watch()
    watch.start_block()
    fake.run(10.0)
    fake.wall_s += 0.004  # slewed by NTP
    block = watch.end_block()
    assert block.elapsed_s == pytest.approx(10.0)
    assert (block.clock_jumps_s, block.sleeps_s, block.other_s) == ((), (), 0.0)
    assert fake.asked == [(7,), (7,)]


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 0.2])
def test_a_wall_clock_that_jumps_is_seen(jump_s: float) -> None:
    fake = FakeMachine()
    watch = fake.watch()
    for _ in range(2):
        watch.start_block()
        fake.run(1.0)
        fake.wall_s += jump_s
        watch.end_block()
    assert watch.clock_jumps_s == pytest.approx([jump_s, jump_s]) and watch.sleeps_s == []


def test_a_jump_between_blocks_is_nobodys() -> None:
    fake = FakeMachine()
    watch = fake.watch()
    watch.start_block()
    watch.end_block()
    fake.wall_s += 100.0
    watch.start_block()
    watch.end_block()
    assert watch.clock_jumps_s == []


def test_a_sleep_is_told_from_a_jump_where_there_is_a_boot_clock() -> None:
    for has_boot in (True, False):
        fake = FakeMachine(has_boot=has_boot)
        watch = fake.watch()
        watch.start_block()
        fake.run(1.0)
        fake.wall_s += 30.0  # while the monotonic clock stands
        fake.boot_s += 30.0
        watch.end_block()
        assert watch.sleeps_s == pytest.approx([30.0] if has_boot else [])
        assert watch.clock_jumps_s == pytest.approx([] if has_boot else [30.0])


def test_others_load_is_what_was_busy_without_ours_averaged_over_blocks() -> None:
    fake = FakeMachine()
    watch = fake.watch()
    for seconds, busy_s, own_s, steal_s in ((1.0, 2.0, 1.0, 0.0), (3.0, 3.0, 2.0, 2.0)):
        watch.start_block()
        fake.run(seconds)
        fake.busy_s, fake.own_s, fake.steal_s = fake.busy_s + busy_s, fake.own_s + own_s, fake.steal_s + steal_s
        watch.end_block()
        fake.busy_s += 100.0  # between blocks
    assert watch.other_load_cores == pytest.approx(2.0 / 4.0)
    assert watch.steal_cores == pytest.approx(2.0 / 4.0)


def test_counters_that_tick_late_cancel_out() -> None:
    fake = FakeMachine()
    watch = fake.watch()
    for late_s in (-0.01, 0.01, -0.01, 0.01):
        watch.start_block()
        fake.run(0.05)
        fake.busy_s, fake.own_s = fake.busy_s + 0.05 + late_s, fake.own_s + 0.05
        watch.end_block()
    assert watch.other_load_cores == pytest.approx(0.0, abs=1e-9)
    assert Watch().other_load_cores == 0.0


def test_an_end_without_a_start_is_refused() -> None:
    with pytest.raises(InputError, match="no block was started"):
        FakeMachine().watch().end_block()


def test_a_childs_work_is_our_own() -> None:
    before = read_cpu_seconds(())
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        try:
            end = time.monotonic() + 300.0
            while read_cpu_seconds(()).own_s - before.own_s < 0.2:
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            child.kill()
    after = read_cpu_seconds((child.pid,))  # waited for: its time is this process's children's
    assert after.own_s - before.own_s >= 0.2
    assert after.busy_s > before.busy_s


def test_without_psutil_the_install_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingExtraError, match=r"ndp-rt\[bench\]"):
        read_cpu_seconds(())
    assert machine.read_clock_mhz() is None  # the machine is described without it


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        (None, None),
        ((0.0, 0.0, 0.0), None),
        ((2596.15, 0.0, 0.0), {"min": None, "max": None, "current": 2596.2}),
        ((1800.0, 400.0, 4200.0), {"min": 400.0, "max": 4200.0, "current": 1800.0}),
    ],
)
def test_the_clock_is_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, freq: tuple[float, float, float] | None, expected: dict[str, float] | None
) -> None:
    class Freq:
        current, min, max = freq or (0.0, 0.0, 0.0)

    class Psutil:
        @staticmethod
        def cpu_freq() -> Freq | None:
            return None if freq is None else Freq()

    monkeypatch.setattr(machine, "import_psutil", lambda: Psutil)
    assert machine.read_clock_mhz() == expected


def test_times_that_vary_little_are_stable() -> None:
    assert warn_unstable(0.05, [10.0, 10.5]) is None
    assert warn_unstable(0.0) is None


def test_unstable_times_and_rounds_are_said() -> None:
    assert warn_unstable(0.25) == "unstable: the times vary by 25% (standard deviation over mean)"
    assert warn_unstable(0.01, [10.0, 12.0]) == "unstable: the slowest round's median is 20% above the fastest's"
    both = warn_unstable(0.2, [10.0, 12.0])
    assert both is not None and both.count("unstable") == 1 and ";" in both


def test_what_bounds_a_gpus_time_is_said() -> None:
    assert warn_launch_bound(0.4, 1.0) == "launch-bound: putting the work on the GPU takes 0.400 of 1.000 ms"
    assert warn_transfer_bound(0.5, 1.0) == "transfer-bound: copies to and from the GPU take 0.500 of 1.000 ms"
    assert warn_launch_bound(0.1, 1.0) is None and warn_transfer_bound(0.1, 1.0) is None
    assert warn_launch_bound(0.0, 0.0) is None and warn_transfer_bound(0.0, 0.0) is None


def test_what_the_host_does_beside_an_engine_is_said_where_it_is_much() -> None:
    assert warn_host_bound(0.5, 1.0) == "host-bound: preprocessing and postprocessing take 0.500 of 1.000 ms"
    assert warn_host_bound(0.3, 1.0) is None and warn_host_bound(0.0, 0.0) is None


def test_a_ceiling_that_fell_is_said() -> None:
    assert warn_throttled(200.0, 150.0) == "throttled: the ceiling fell from 200 to 150 GFLOP/s during the run"
    assert warn_throttled(200.0, 190.0) is None and warn_throttled(150.0, 200.0) is None


def test_others_load_is_said_by_the_share_of_the_cores() -> None:
    assert warn_other_load(0.8, 2) == ["other load: other processes used 0.8 cores while this was timed"]
    assert warn_other_load(0.8, 64) == warn_other_load(0.05, 2) == []
    (words,) = warn_other_load(0.0, 2, steal_cores=0.5)
    assert words == "other load: the hypervisor gave 0.5 cores to others while this was timed"


def test_more_threads_than_cores_are_said() -> None:
    assert warn_oversubscribed(4, 2) == "oversubscribed: 4 threads on 2 cores"
    assert warn_oversubscribed(2, 2) is None


def test_jumps_and_sleeps_are_said_one_by_one() -> None:
    assert warn_clock([3600.0, -2.0], [30.0]) == [
        "clock jumped: the wall clock moved by +3600.0 s while this was timed",
        "clock jumped: the wall clock moved by -2.0 s while this was timed",
        "clock jumped: the machine slept for 30.0 s while this was timed",
    ]
    assert warn_clock([]) == []


def test_the_real_clocks_go_forward() -> None:
    watch = Watch()
    watch.start_block()
    time.sleep(0.05)
    block = watch.end_block()
    assert 0.04 < block.elapsed_s < 30.0 and block.clock_jumps_s == () and block.sleeps_s == ()
    assert conditions.Clocks().monotonic() > 0
