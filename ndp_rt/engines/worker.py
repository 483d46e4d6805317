"""The child process that builds engines: a crash of a compiler, or its memory, stays in here.

Takes a job as JSON in its one argument and writes JSON lines: {"progress": text} and, last, {"done": true} or
{"error": class name, "message": text}.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle, Golden, open_bundle
from ndp_rt.engines.base import Engine, EngineOptions
from ndp_rt.engines.cache import (
    EngineKey,
    cache_error,
    find_entry,
    lock_builds,
    make_build_folder,
    publish,
    write_engine_file,
)
from ndp_rt.engines.golden import check_engines, check_preprocessing
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.request import EngineRequest
from ndp_rt.errors import BundleError, EngineError, NdpRtError

Tell = Callable[[str], None]


def build(job: Mapping[str, Any], tell: Tell) -> None:
    """Build and store every engine of the job that is not in the cache; raises NdpRtError."""
    settings = dict(job["request"])
    request = EngineRequest(**{**settings, "batches": tuple(settings["batches"])})
    engines_dir = Path(job["engines_dir"])
    bundle = open_bundle(job["bundle"])
    if bundle.fingerprint != job["fingerprint"]:
        raise BundleError(f"{bundle.path}: was changed since it was opened. Open it again.")
    name = f"{bundle.fingerprint[:12]}-{request.backend}-{request.precision}"
    with lock_builds(engines_dir, name, lambda: tell("waiting for another process that builds the same engines")):
        try:
            folder = make_build_folder(engines_dir, name)
            try:
                _build_batches(bundle, request, job, folder, tell)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            if isinstance(error, NdpRtError):
                raise
            raise cache_error(engines_dir, error) from error


def _build_batches(bundle: Bundle, request: EngineRequest, job: Mapping[str, Any], folder: Path, tell: Tell) -> None:
    golden = bundle.golden()
    check_preprocessing(bundle, golden)
    keys = request.make_keys(bundle)
    for batch in request.batches:
        of_batch = [key for key in keys if key.batch == batch]
        if not job["rebuild"] and all(_is_there(key, Path(job["engines_dir"])) for key in of_batch):
            continue  # another process built them while this one waited
        _build_batch(bundle, golden, of_batch, job, folder, tell)


def _is_there(key: EngineKey, engines_dir: Path) -> bool:
    return find_entry(key, engines_dir, "ndp-rt build-engine ... --rebuild") is not None


def _build_batch(
    bundle: Bundle, golden: Golden, keys: Sequence[EngineKey], job: Mapping[str, Any], folder: Path, tell: Tell
) -> None:
    """Build the engines of one plan and batch size, check them together, and only then store them."""
    engines: dict[str, Engine] = {}
    facts: dict[str, dict[str, Any]] = {}
    for key in keys:
        backend = find_backend(key.backend)
        options = EngineOptions(precision=key.precision, batch=key.batch, threads=job["threads"])
        artifact = folder / key.folder_name
        artifact.mkdir()
        tell(f"compiling {key.stage} for {key.backend} {key.backend_version}, {key.precision}, batch {key.batch}")
        start = time.perf_counter()
        notes = backend.compile(bundle.stage_path(key.stage), artifact, options)
        compile_ms = (time.perf_counter() - start) * 1e3
        engine = backend.load(artifact, options)
        counts = engine.precision_by_layer_type()
        backend.check_precision(counts, key.precision)
        engines[key.stage] = engine
        facts[key.stage] = {"precision_by_layer_type": counts, "compile_ms": round(compile_ms, 1), "notes": notes}
    batch, precision = keys[0].batch, keys[0].precision
    tell(f"checking batch {batch} against {len(golden.image)} golden vectors")
    report = check_engines(bundle, golden, engines, precision=precision, batch=batch)
    for engine in engines.values():
        engine.close()
    for key in keys:
        artifact = folder / key.folder_name
        write_engine_file(artifact, key, {**facts[key.stage], "golden": asdict(report)})
        publish(artifact, key, Path(job["engines_dir"]))


def main(arguments: Sequence[str]) -> int:
    """Build what the job in arguments[0] asks for; return 0, or 1 after reporting an error."""

    def say(message: Mapping[str, object]) -> None:
        print(json.dumps(message), flush=True)

    try:
        build(json.loads(arguments[0]), lambda line: say({"progress": line}))
    except NdpRtError as error:
        say({"error": type(error).__name__, "message": str(error)})
        return 1
    except MemoryError:
        say({"error": EngineError.__name__, "message": "memory ran out while building. Build smaller batches."})
        return 1
    say({"done": True})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
