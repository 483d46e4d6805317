"""Finds, builds and loads a bundle's engines. Building happens in a child process; loading never builds."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from ndp_rt import errors
from ndp_rt.bundle import Bundle
from ndp_rt.config import child_environment
from ndp_rt.engines.base import Engine, EngineOptions
from ndp_rt.engines.cache import EngineEntry, explain_absence, find_engines_dir, find_entry
from ndp_rt.engines.golden import check_engines, check_preprocessing
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.request import EngineRecord, EngineRequest
from ndp_rt.errors import EngineError

Progress = Callable[[str], None]
Engines = dict[int, dict[str, Engine]]  # batch -> stage, in the plan's order -> engine


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
    return _find(bundle, request, find_engines_dir(cache_dir))


def _find(bundle: Bundle, request: EngineRequest, engines_dir: Path) -> EngineRecord | None:
    start = time.perf_counter()
    command = f"{request.make_command(bundle.path)} --rebuild"
    entries = [find_entry(key, engines_dir, command) for key in request.make_keys(bundle)]
    present = tuple(entry for entry in entries if entry is not None)
    if len(present) < len(entries):
        return None
    return EngineRecord(request=request, entries=present, was_cached=True, seconds=time.perf_counter() - start)


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
    EngineOptions(threads=threads)
    engines_dir = find_engines_dir(cache_dir)
    start = time.perf_counter()
    found = None if rebuild else _find(bundle, request, engines_dir)
    if found is not None:
        return found
    job = {
        "bundle": str(bundle.path),
        "fingerprint": bundle.fingerprint,
        "request": asdict(request),
        "threads": threads,
        "rebuild": rebuild,
        "engines_dir": str(engines_dir),
    }
    _run_worker(job, progress or (lambda line: None))
    built = _find(bundle, request, engines_dir)
    if built is None:
        raise EngineError(f"{engines_dir}: the engines were built and are gone. Is something else clearing the cache?")
    return EngineRecord(request=request, entries=built.entries, was_cached=False, seconds=time.perf_counter() - start)


def _run_worker(job: Mapping[str, object], progress: Progress) -> None:
    """Run `ndp_rt.engines.worker` on a job, pass its progress on and raise what it reports."""
    done = False
    with tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", "ndp_rt.engines.worker", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
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
            if code == -signal.SIGKILL:
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
) -> Engines:
    """Load engines from the cache, by batch and stage; builds nothing.

    The precision of each is read back, and the first golden vector runs through those of the smallest batch.

    Raises:
        InputError, MissingExtraError: as `find_engine`.
        EngineError: one is not there, was built by another version or for another machine, is damaged, or does not
            compute what the bundle promises; the message names the command that builds it.
    """
    request = EngineRequest(backend=backend, precision=precision, batches=batches, plan=plan)
    engines_dir, command = find_engines_dir(cache_dir), request.make_command(bundle.path)
    found = _find(bundle, request, engines_dir)
    if found is None:
        for key in request.make_keys(bundle):
            if find_entry(key, engines_dir, f"{command} --rebuild") is None:
                raise EngineError(
                    f"{engines_dir}: holds no engine of {bundle.path.name} for stage {key.stage}, {key.backend} "
                    f"{key.backend_version}, {key.precision}, batch {key.batch}.{explain_absence(key, engines_dir)} "
                    f"Build it with: {command}"
                )
        raise EngineError(f"{engines_dir}: an engine went missing while it was looked up. Build it with: {command}")
    engines: Engines = {}
    try:
        for entry in found.entries:
            engines.setdefault(entry.key.batch, {})[entry.key.stage] = load_entry(entry, threads)
        golden, batch = bundle.golden(), min(batches)
        check_preprocessing(bundle, golden)
        check_engines(bundle, golden, engines[batch], precision=precision, batch=batch, vector_count=1)
    except BaseException:
        close_engines(engines)
        raise
    return engines


def load_entry(entry: EngineEntry, threads: int | None) -> Engine:
    """Load one engine and check its precision."""
    backend = find_backend(entry.key.backend)
    options = EngineOptions(precision=entry.key.precision, batch=entry.key.batch, threads=threads)
    engine = backend.load(entry.path, options)
    backend.check_precision(engine.precision_by_layer_type(), entry.key.precision)
    return engine


def close_engines(engines: Engines) -> None:
    """Close every engine."""
    for stages in engines.values():
        for engine in stages.values():
            engine.close()
