"""Finds, builds and loads a bundle's engines. Building happens in a child process; loading never builds."""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from ndp_rt import errors
from ndp_rt.bundle import Bundle
from ndp_rt.config import child_command, child_environment
from ndp_rt.engines.base import Engine, EngineOptions
from ndp_rt.engines.build_check import HOST_CHECK
from ndp_rt.engines.cache import (
    EngineEntry,
    EngineKey,
    explain_absence,
    find_engines_dir,
    find_entry,
    find_fitting_key,
)
from ndp_rt.engines.device_engine import DeviceEngine
from ndp_rt.engines.registry import find_backend, find_device_backend
from ndp_rt.engines.request import EngineRecord, EngineRequest
from ndp_rt.errors import EngineError, InputError

SIGKILL = 9  # Windows has no signal.SIGKILL
Progress = Callable[[str], None]
Engines = dict[int, dict[str, Engine]]  # batch -> stage, in the plan's order -> engine
DeviceEngines = dict[int, dict[str, DeviceEngine]]


def find_engine(
    bundle: Bundle,
    *,
    backend: str = "openvino",
    precision: str = "fp32",
    batches: tuple[int, ...] = (1,),
    plan: str = "fused",
    cache_dir: Path | None = None,
) -> EngineRecord | None:
    """Return the engines if all of them are in the cache, else None; imports no backend.

    Raises:
        InputError: a backend, precision, plan or batch size that is not taken.
        MissingExtraError: the backend is not installed.
        EngineError: one is damaged; the message names the command that rebuilds it.
    """
    request = EngineRequest(backend=backend, precision=precision, batches=batches, plan=plan)
    return find_requested(bundle, request, cache_dir)


def find_requested(bundle: Bundle, request: EngineRequest, cache_dir: Path | None = None) -> EngineRecord | None:
    """Return the engines of a request if all of them are in the cache, else None; imports no backend.

    Raises:
        DeviceError: they are for a GPU, and there is none.
        EngineError: one is damaged; the message names the command that rebuilds it.
    """
    start = time.perf_counter()
    engines_dir, command = find_engines_dir(cache_dir), f"{request.make_command(bundle.path)} --rebuild"
    keys = locate_keys(bundle, request, engines_dir)
    entries = [find_entry(key, engines_dir, command) for key in keys]
    present = tuple(entry for entry in entries if entry is not None)
    if len(present) < len(entries):
        return None
    return EngineRecord(request=request, entries=present, was_cached=True, seconds=time.perf_counter() - start)


def locate_keys(bundle: Bundle, request: EngineRequest, engines_dir: Path) -> list[EngineKey]:
    """Return the key under which each engine of a request lies in the cache, or would be stored."""
    is_any = request.build is None
    return [find_fitting_key(key, engines_dir, any_options=is_any) for key in request.make_keys(bundle)]


