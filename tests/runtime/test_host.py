"""Which batches get all threads, which share them, and who waits for whom; the engine is a fake that ends on demand."""

import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.engines.engine import Call, OverlappingEngine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import ClosedError, EngineError
from ndp_rt.program.program import IMAGE
from ndp_rt.runtime.host import HostBatch, HostExecutor
from ndp_rt.runtime.open import make_asset_maker

GREY = np.full((64, 64), 128, np.uint8)
WAIT_S = 300.0


class HeldCall:
    """A call that computes until `end` is set."""

    def __init__(self, engine: "HeldEngine", is_alone: bool) -> None:
        self.engine, self.generation = engine, engine.generation
        self.is_alone = is_alone
        self.end = threading.Event()
        self.is_computing = False
        self.fails = False

    @property
    def is_open(self) -> bool:
        return self.generation == self.engine.generation

    def start(self) -> None:
        self.is_computing = True
        self.engine.started.append(self)

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


class HeldEngine:
    """An engine of which every call is held; it serves every batch size."""

    inputs: Mapping[str, Any] = {}
    outputs: Mapping[str, Any] = {}

    def __init__(self, stream_count: int) -> None:
        self.stream_count = stream_count
        self.generation = 0
        self.bound_count = self.run_count = 0
        self.started: list[HeldCall] = []
        self.is_closed = False

    def run(self, inputs: Any, outputs: Any) -> None:
        self.run_count += 1

    def bind(self, inputs: Any, outputs: Any, *, is_alone: bool) -> Call:
        self.bound_count += 1
        return HeldCall(self, is_alone)

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        return {}

    def close(self) -> None:
        self.is_closed = True
        self.generation += 1


OverlappingEngine.register(HeldEngine)  # for the executor, which asks


def make_executor(path: Path, engine: HeldEngine) -> HostExecutor:
    bundle = open_bundle(path)
    engines: Any = {size: {"fused": engine} for size in (1, 2)}
    maker = make_asset_maker(bundle, EngineSpec())
    return HostExecutor(bundle, "fused", engines, maker, channels="rgb", engine_hash="held")


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine(stream_count=2)


@pytest.fixture
def executor(tiny_bundle: Path, engine: HeldEngine) -> HostExecutor:
    return make_executor(tiny_bundle, engine)


def start(executor: HostExecutor, engine: HeldEngine, batch: HostBatch) -> HeldCall:
    executor.start(batch, (GREY,), 1)
    return engine.started[-1]


def test_a_batch_that_finds_the_engine_idle_gets_all_threads(executor: HostExecutor, engine: HeldEngine) -> None:
    batches = [executor.make_batch() for _ in range(3)]
    first, second, third = (start(executor, engine, batch) for batch in batches)
    assert [call.is_alone for call in (first, second, third)] == [True, False, False]
    for call in (first, second, third):
        call.finish()
    executor.finish(batches[0])
    assert start(executor, engine, batches[0]).is_alone


def test_an_engine_that_is_done_is_idle_even_if_nobody_has_looked(executor: HostExecutor, engine: HeldEngine) -> None:
    batches = [executor.make_batch() for _ in range(2)]
    start(executor, engine, batches[0]).finish()
    assert start(executor, engine, batches[1]).is_alone


def test_shared_batches_share_from_the_first_on(executor: HostExecutor, engine: HeldEngine) -> None:
    assert (
        executor.shared_batches is executor.shared_batches
        and len(executor.shared_batches) == executor.stream_batch_count == 3
    )
    assert [start(executor, engine, batch).is_alone for batch in executor.shared_batches] == [False] * 3


def test_a_batch_is_bound_once_for_each_size_and_way(executor: HostExecutor, engine: HeldEngine) -> None:
    batch = executor.make_batch()
    for size in (1, 2, 1, 2):
        executor.start(batch, (GREY,) * size, size)
        engine.started[-1].end.set()
        executor.finish(batch)
    assert engine.bound_count == 2


def test_a_batch_is_bound_anew_after_the_reference_has_changed(executor: HostExecutor, engine: HeldEngine) -> None:
    batch = executor.make_batch()
    old = start(executor, engine, batch)
    engine.generation += 1  # as a changed asset does
    old.end.set()
    executor.finish(batch)  # what was started before ends as it began
    new = start(executor, engine, batch)
    assert new is not old and new.is_open and list(batch.calls.values()) == [new]


