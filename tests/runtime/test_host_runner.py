"""Which batches get all threads, which share them, and who waits for whom; the engine is a fake that ends on demand."""

import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.engines.engine import Call
from ndp_rt.errors import ClosedError, EngineError
from ndp_rt.runtime.host_runner import HostRunner, HostSlot
from ndp_rt.runtime.plan import OverlappingPlan

GREY = np.full((64, 64), 128, np.uint8)
WAIT_S = 300.0


class HeldRun:
    """A call that computes until `end` is set."""

    def __init__(self, plan: "HeldPlan", is_alone: bool) -> None:
        self.plan, self.generation = plan, plan.generation
        self.is_alone = is_alone
        self.end = threading.Event()
        self.is_computing = False
        self.fails = False

    @property
    def is_open(self) -> bool:
        return self.generation == self.plan.generation

    def start(self) -> None:
        self.is_computing = True
        self.plan.started.append(self)

    def wait(self) -> float:
        assert self.end.wait(WAIT_S)
        self.is_computing = False
        if self.fails:
            raise EngineError("the engine fails")
        return 7.0

    def finish(self) -> None:
        """End, as an engine does before anybody waits for it."""
        self.end.set()
        self.is_computing = False


class HeldPlan:
    """A plan of which every call is held."""

    batch_sizes = (1, 2)
    stage_names: tuple[str, ...] = ()
    stage_timings_ms: Mapping[str, float] = {}
    engine_hash = "held"

    def __init__(self, stream_count: int) -> None:
        self.stream_count = stream_count
        self.generation = 0
        self.bound_count = self.run_count = 0
        self.started: list[HeldRun] = []
        self.is_closed = False

    def run(self, batch: Any, map_out: Any, reconstruction_out: Any) -> None:
        self.run_count += 1

    def bind(self, batch: Any, map_out: Any, reconstruction_out: Any, *, is_alone: bool) -> Call:
        self.bound_count += 1
        return HeldRun(self, is_alone)

    def compute_features(self, image: Any) -> dict[str, Any]:
        raise NotImplementedError

    def make_reference(self, features: Any) -> Any:
        raise NotImplementedError

    def use_reference(self, prepared: Any) -> None:
        self.generation += 1

    def close(self) -> None:
        self.is_closed = True
        self.generation += 1


@pytest.fixture
def plan() -> HeldPlan:
    return HeldPlan(stream_count=2)


@pytest.fixture
def runner(tiny_bundle: Path, plan: HeldPlan) -> HostRunner:
    assert isinstance(plan, OverlappingPlan)
    return HostRunner(open_bundle(tiny_bundle), plan, "rgb")


def start(runner: HostRunner, plan: HeldPlan, slot: HostSlot) -> HeldRun:
    runner.start(slot, (GREY,), 1)
    return plan.started[-1]


def test_a_batch_that_finds_the_engine_idle_gets_all_threads(runner: HostRunner, plan: HeldPlan) -> None:
    slots = [runner.make_slot() for _ in range(3)]
    first, second, third = (start(runner, plan, slot) for slot in slots)
    assert [run.is_alone for run in (first, second, third)] == [True, False, False]
    for run in (first, second, third):
        run.finish()
    runner.finish(slots[0])
    assert start(runner, plan, slots[0]).is_alone


def test_an_engine_that_is_done_is_idle_even_if_nobody_has_looked(runner: HostRunner, plan: HeldPlan) -> None:
    slots = [runner.make_slot() for _ in range(2)]
    start(runner, plan, slots[0]).finish()
    assert start(runner, plan, slots[1]).is_alone


def test_shared_slots_share_from_the_first_on(runner: HostRunner, plan: HeldPlan) -> None:
    assert runner.shared_slots is runner.shared_slots and len(runner.shared_slots) == runner.stream_slot_count == 3
    assert [start(runner, plan, slot).is_alone for slot in runner.shared_slots] == [False] * 3


def test_a_slot_is_bound_once_for_each_size_and_way(runner: HostRunner, plan: HeldPlan) -> None:
    slot = runner.make_slot()
    for size in (1, 2, 1, 2):
        runner.start(slot, (GREY,) * size, size)
        plan.started[-1].end.set()
        runner.finish(slot)
    assert plan.bound_count == 2


def test_a_slot_is_bound_anew_after_the_reference_has_changed(runner: HostRunner, plan: HeldPlan) -> None:
    slot = runner.make_slot()
    old = start(runner, plan, slot)
    plan.use_reference(None)
    old.end.set()
    runner.finish(slot)  # what was started before ends as it began
    new = start(runner, plan, slot)
    assert new is not old and new.is_open and list(slot._runs.values()) == [new]