def build_engine(
    bundle: Bundle,
    *,
    backend: str = "openvino",
    precision: str = "fp32",
    batches: tuple[int, ...] = (1,),
    plan: str = "fused",
    threads: int | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> EngineRecord:
    """Return the engines, building in a child process those that are not in the cache.

    Args:
        threads: for the golden check; an engine may be loaded with another number.
        rebuild: build all of them, also those that are there or damaged.
        progress: called with a line of text at each step.
        cache_dir: None takes the cache that `ndp_rt.config` finds.

    Raises:
        InputError, MissingExtraError: as `find_engine`.
        EngineError: the backend refuses, computes in another precision, or disagrees with the golden vectors; or an
            engine is damaged and `rebuild` is not set. Nothing is stored then.
        StorageError: the cache cannot be written.
    """
    request = EngineRequest(backend=backend, precision=precision, batches=batches, plan=plan)
    return build_requested(bundle, request, threads=threads, rebuild=rebuild, progress=progress, cache_dir=cache_dir)


def build_requested(
    bundle: Bundle,
    request: EngineRequest,
    *,
    check: str | None = None,
    threads: int | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> EngineRecord:
    """Return the engines of a request; see `build_engine`.

    Args:
        check: names what checks them before they are stored (`ndp_rt.engines.build_check`); None: the host's own
            check. Engines for a GPU have none at this level: the plan that runs them names it.

    Raises:
        DeviceError: they are for a GPU, and there is none.
    """
    if request.is_for_device and check is None:
        raise InputError(f"no check is named for engines of {request.backend}; ndp_rt.plan knows it. Build through it.")
    EngineOptions(threads=threads)
    engines_dir = find_engines_dir(cache_dir)
    start = time.perf_counter()
    found = None if rebuild else find_requested(bundle, request, cache_dir)
    if found is not None:
        return found
    job = {
        "bundle": str(bundle.path),
        "fingerprint": bundle.engine_fingerprint(request.precision),
        "request": asdict(request),
        "check": check or HOST_CHECK,
        "threads": threads,
        "rebuild": rebuild,
        "engines_dir": str(engines_dir),
    }
    _run_worker(job, progress or (lambda line: None))
    built = find_requested(bundle, request, cache_dir)
    if built is None:
        raise EngineError(f"{engines_dir}: the engines were built and are gone. Is something else clearing the cache?")
    return EngineRecord(request=request, entries=built.entries, was_cached=False, seconds=time.perf_counter() - start)


def _run_worker(job: Mapping[str, object], progress: Progress) -> None:
    """Run `ndp_rt.engines.worker` on a job, pass its progress on and raise what it reports."""
    done = False
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        child = subprocess.Popen(
            [*child_command("ndp_rt.engines.worker"), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            errors="replace",  # what libraries write is for people
            env=child_environment(),
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                done = _handle_line(line, progress) or done
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        if not done or code != 0:
            complaints.seek(0)
            last = " | ".join(complaints.read().strip().splitlines()[-3:]) or "it said nothing"
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            if code == -SIGKILL:
                how += ", as when memory runs out"
            raise EngineError(f"the engine builder ended {how} ({last}). Nothing was stored; build again.")


def _handle_line(line: str, progress: Progress) -> bool:
    """Act on one line of the worker; return True on its last."""
    try:
        message = json.loads(line)
    except ValueError:
        return False  # a library that writes to stdout
    if not isinstance(message, dict):
        return False
    if "progress" in message:
        progress(message["progress"])
    if "error" in message:
        raise getattr(errors, message["error"])(message["message"])
    return bool(message.get("done"))


def load_engine(
    bundle: Bundle,
    *,
    backend: str = "openvino",
    precision: str = "fp32",
    batches: tuple[int, ...] = (1,),
    plan: str = "fused",
    threads: int | None = None,
    cache_dir: Path | None = None,
    found: EngineRecord | None = None,
) -> Engines:
    """Load engines from the cache, by batch and stage; builds nothing.

    The precision of each is read back, and the first golden vector runs through those of the smallest batch.

    Args:
        found: what `build_engine` has just returned for the same request: its files, whose hashes were compared then,
            are not hashed again. None: they are looked up.

    Raises:
        InputError, MissingExtraError: as `find_engine`.
        EngineError: one is not there, was built by another version or for another machine, is damaged, or does not
            compute what the bundle promises; the message names the command that builds it.
    """
    # Not needed for a GPU's engines, which are loaded where OpenCV may not be.
    from ndp_rt.engines.golden import check_engines, check_preprocessing

    request = EngineRequest(backend=backend, precision=precision, batches=batches, plan=plan)
    engines: Engines = {}
    try:
        for entry in (found or _find_built(bundle, request, cache_dir)).entries:
            loaded = load_entry(entry, request.make_command(bundle.path), threads)
            engines.setdefault(entry.key.batch, {})[entry.key.stage] = loaded
        golden, batch = bundle.golden(), min(batches)
        check_preprocessing(bundle, golden)
        check_engines(bundle, golden, engines[batch], precision=precision, batch=batch, vector_count=1)
    except BaseException:
        close_engines(engines)
        raise
    return engines


def load_device_engines(bundle: Bundle, request: EngineRequest, cache_dir: Path | None = None) -> DeviceEngines:
    """Load engines from the cache onto the thread's current GPU, by batch and stage; builds nothing.

    The precision of each is read back. Nothing has run yet: golden vectors are for the plan that has the buffers.

    Raises:
        InputError: the request is for the host.
        DeviceError: there is no GPU, or it has no room.
        EngineError: as `load_engine`.
    """
    engines: DeviceEngines = {}
    try:
        for entry in _find_built(bundle, request, cache_dir).entries:
            loaded = load_device_entry(entry, request.make_command(bundle.path), request.device_index)
            engines.setdefault(entry.key.batch, {})[entry.key.stage] = loaded
    except BaseException:
        close_engines(engines)
        raise
    return engines


def _find_built(bundle: Bundle, request: EngineRequest, cache_dir: Path | None) -> EngineRecord:
    """Return the engines of a request; raise EngineError with what is there instead if one is not."""
    found = find_requested(bundle, request, cache_dir)
    if found is not None:
        return found
    engines_dir, command = find_engines_dir(cache_dir), request.make_command(bundle.path)
    for key in locate_keys(bundle, request, engines_dir):
        if find_entry(key, engines_dir, f"{command} --rebuild") is None:
            raise EngineError(
                f"{engines_dir}: holds no engine of {bundle.path.name} for stage {key.stage}, {key.backend} "
                f"{key.backend_version}, {key.precision}, batch {key.batch}.{explain_absence(key, engines_dir)} "
                f"Build it with: {command}"
            )
    raise EngineError(f"{engines_dir}: an engine went missing while it was looked up. Build it with: {command}")


def load_entry(entry: EngineEntry, command: str, threads: int | None) -> Engine:
    """Load one engine and check its precision; `command` is the one that builds it."""
    backend = find_backend(entry.key.backend)
    options = EngineOptions(precision=entry.key.precision, batch=entry.key.batch, threads=threads)
    with _name_command(command):
        engine = backend.load(entry.path, options)
    backend.check_precision(engine.precision_by_layer_type(), entry.key.precision)
    return engine


def load_device_entry(entry: EngineEntry, command: str, device_index: int) -> DeviceEngine:
    """Load one engine onto the thread's current GPU and check its precision; `command` is the one that builds it."""
    backend = find_device_backend(entry.key.backend)
    options = EngineOptions(precision=entry.key.precision, batch=entry.key.batch, device_index=device_index)
    with _name_command(command):
        engine = backend.load(entry.path, options)
    try:
        # A version-compatible engine may say nothing of its layers to a later version; what it said when built holds.
        counts = engine.precision_by_layer_type() or entry.precision_by_layer_type
        backend.check_precision(counts, entry.key.precision)
    except BaseException:
        engine.close()
        raise
    return engine


@contextlib.contextmanager
def _name_command(command: str) -> Iterator[None]:
    """Add to an engine's refusal the command that builds it anew."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{error} Build it again with: {command} --rebuild") from error


def close_engines(engines: Engines | DeviceEngines) -> None:
    """Close every engine."""
    for stages in engines.values():
        for engine in stages.values():
            engine.close()
