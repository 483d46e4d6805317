"""Workers die and jobs go on: nothing is lost, nothing twice, and what they die of is found."""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, _base
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.archive.crew import MOST_DEATHS_IN_ROW, Crew, Job, Ready, Seat, Worker
from ndp_rt.archive.processes import ProcessSeat
from ndp_rt.errors import HostError, NdpRtError, StorageError
from tests.archive.tasks import Deadly, Stuck


class DiedError(Exception):
    """A worker has died."""


@dataclass(eq=False)
class FakeSeat:
    """A worker whose jobs are done at once, or end it."""

    deadly: str = "deadly"
    opening_error: Exception | None = None
    running: list[int] = field(default_factory=list)
    starts: int = 1
    closed: bool = False

    def open(self) -> "Future[Any]":
        future: Future[Any] = Future()
        if self.opening_error is not None:
            future.set_exception(self.opening_error)
        else:
            future.set_result(Ready(machine="here", engine_hash="e"))
        return future

    def work(self, job: Job) -> "Future[Any]":
        future: Future[Any] = Future()
        if any(self.deadly in item for item in job.items) and not job.is_deadly:
            future.set_exception(DiedError())
        elif "full" in job.items:
            future.set_exception(StorageError("full"))
        else:
            future.set_result(job.is_deadly)
        return future

    def restart(self) -> None:
        self.starts += 1

    def close(self) -> None:
        self.closed = True

    def is_death(self, error: BaseException) -> bool:
        return isinstance(error, DiedError)

    def unwrap(self, error: BaseException) -> BaseException:
        return error


def accept(ready: Ready) -> None:
    pass


def run(seats: list[Any], jobs: list[Job], tell: Any = lambda line: None) -> list[tuple[Job, Any]]:
    return list(Crew(list(seats), accept, tell).run(jobs))


def make_jobs(*names: str) -> list[Job]:
    return [Job(shard=number, items=tuple(name.split())) for number, name in enumerate(names)]


def test_every_item_is_done_once_and_the_deadly_one_is_found() -> None:
    seats = [FakeSeat(), FakeSeat()]
    done = run(seats, make_jobs("a b c deadly d e f g", "h i", "j"))
    assert sorted(item for job, _ in done for item in job.items) == [*"abcd", "deadly", *"efghij"]
    assert [job.items for job, is_deadly in done if is_deadly] == [("deadly",)]
    assert all(seat.closed for seat in seats)


def test_jobs_of_a_shard_never_run_beside_each_other() -> None:
    crew = Crew([FakeSeat(), FakeSeat()], accept, lambda line: None)
    crew._doing[Future()] = FakeSeat(), Job(shard=1, items=("a",))
    crew._again.extend([Job(shard=1, items=("b",)), Job(shard=2, items=("c",))])
    assert crew._take(iter(())) == Job(shard=2, items=("c",))
    assert crew._take(iter(())) is None


def test_workers_that_only_die_end_the_run() -> None:
    seat = FakeSeat(deadly="")
    with pytest.raises(HostError, match="expected some that live.*Try fewer"):
        run([seat], make_jobs(*(f"{number} x y z" for number in range(100))))
    assert seat.starts < MOST_DEATHS_IN_ROW + 3


def test_workers_that_die_while_they_open_end_the_run() -> None:
    with pytest.raises(HostError, match="got 3 that died meanwhile"):
        run([FakeSeat(opening_error=DiedError())], make_jobs("a"))


def test_the_others_go_on_without_a_machine_that_lacks_something() -> None:
    told: list[str] = []
    bad = [FakeSeat(opening_error=HostError("node 3: expected the bundle, got none.")) for _ in range(2)]
    done = run([*bad, FakeSeat()], make_jobs("a", "b"), told.append)
    assert [job.items for job, _ in done] == [("a",), ("b",)]
    assert told == ["going on without a worker: node 3: expected the bundle, got none."]
    with pytest.raises(HostError, match="node 3"):
        run(bad, make_jobs("a"))


def test_what_no_worker_can_do_ends_the_run() -> None:
    seats = [FakeSeat(), FakeSeat()]
    with pytest.raises(StorageError, match="full"):
        run(seats, make_jobs("a", "full", "b"))
    assert all(seat.closed for seat in seats)


def test_a_refused_worker_is_dismissed() -> None:
    def refuse(ready: Ready) -> None:
        raise HostError("expected another engine, got this.")

    seat: list[Seat] = [FakeSeat()]
    with pytest.raises(HostError, match="another engine"):
        list(Crew(seat, refuse, lambda line: None).run(make_jobs("a")))