def test_the_engines_time_is_shared_out_among_the_images_of_a_batch(executor: HostExecutor, engine: HeldEngine) -> None:
    batch = executor.make_batch()
    executor.start(batch, (GREY, GREY), 2)
    engine.started[-1].end.set()
    executor.finish(batch)
    assert [times.engine_ms for times in batch.times] == [3.5, 3.5]


def test_a_failure_is_raised_by_finish_and_the_batch_can_be_used_again(
    executor: HostExecutor, engine: HeldEngine
) -> None:
    batch = executor.make_batch()
    call = start(executor, engine, batch)
    call.fails = True
    call.end.set()
    with pytest.raises(EngineError, match="the engine fails"):
        executor.finish(batch)
    call.fails = False
    start(executor, engine, batch)
    executor.finish(batch)


@pytest.mark.parametrize("fails", [False, True])
def test_a_batch_that_still_computes_is_not_written_to(
    executor: HostExecutor, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """An interrupt between start and finish leaves it so."""
    batch, seen = executor.make_batch(), []
    call = start(executor, engine, batch)
    before = batch.tensors[1][IMAGE].copy()

    def end_and_look() -> float:
        seen.append(batch.tensors[1][IMAGE].copy())
        call.finish()
        if fails:
            raise EngineError("the engine fails")
        return 7.0

    monkeypatch.setattr(call, "wait", end_and_look)
    executor.start(batch, (GREY // 2,), 1)
    assert np.array_equal(seen, [before]) and not np.array_equal(batch.tensors[1][IMAGE], before)
    assert engine.started == [call, call] and call.is_computing


def test_an_interrupt_while_a_batch_is_started_does_not_hide_that_it_computes(
    executor: HostExecutor, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, begin = executor.make_batch(), HeldCall.start

    def begin_and_stop(call: HeldCall) -> None:
        begin(call)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HeldCall, "start", begin_and_stop)
        executor.start(batch, (GREY,), 1)
    assert batch.is_computing and not start(executor, engine, executor.make_batch()).is_alone


def test_a_batch_that_is_forgotten_is_not_kept(executor: HostExecutor, engine: HeldEngine) -> None:
    batch = executor.make_batch()
    start(executor, engine, batch).end.set()
    executor.finish(batch)
    held = weakref.ref(batch)
    executor.release_batch(batch)
    del batch
    assert held() is None


def test_a_call_whose_engine_was_closed_meanwhile_needs_no_waiting(
    executor: HostExecutor, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread has waited for it, and the engine has let go of it, between the question and the wait."""
    batch = executor.make_batch()
    call = start(executor, engine, batch)

    def refuse() -> float:
        raise ClosedError("the engine is closed")

    monkeypatch.setattr(call, "wait", refuse)
    executor.release_batch(batch)


@pytest.mark.parametrize("fails", [False, True])
def test_close_and_release_wait_for_what_computes(executor: HostExecutor, engine: HeldEngine, fails: bool) -> None:
    released, left = executor.make_batch(), executor.make_batch()
    calls = [start(executor, engine, batch) for batch in (released, left)]
    is_closed_at_end: list[bool] = []

    def end_later() -> None:
        for call in calls:
            is_closed_at_end.append(engine.is_closed)
            call.fails = fails
            call.end.set()

    timer = threading.Timer(0.05, end_later)
    timer.start()
    executor.release_batch(released)
    assert calls[0].end.is_set()
    executor.close()
    assert calls[1].end.is_set() and engine.is_closed and is_closed_at_end == [False, False]
    timer.join()


def test_nothing_starts_or_finishes_after_close(executor: HostExecutor, engine: HeldEngine) -> None:
    batch = executor.make_batch()
    start(executor, engine, batch).end.set()
    executor.close()
    for call in (lambda: executor.finish(batch), lambda: executor.start(batch, (GREY,), 1)):
        with pytest.raises(ClosedError, match="the inspector is closed"):
            call()


def test_an_engine_that_cannot_overlap_runs_in_finish(tiny_bundle: Path) -> None:
    engine = HeldEngine(stream_count=0)
    executor = make_executor(tiny_bundle, engine)
    batch = executor.make_batch()
    executor.start(batch, (GREY,), 1)
    assert (engine.bound_count, engine.run_count, executor.stream_batch_count) == (0, 0, 2)
    executor.finish(batch)
    assert engine.run_count == 1
