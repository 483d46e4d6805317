"""Finds, builds and loads a bundle's engines. Building happens in a child process; loading never builds."""

import dataclasses
import hashlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt import errors
from ndp_rt.bundle import Bundle
from ndp_rt.config import child_command, child_environment, find_build_limit_s, find_build_memory_bytes, find_python
from ndp_rt.devices.host_process import find_address_limit_mib
from ndp_rt.engines import worker
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.bundled import unpack
from ndp_rt.engines.cache import EngineEntry, EngineKey, explain_absence, find_engines_dir, find_entry
from ndp_rt.engines.engine import DeviceEngine, Engine
from ndp_rt.engines.registry import find_device_backend, find_host_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError, NdpRtError

SIGKILL = 9  # Windows has no signal.SIGKILL
Progress = Callable[[str], None]
Engines = dict[int, dict[str, Engine]]  # batch -> stage, in the plan's order -> engine
DeviceEngines = dict[int, dict[str, DeviceEngine]]
CPU_DEFAULT = EngineSpec()


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """Built engines: where they lie and what is known of them."""

    spec: EngineSpec  # resolved
    entries: tuple[EngineEntry, ...]  # batch by batch in the plan's order of stages
    was_cached: bool
    seconds: float  # what it took to find or build them

    @property
    def engine_hash(self) -> str:
        """One SHA-256 (hex) for all of them."""
        return hash_keys(entry.key for entry in self.entries)

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        """Return the layers by type and precision, over all engines of the first batch size."""
        total: dict[str, dict[str, int]] = {}
        for entry in self.entries:
            if entry.key.batch != self.entries[0].key.batch:
                continue
            for kind, counts in entry.precision_by_layer_type.items():
                for precision, count in counts.items():
                    of_kind = total.setdefault(kind, {})
                    of_kind[precision] = of_kind.get(precision, 0) + count
        return total


def hash_keys(keys: Iterable[EngineKey]) -> str:
    """Return one SHA-256 (hex) for engines by their keys."""
    return hashlib.sha256("".join(key.sha256 for key in keys).encode()).hexdigest()


def name_engines(bundle: Bundle, spec: EngineSpec) -> str:
    """Return the name of a set of engines: 16 hex digits of the hash of their keys."""
    return hash_keys(spec.make_keys(bundle))[:16]


def find_engine(
    bundle: Bundle, spec: EngineSpec = CPU_DEFAULT, *, cache_dir: Path | None = None
) -> EngineRecord | None:
    """Return the engines if all of them are in the cache, else None; imports no backend.

    Raises:
        InputError: the bundle or the backend lacks what the spec names.
        MissingExtraError: the backend is not installed.
        DeviceError: they are for a GPU, and there is none.
        EngineError: one is damaged; the message names the command that rebuilds it.
    """
    start = time.perf_counter()
    spec = spec.resolve(bundle, cache_dir)
    entries = _look_up(bundle, spec, find_engines_dir(cache_dir))
    present = tuple(entry for entry in entries.values() if entry is not None)
    if len(present) < len(entries):
        return None
    return EngineRecord(spec=spec, entries=present, was_cached=True, seconds=time.perf_counter() - start)


def _look_up(bundle: Bundle, spec: EngineSpec, engines_dir: Path) -> dict[EngineKey, EngineEntry | None]:
    """Return every engine of a resolved spec by its key, None for one that neither the cache nor the bundle has."""
    unpack(bundle, spec, engines_dir)
    command = f"{spec.make_command(bundle.path)} --rebuild"
    return {key: find_entry(key, engines_dir, command) for key in spec.locate_keys(bundle, engines_dir)}


