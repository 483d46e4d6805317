"""Inspects an archive: hands its shards to workers, and counts what they found."""

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ndp_rt.archive.crew import Crew, Job, Ready, Seat, find_version
from ndp_rt.archive.inspect_shard import Drawing, inspect_shard
from ndp_rt.archive.path_list import PathList
from ndp_rt.archive.shards import ArchiveFile, drop_temporary_files, hash_settings, make_key, name_part
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.engines.backend import find_distribution
from ndp_rt.errors import BundleError, HostError, StorageError
from ndp_rt.folders.recording import Tally
from ndp_rt.images.opencv import cv2
from ndp_rt.images.page_names import split_page
from ndp_rt.inspector import Inspector

# Of `Inspector.open`, those that rows do not depend on.
NOT_IN_ROWS = ("bundle", "threads", "build", "fallback", "require_signature", "threshold")
PROBE_COUNT = 16  # more than one: images may be moved away during a run
DEADLY = "expected to be inspected, but the process ended, several times. Is it very large? Try it on its own."


def choose_probes(paths: Sequence[Path]) -> list[Path]:
    """Return some of the images' files that are there, for machines that do not see them to be known by."""
    some = (Path(split_page(path)[0]) for path in paths[:: max(1, len(paths) // PROBE_COUNT)])
    return [path for path in some if os.path.exists(path)]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How workers open a bundle, which has to be the same one everywhere.

    Attributes:
        arguments: of `Inspector.open`; the bundle's path is absolute.
        fingerprint: of the bundle where the run began.
        probes: files of which one has to be there; none: nothing is looked for.
    """

    arguments: Mapping[str, Any]
    fingerprint: str
    probes: Sequence[Path]

    def open(self) -> Inspector:
        """Open an inspector on this machine.

        Raises:
            HostError: the machine lacks the bundle, has another one of that name, or does not see the images.
            NdpRtError: as `Inspector.open`.
        """
        machine, path = platform.node(), self.arguments["bundle"]
        try:
            found = open_bundle(path).fingerprint
        except BundleError as error:
            raise HostError(f"{machine}: expected the bundle {path} there too, got none: {error}") from error
        if found != self.fingerprint:
            raise HostError(
                f"{machine}: expected the bundle {path} to be {self.fingerprint[:12]}, as where the run began, got "
                f"{found[:12]}. Copy the same bundle to every machine."
            )
        if self.probes and not any(os.path.exists(path) for path in self.probes):
            raise HostError(
                f"{machine}: expected to find the images, got none at {self.probes[0]}. Mount their folder there under "
                "the same path."
            )
        return Inspector.open(**self.arguments)


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


class OneEngine:
    """The engine of all workers of a run: that of the first one."""

    hash = ""

    def accept(self, ready: Ready) -> None:
        """Take a worker that is ready.

        Raises:
            HostError: it has another engine.
        """
        self.hash = self.hash or ready.engine_hash
        if ready.engine_hash != self.hash:
            raise HostError(
                f"{ready.machine}: expected the engine {self.hash[:12]}, which the first worker has, got "
                f"{ready.engine_hash[:12]}: the processor, or a package, is another. Use machines that are alike."
            )


def describe_settings(bundle: Bundle, arguments: Mapping[str, Any], drawing: Drawing) -> str:
    """Return a hash of everything that rows depend on beside the engine.

    Args:
        bundle: that is opened.
        arguments: of `Inspector.open`.
        drawing: what is kept beside rows.
    """
    values = {name: value for name, value in arguments.items() if name not in NOT_IN_ROWS}
    mask = values.pop("ignore_mask", None)
    given = arguments.get("threshold")
    return hash_settings(
        {
            **values,
            "bundle": bundle.fingerprint,
            "ignored": None if mask is None else hashlib.sha256(repr(mask.shape).encode() + mask.tobytes()).hexdigest(),
            "threshold": bundle.threshold(values["precision"]).value if given is None else given,
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
        opening=Opening(
            arguments=arguments, fingerprint=bundle.fingerprint, probes=choose_probes(sorted(files.some.values()))
        ),
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