def test_the_engines_time_is_shared_out_among_the_images_of_a_batch(runner: HostRunner, plan: HeldPlan) -> None:
    slot = runner.make_slot()
    runner.start(slot, (GREY, GREY), 2)
    plan.started[-1].end.set()
    runner.finish(slot)
    assert [times.engine_ms for times in slot.times] == [3.5, 3.5]


def test_a_failure_is_raised_by_finish_and_the_slot_can_be_used_again(runner: HostRunner, plan: HeldPlan) -> None:
    slot = runner.make_slot()
    run = start(runner, plan, slot)
    run.fails = True
    run.end.set()
    with pytest.raises(EngineError, match="the engine fails"):
        runner.finish(slot)
    run.fails = False
    start(runner, plan, slot)
    runner.finish(slot)


@pytest.mark.parametrize("fails", [False, True])
def test_a_slot_that_still_computes_is_not_written_to(
    runner: HostRunner, plan: HeldPlan, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """An interrupt between start and finish leaves it so."""
    slot, seen = runner.make_slot(), []
    run = start(runner, plan, slot)
    before = slot.inputs[1].copy()

    def end_and_look() -> float:
        seen.append(slot.inputs[1].copy())
        run.finish()
        if fails:
            raise EngineError("the engine fails")
        return 7.0

    monkeypatch.setattr(run, "wait", end_and_look)
    runner.start(slot, (GREY // 2,), 1)
    assert np.array_equal(seen, [before]) and not np.array_equal(slot.inputs[1], before)
    assert plan.started == [run, run] and run.is_computing


def test_an_interrupt_while_a_batch_is_started_does_not_hide_that_it_computes(
    runner: HostRunner, plan: HeldPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, begin = runner.make_slot(), HeldRun.start

    def begin_and_stop(run: HeldRun) -> None:
        begin(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HeldRun, "start", begin_and_stop)
        runner.start(slot, (GREY,), 1)
    assert slot.is_computing and not start(runner, plan, runner.make_slot()).is_alone


def test_a_slot_that_is_forgotten_is_not_kept(runner: HostRunner, plan: HeldPlan) -> None:
    slot = runner.make_slot()
    start(runner, plan, slot).end.set()
    runner.finish(slot)
    held = weakref.ref(slot)
    runner.release_slot(slot)
    del slot
    assert held() is None


def test_a_call_whose_engine_was_closed_meanwhile_needs_no_waiting(
    runner: HostRunner, plan: HeldPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread has waited for it, and the engine has let go of it, between the question and the wait."""
    slot = runner.make_slot()
    run = start(runner, plan, slot)

    def refuse() -> float:
        raise ClosedError("the engine is closed")

    monkeypatch.setattr(run, "wait", refuse)
    runner.release_slot(slot)


@pytest.mark.parametrize("fails", [False, True])
def test_close_and_release_wait_for_what_computes(runner: HostRunner, plan: HeldPlan, fails: bool) -> None:
    released, left = runner.make_slot(), runner.make_slot()
    runs = [start(runner, plan, slot) for slot in (released, left)]
    is_closed_at_end: list[bool] = []

    def end_later() -> None:
        for run in runs:
            is_closed_at_end.append(plan.is_closed)
            run.fails = fails
            run.end.set()

    timer = threading.Timer(0.05, end_later)
    timer.start()
    runner.release_slot(released)
    assert runs[0].end.is_set()
    runner.close()
    assert runs[1].end.is_set() and plan.is_closed and is_closed_at_end == [False, False]
    timer.join()


def test_nothing_starts_or_finishes_after_close(runner: HostRunner, plan: HeldPlan) -> None:
    slot = runner.make_slot()
    start(runner, plan, slot).end.set()
    runner.close()
    for call in (lambda: runner.finish(slot), lambda: runner.start(slot, (GREY,), 1)):
        with pytest.raises(ClosedError, match="the inspector is closed"):
            call()


def test_a_plan_whose_engines_cannot_overlap_runs_in_finish(tiny_bundle: Path) -> None:
    plan = HeldPlan(stream_count=0)
    runner = HostRunner(open_bundle(tiny_bundle), plan, "rgb")
    slot = runner.make_slot()
    runner.start(slot, (GREY,), 1)
    assert (plan.bound_count, plan.run_count, runner.stream_slot_count) == (0, 0, 2)
    runner.finish(slot)
    assert plan.run_count == 1