def test_only_as_many_jobs_are_made_as_workers_take() -> None:
    made = 0

    def make() -> Iterator[Job]:
        nonlocal made
        for number in range(100):
            made += 1
            yield Job(shard=number, items=("a",))

    running = Crew([FakeSeat(), FakeSeat()], accept, lambda line: None).run(make())
    next(running)
    assert made <= 4
    running.close()


def test_a_crew_that_waits_for_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.archive.crew.PATIENCE_S", 0.01)
    late, told = FakeSeat(), list[str]()
    ready: Future[Any] = Future()
    monkeypatch.setattr(late, "open", lambda: ready)

    def tell(line: str) -> None:
        told.append(line)
        ready.set_result(Ready(machine="here", engine_hash="e"))

    assert [job.items for job, _ in run([late], make_jobs("a"), tell)] == [("a",)]
    assert len(told) == 1 and "still waiting for room" in told[0]


def test_a_worker_of_another_version_says_so() -> None:
    with pytest.raises(HostError, match=r"expected ndp-rt 0\.0\.1, as where the run began, got "):
        Worker(Deadly(), "0.0.1").open()


@pytest.mark.nightly
def test_processes_that_are_killed_are_replaced() -> None:
    told: list[str] = []
    seats: list[Seat] = [ProcessSeat(Deadly()) for _ in range(2)]
    done = list(Crew(seats, accept, told.append).run(make_jobs("a deadly", "b", "c")))
    assert sorted(job.items for job, _ in done) == [("a",), ("b",), ("c",), ("deadly",)]
    assert set(told) == {"a worker died; 2 images are inspected again", "a worker died; 1 images are inspected again"}


@pytest.mark.parametrize(("task", "words"), [(Deadly(refuses=True), "expected a bundle"), (Deadly(), "no space")])
def test_what_a_process_raises_is_raised_here(task: Deadly, words: str) -> None:
    with pytest.raises(NdpRtError, match=words):
        list(Crew([ProcessSeat(task)], accept, lambda line: None).run(make_jobs("a", "full")))


class InterruptedSeat(FakeSeat):
    """Ctrl-C comes while a job is handed over, and again while the worker is ended."""

    def work(self, job: Job) -> "Future[Any]":
        signal.raise_signal(signal.SIGINT)
        self.running.append(job.shard)
        return Future()

    def close(self) -> None:
        signal.raise_signal(signal.SIGINT)
        super().close()


def test_ctrl_c_leaves_nothing_half_done() -> None:
    seats = [InterruptedSeat(), InterruptedSeat()]
    crew = Crew(list(seats), accept, lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        list(crew.run(make_jobs("a", "b")))
    assert all(seat.closed for seat in seats)
    assert [job.shard for _, job in crew._doing.values() if job is not None] == [
        shard for seat in seats for shard in seat.running
    ]


def test_ctrl_c_while_it_waits_leaves_no_future_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    enter = _base._AcquireFutures.__enter__  # type: ignore[attr-defined]  # where `wait` holds the locks of all

    def be_interrupted(self: Any) -> None:
        enter(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(_base._AcquireFutures, "__enter__", be_interrupted)  # type: ignore[attr-defined]
    assert [job.items for job, _ in run([FakeSeat()], make_jobs("a"))] == [("a",)]


def test_a_process_that_dies_while_it_is_idle_is_replaced() -> None:
    seat, told = ProcessSeat(Deadly()), list[str]()
    running = Crew([seat], accept, told.append).run(make_jobs("a", "b"))
    assert next(running)[0].items == ("a",)
    (process,) = active_children()
    process.kill()
    process.join()
    with pytest.raises(BrokenProcessPool):  # once the executor knows
        seat.work(Job(shard=0, items=())).result()
    assert [job.items for job, _ in running] == [("b",)]
    assert told == ["a worker died; 1 images are inspected again"]
    assert active_children() == []


def test_a_process_that_still_opens_is_ended() -> None:
    seat = ProcessSeat(Stuck())
    opening = seat.open()
    seat.close()
    assert opening.cancelled() or isinstance(opening.exception(), BrokenProcessPool)


def test_a_process_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("selectors", "queue", "signal"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    assert [job.items for job, _ in run([ProcessSeat(Deadly())], make_jobs("a"))] == [("a",)]
    assert not (tmp_path / "executed").exists() and Path.cwd() == tmp_path