def build_engine(
    bundle: Bundle,
    spec: EngineSpec = CPU_DEFAULT,
    *,
    rebuild: bool = False,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> EngineRecord:
    """Return the engines, building in a child process those that are not in the cache.

    Args:
        spec: which engines; its `threads` are for the golden check, and an engine may be loaded with another number.
        rebuild: build all of them, also those that are there or damaged.
        progress: called with a line of text at each step.
        cache_dir: None takes the cache that `ndp_rt.config` finds.

    Raises:
        InputError, MissingExtraError, DeviceError: as `find_engine`.
        EngineError: the backend refuses, computes in another precision, or disagrees with the golden vectors; or an
            engine is damaged and `rebuild` is not set. Nothing is stored then.
        StorageError: the cache cannot be written.
    """
    start = time.perf_counter()
    spec, engines_dir = spec.resolve(bundle, cache_dir), find_engines_dir(cache_dir)
    found = None if rebuild else find_engine(bundle, spec, cache_dir=cache_dir)
    if found is not None:
        return found
    job = {
        "bundle": str(bundle.path),
        "fingerprint": bundle.engine_fingerprint(spec.precision),
        "spec": spec.to_json(),
        "rebuild": rebuild,
        "engines_dir": str(engines_dir),
        "parent": os.getpid(),
        "memory_bytes": None if spec.is_on_gpu else find_build_memory_bytes(),  # a GPU's driver reserves terabytes
    }
    _run_worker(job, progress or (lambda line: None))
    built = find_engine(bundle, spec, cache_dir=cache_dir)
    if built is None:
        raise EngineError(f"{engines_dir}: the engines were built and are gone. Is something else clearing the cache?")
    return dataclasses.replace(built, was_cached=False, seconds=time.perf_counter() - start)


def _run_worker(job: Mapping[str, object], progress: Progress) -> None:
    """Run `ndp_rt.engines.worker` on a job, pass its progress on and raise what it reports.

    In this process where it is no Python and none is configured.
    """
    limit_s = find_build_limit_s()
    if find_python() is None:
        progress("building in this program, as it is no Python interpreter (NDP_RT_PYTHON can name one)")
        _build_here(job, progress, limit_s)
        return
    run_child("ndp_rt.engines.worker", job, progress, "the engine builder")


def run_child(module: str, job: Mapping[str, object], progress: Progress, called: str) -> None:
    """Run one of our modules as a process of its own that takes a job, pass its progress on and raise what it reports.

    Args:
        module: has `main`, which writes what `ndp_rt.engines.worker` writes.
        job: as JSON.
        progress: called with a line of text at each step.
        called: what messages call it: "the engine builder".

    Raises:
        NdpRtError: what the child reports.
        EngineError: it took too long, or ended without a word.
        HostError: there is no Python for it.
    """
    limit_s = find_build_limit_s()
    done, is_late = False, threading.Event()
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        child = subprocess.Popen(
            [*child_command(module), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            errors="replace",  # what libraries write is for people
            env=child_environment(),
        )

        def end() -> None:
            is_late.set()
            child.kill()

        timer = threading.Timer(limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                done = _handle_line(line, progress) or done
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            timer.cancel()
        if is_late.is_set():
            raise EngineError(
                f"{called}: expected it to end within {limit_s:.0f} s, got one that did not, and was ended. "
                "Nothing was stored. Set NDP_RT_BUILD_LIMIT_S to more seconds."
            )
        if not done or code != 0:
            complaints.seek(0)
            last = " | ".join(complaints.read().strip().splitlines()[-3:]) or "it said nothing"
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            if code == -SIGKILL:
                how += ", as when memory runs out"
            elif code < 0 and (limit_mib := find_address_limit_mib()) is not None:
                how += f", as when address space runs out, of which this process may have {limit_mib} MiB (ulimit -v)"
            raise EngineError(f"{called} ended {how} ({last}). Nothing was stored; try again.")


def _build_here(job: Mapping[str, object], progress: Progress, limit_s: float) -> None:
    """Build in this process.

    A compiler's crash and memory are then its own: a limit of memory would hold for the whole program, and a compiler
    that is running cannot be ended. So time is looked at before each engine.
    """
    started_s = time.monotonic()

    def check() -> None:
        if time.monotonic() - started_s > limit_s:
            raise EngineError(
                f"building in this program: expected it to end within {limit_s:g} s, got one that did not. What it was "
                "building is not stored. Set NDP_RT_BUILD_LIMIT_S to more seconds, or NDP_RT_PYTHON to an interpreter."
            )

    worker.build(job, progress, check)


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
    bundle: Bundle, spec: EngineSpec = CPU_DEFAULT, *, cache_dir: Path | None = None, found: EngineRecord | None = None
) -> Engines:
    """Load engines for the host from the cache, by batch and stage; builds nothing.

    The precision of each is read back. Nothing has run yet: golden vectors are for the executor.

    Args:
        cache_dir: None takes the cache that `ndp_rt.config` finds.
        found: what `build_engine` has just returned for the same spec: its files, whose hashes were compared then,
            are not hashed again. None: they are looked up.

    Raises:
        InputError, MissingExtraError: as `find_engine`; or the spec is for a GPU.
        EngineError: one is not there, was built by another version or for another machine, or is damaged; the message
            names the command that builds it.
    """
    spec = spec.resolve(bundle, cache_dir)
    backend = find_host_backend(spec.find_backend().name)
    return _load(bundle, spec, backend, found.entries if found else _find_built(bundle, spec, cache_dir))


def load_device_engines(bundle: Bundle, spec: EngineSpec, *, cache_dir: Path | None = None) -> DeviceEngines:
    """Load engines from the cache onto the thread's current GPU, by batch and stage; builds nothing.

    The precision of each is read back. Nothing has run yet: golden vectors are for the executor.

    Raises:
        InputError: the spec is for the host.
        DeviceError: there is no GPU, or it has no room.
        EngineError: as `load_engine`.
    """
    spec = spec.resolve(bundle, cache_dir)
    backend = find_device_backend(spec.find_backend().name)
    return _load(bundle, spec, backend, _find_built(bundle, spec, cache_dir))


def _load(bundle: Bundle, spec: EngineSpec, backend: Any, entries: Iterable[EngineEntry]) -> dict[int, dict[str, Any]]:
    """Load engines and check their precision."""
    engines: dict[int, dict[str, Any]] = {}
    try:
        for entry in entries:
            again = f"Build it again with: {spec.make_command(bundle.path)} --rebuild"
            try:
                engine = backend.load(entry.path, spec.of_batch(entry.key.batch))
                engines.setdefault(entry.key.batch, {})[entry.key.stage] = engine
                # Some engines say nothing of their layers to a later version; what they said when built holds.
                counts = engine.precision_by_layer_type() or entry.precision_by_layer_type
                backend.check_precision(counts, spec.precision)
            except EngineError as error:
                raise EngineError(f"{error} {again}") from error
            except NdpRtError:
                raise
            except Exception as error:  # a file that is none of the backend's may come to anything in its parser
                raise EngineError(
                    f"{entry.path}: cannot be loaded ({type(error).__name__}: {error}). {again}"
                ) from error
    except BaseException:
        close_engines(engines)
        raise
    return engines


def compile_engine(backend: str, onnx_path: Path, artifact: Path, options: EngineOptions) -> Engine:
    """Compile and load an engine for the host past the cache, of a graph that is not a bundle's own.

    Args:
        backend: its name.
        onnx_path: the graph, its weights inside or beside it.
        artifact: a folder for the engine's files, made if it is not there.
        options: what it is compiled for.

    Raises:
        MissingExtraError: the backend is not installed.
        EngineError: it refuses the graph.
    """
    one = find_host_backend(backend)
    artifact.mkdir(exist_ok=True)
    one.compile(onnx_path, artifact, options)
    return one.load(artifact, options)


def _find_built(bundle: Bundle, spec: EngineSpec, cache_dir: Path | None) -> tuple[EngineEntry, ...]:
    """Return the engines of a resolved spec; raise EngineError with what is there instead if one is not."""
    engines_dir, entries = find_engines_dir(cache_dir), []
    for key, entry in _look_up(bundle, spec, engines_dir).items():
        if entry is None:
            raise EngineError(
                f"{engines_dir}: holds no engine of {bundle.path.name} for stage {key.stage}, {key.backend} "
                f"{key.backend_version}, {key.precision}, batch {key.batch}.{explain_absence(key, engines_dir)} "
                f"Build it with: {spec.make_command(bundle.path)}"
            )
        entries.append(entry)
    return tuple(entries)


def close_engines(engines: Engines | DeviceEngines) -> None:
    """Close every engine."""
    for stages in engines.values():
        for engine in stages.values():
            engine.close()
