"""Scores labelled images with several workers; what the maps and masks of all are compared for stays in one process."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ndp_rt.archive.crew import Crew, Job, Seat, Task
from ndp_rt.archive.opening import DEADLY, OneEngine, Opening, choose_probes
from ndp_rt.bundle.open import Bundle
from ndp_rt.evaluate.dataset import Sample
from ndp_rt.evaluate.score_samples import Exclusion, Scored, score_samples
from ndp_rt.inspector import Inspector

JOB_IMAGES = 8  # whose maps go to the caller together

MakeSeats = Callable[[Task[Any]], list[Seat]]


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """Scores samples, the jobs' items."""

    opening: Opening

    def open(self) -> Inspector:
        """See `Task`."""
        return self.opening.open()

    def work(self, inspector: Inspector, job: Job) -> tuple[list[Scored], list[Exclusion]]:
        """See `Task`."""
        if job.is_deadly:
            return [], [Exclusion(path=job.items[0].path, what="image", reason=DEADLY)]
        level = inspector.bundle.manifest.input.white_level_16bit
        return score_samples(inspector.inspect, job.items, lambda: None, white_level=level)


def score_shared(
    samples: Sequence[Sample],
    bundle: Bundle,
    arguments: Mapping[str, Any],
    advance: Callable[..., None],
    *,
    make_seats: MakeSeats,
    tell: Callable[[str], None],
) -> tuple[list[Scored], list[Exclusion], str]:
    """Return what `score_samples` does, in the order of the samples, and the hash of the engine of all workers.

    Args:
        samples: with absolute paths.
        bundle: that is opened.
        arguments: of `Inspector.open`.
        advance: counts images that are done.
        make_seats: starts the workers of a task.
        tell: shows a line.

    Raises:
        HostError: no worker can do it.
    """
    opening = Opening.begin(bundle, arguments, choose_probes([one.path for one in samples]))
    engine = OneEngine()
    starts = range(0, len(samples), JOB_IMAGES)
    jobs = [Job(shard=start, items=tuple(samples[start : start + JOB_IMAGES])) for start in starts]
    places = {one.path: index for index, one in enumerate(samples)}
    scored: list[Scored] = []
    exclusions: list[tuple[int, Exclusion]] = []
    with closing(Crew(make_seats(ScoreTask(opening=opening)), engine.accept, tell).run(jobs)) as done:
        for job, (some, left_out) in done:
            scored += some
            exclusions += [(places[job.items[0].path], one) for one in left_out]
            advance(len(job.items))
    scored.sort(key=lambda one: places[one.sample.path])
    exclusions.sort(key=lambda pair: pair[0])
    return scored, [one for _, one in exclusions], engine.hash
