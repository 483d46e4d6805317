"""What may falsify a time: others' load and much else; and the words for each."""

import subprocess
import sys
import time
from collections.abc import Collection

import pytest

from ndp_rt.bench.conditions import (
    Moment,
    Watch,
    look,
    warn_bound,
    warn_oversubscribed,
    warn_throttled,
    warn_unstable,
)
from ndp_rt.errors import MissingExtraError
from ndp_rt.evaluate import machine

SPIN = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
START = Moment(monotonic_s=50.0, busy_s=1000.0, own_s=1000.0, steal_s=1000.0)


def watch(seconds: float, **moved_s: float) -> Watch:
    """A watch over a block of `seconds`, in which CPU time moved by so much."""
    moved_s["monotonic_s"] = seconds
    moments = iter((START, Moment(**{name: old + moved_s.get(name, 0.0) for name, old in vars(START).items()})))

    def give(pids: Collection[int]) -> Moment:
        assert pids == (7,)
        return next(moments)

    with Watch((7,), give) as one:
        pass
    return one


def test_others_load_is_what_was_busy_without_ours() -> None:
    one = watch(4.0, busy_s=5.0, own_s=3.0, steal_s=2.0)
    assert (one.other_load_cores, one.steal_cores) == (0.5, 0.5)
    assert one.list_warnings(2) == [
        "other load: other processes used 0.5 cores while this was timed",
        "other load: the hypervisor gave 0.5 cores to others while this was timed",
    ]
    assert one.list_warnings(64) == []
    assert watch(0.05, busy_s=0.04, own_s=0.05).other_load_cores == 0.0  # counters that tick late


def test_a_childs_work_is_our_own() -> None:
    before = look(())
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        try:
            end = time.monotonic() + 300.0
            while look(()).own_s - before.own_s < 0.2:
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            child.kill()
    after = look((child.pid,))  # waited for: its time is this process's children's
    assert after.own_s - before.own_s >= 0.19
    assert after.busy_s > before.busy_s


def test_without_psutil_the_install_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingExtraError, match=r"ndp-rt\[bench\]"):
        look(())
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


def test_what_bounds_a_time_is_said_where_it_is_much() -> None:
    assert warn_bound("launch-bound", 0.4, 1.0) == "launch-bound: putting the work on the GPU takes 0.400 of 1.000 ms"
    words = warn_bound("transfer-bound", 0.5, 1.0)
    assert words == "transfer-bound: copies to and from the GPU take 0.500 of 1.000 ms"
    words = warn_bound("host-bound", 0.5, 1.0)
    assert words == "host-bound: preprocessing and postprocessing take 0.500 of 1.000 ms"
    assert warn_bound("host-bound", 0.3, 1.0) is None and warn_bound("host-bound", 0.0, 0.0) is None


def test_a_ceiling_that_fell_is_said() -> None:
    assert warn_throttled(200.0, 150.0) == "throttled: the ceiling fell from 200 to 150 GFLOP/s during the run"
    assert warn_throttled(200.0, 190.0) is None and warn_throttled(150.0, 200.0) is None


def test_more_threads_than_cores_are_said() -> None:
    assert warn_oversubscribed(4, 2) == "oversubscribed: 4 threads on 2 cores"
    assert warn_oversubscribed(2, 2) is None


def test_the_real_clock_goes_forward() -> None:
    with Watch() as one:
        time.sleep(0.05)
    assert one.other_load_cores >= 0.0
    assert look(()).monotonic_s > 0
