"""Inspects an archive: hands its shards to workers, and counts what they found."""

import hashlib
import platform
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ndp_rt.archive.crew import Crew, Job, Seat, find_version
from ndp_rt.archive.inspect_shard import Drawing, inspect_shard
from ndp_rt.archive.opening import DEADLY, OneEngine, Opening, choose_probes, find_thresholds
from ndp_rt.archive.path_list import PathList
from ndp_rt.archive.shards import ArchiveFile, drop_temporary_files, hash_settings, make_key, name_part
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.engines.backend import find_distribution
from ndp_rt.errors import HostError, StorageError
from ndp_rt.folders.recording import Tally
from ndp_rt.images.opencv import cv2
from ndp_rt.inspector import Inspector

# Of `Inspector.open`, those that rows do not depend on.
NOT_IN_ROWS = ("bundle", "threads", "build", "fallback", "require_signature", "threshold")


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Inspects shards into a folder; the jobs' items are paths.

    Attributes:
        opening: of the bundle.
        out: the folder of the results, absolute.
        run: of `ArchiveFile`: the folder has to be the same one everywhere.
        shard_count: of the archive.
        settings: a hash of what rows depend on beside the engine.
        drawing: what is kept beside rows.
    """

    opening: Opening
    out: Path
    run: str
    shard_count: int
    settings: str
    drawing: Drawing

    def open(self) -> Inspector:
        """See `Task`."""
        try:
            is_same = ArchiveFile.read(self.out).run == self.run
        except StorageError:
            is_same = False
        if not is_same:
            raise HostError(
                f"{platform.node()}: expected {self.out} to be the folder where the run began, got another. "
                "Mount one folder under the same path on every machine."
            )
        return self.opening.open()

    def work(self, inspector: Inspector, job: Job) -> Tally:
        """See `Task`."""
        part = self.out / name_part(job.shard, self.shard_count, make_key(inspector.engine_hash, self.settings))
        deadly = DEADLY if job.is_deadly else None
        return inspect_shard(inspector, job.items, part, self.drawing, deadly=deadly)


def describe_settings(bundle: Bundle, arguments: Mapping[str, Any], drawing: Drawing) -> str:
    """Return a hash of everything that rows depend on beside the engine.

    Args:
        bundle: that is opened.
        arguments: of `Inspector.open`.
        drawing: what is kept beside rows.
    """
    values = {name: value for name, value in arguments.items() if name not in NOT_IN_ROWS}
    mask = values.pop("ignore_mask", None)
    threshold, of_map = find_thresholds(bundle, arguments)
    return hash_settings(
        {
            **values,
            "bundle": bundle.fingerprint,
            "ignored": None if mask is None else hashlib.sha256(repr(mask.shape).encode() + mask.tobytes()).hexdigest(),
            "threshold": threshold,
            **({} if of_map is None else {"map_threshold": of_map}),
            "white_level": values["white_level"] or bundle.manifest.input.white_level_16bit,
            "versions": (find_version(), cv2.__version__, find_distribution(("simplejpeg",))),
            **asdict(drawing),
        }
    )


def inspect_archive(
    files: PathList,
    arguments: Mapping[str, Any],
    out: Path,
    drawing: Drawing,
    make_seats: Callable[[ShardTask], list[Seat]],
    *,
    advance: Callable[[int], None],
    tell: Callable[[str], None],
) -> tuple[Tally, str]:
    """Inspect what of an archive is not inspected yet, and return all its counts and what its parts' names end with.

    Args:
        files: absolute paths.
        arguments: of `Inspector.open`.
        out: the folder of the results, locked.
        drawing: what is kept beside rows.
        make_seats: starts the workers of a task.
        advance: counts images that are done.
        tell: shows a line.

    Raises:
        NdpRtError: something cannot be written, or no worker can do the work.
    """
    archive = ArchiveFile.open(out, len(files))
    bundle = open_bundle(arguments["bundle"])
    settings = describe_settings(bundle, arguments, drawing)
    task = ShardTask(
        opening=Opening.begin(bundle, arguments, choose_probes(sorted(files.some.values()))),
        out=out,
        run=archive.run,
        shard_count=archive.shard_count,
        settings=settings,
        drawing=drawing,
    )

    jobs = (Job(shard=shard, items=tuple(paths)) for shard, paths in files.list_shards(archive.shard_count))
    engine, tally = OneEngine(), Tally()
    try:
        with closing(Crew(make_seats(task), engine.accept, tell).run(jobs)) as done:
            for job, found in done:
                tally.add(found)
                advance(len(job.items))
    finally:
        drop_temporary_files(out)
    return tally, make_key(engine.hash, settings)
