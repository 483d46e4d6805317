"""The child process that builds engines: a crash of a compiler, or its memory, stays in here.

Takes a job as JSON in its one argument and writes JSON lines: {"progress": text} and, last, {"done": true} or
{"error": class name, "message": text}.
"""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.bundle.settled import watch_folder
from ndp_rt.engines.cache import (
    EngineKey,
    cache_error,
    find_entry,
    lock_builds,
    make_build_folder,
    publish,
    write_engine_file,
)
from ndp_rt.engines.process_limits import limit_process
from ndp_rt.engines.registry import find_device_backend, find_host_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.stage_files import check_stages, open_stages, write_stages
from ndp_rt.errors import EngineError, MissingExtraError, NdpRtError, needs_extra
from ndp_rt.program.manifest import INT8_PRECISIONS

Tell = Callable[[str], None]
# Golden vectors run through the executor that the engines are for, which lies above them: so it is imported by name.
CHECK_MODULE = "ndp_rt.runtime.check"


def build(job: Mapping[str, Any], tell: Tell, check: Callable[[], None] = lambda: None) -> None:
    """Build and store every engine of the job that is not in the cache; raises NdpRtError.

    `check` is called before each engine is compiled, and raises where no more are to be.
    """
    spec = EngineSpec.from_json(job["spec"])
    engines_dir = Path(job["engines_dir"])
    with watch_folder(Path(job["bundle"])) as is_same:
        bundle = open_bundle(job["bundle"])
        if bundle.engine_fingerprint(spec.precision) != job["fingerprint"]:
            raise bundle.replaced()
        _build_missing(bundle, spec, engines_dir, job["rebuild"], tell, is_same, check)


def _build_missing(
    bundle: Bundle,
    spec: EngineSpec,
    engines_dir: Path,
    rebuild: bool,
    tell: Tell,
    is_same: Callable[[], bool],
    check: Callable[[], None],
) -> None:
    name = f"{bundle.fingerprint[:12]}-{spec.backend}-{spec.precision}"
    with lock_builds(engines_dir, name, lambda: tell("waiting for another process that builds the same engines")):
        try:
            folder = make_build_folder(engines_dir, name)
            try:
                builder = Builder(
                    bundle=bundle,
                    spec=spec,
                    engines_dir=engines_dir,
                    rebuild=rebuild,
                    folder=folder,
                    tell=tell,
                    is_same=is_same,
                    check=check,
                )
                builder.build_missing()
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            if isinstance(error, NdpRtError):
                raise
            raise cache_error(engines_dir, error) from error


@dataclass(kw_only=True)
class Builder:
    """Builds what one job asks for."""

    bundle: Bundle
    spec: EngineSpec
    engines_dir: Path
    rebuild: bool
    folder: Path  # empty, on the cache's file system; thrown away afterwards
    tell: Tell
    check: Callable[[], None]
    is_same: Callable[[], bool]  # whether the bundle's folder still is the one that was opened
    stage_paths: Mapping[str, Path] = field(default_factory=dict)

    def build_missing(self) -> None:
        """Build batch size by batch size, and store each as soon as it is checked."""
        spec = self.spec
        if spec.device_index:
            from ndp_rt.devices.cuda.driver import CudaDevice

            CudaDevice(spec.device_index).activate()  # backends build for the thread's current GPU
        for batch in spec.batches or (1,):
            of_batch = dataclasses.replace(spec, batches=(batch,))
            if not self.rebuild and all(
                self._is_there(key) for key in of_batch.locate_keys(self.bundle, self.engines_dir)
            ):
                continue  # another process built them while this one waited
            self.stage_paths = self.stage_paths or self._find_stages()
            self._build_batch(of_batch.make_keys(self.bundle))

    def _is_there(self, key: EngineKey) -> bool:
        return find_entry(key, self.engines_dir, f"{self.spec.make_command(self.bundle.path)} --rebuild") is not None

    def _find_stages(self) -> Mapping[str, Path]:
        """Return the ONNX file of each stage: the bundle's own, or typed ones for a GPU."""
        bundle, spec = self.bundle, self.spec
        if not spec.is_on_gpu:
            paths = {stage: bundle.stage_path(stage) for stage in spec.list_stages(bundle)}
            if spec.precision not in INT8_PRECISIONS:
                return paths
            with needs_extra(f"building an engine in {spec.precision}", "graphs"):
                from ndp_rt.graphs.quantised import prepare_graph

            self.tell(f"writing the graph in {spec.precision}")
            return {stage: prepare_graph(bundle, path, spec.precision, self.folder) for stage, path in paths.items()}
        plan = spec.plan or ""
        if spec.build is not None and spec.build.onnx_stages is not None:
            found = open_stages(Path(spec.build.onnx_stages))
        else:
            self.tell(f"writing the stages in {spec.precision}")
            try:
                found = write_stages(bundle, spec.precision, self.folder / "stages", plan=plan)
            except ImportError as error:
                raise MissingExtraError(
                    f"typed stages cannot be made here ({error}): pip install onnx. Or make them on another machine: "
                    f"ndp-rt export-stages {bundle.path.name} --precision {spec.precision} --plan {plan} "
                    "-o DIR, and give that folder with --onnx-stages."
                ) from error
        check_stages(found, bundle, spec.precision, plan)
        return {name: stage.path for name, stage in found.stages.items()}

    def _build_batch(self, keys: Sequence[EngineKey]) -> None:
        """Build the engines of one plan and batch size, check them together, and only then store them."""
        engines: dict[str, Any] = {}  # Engine or DeviceEngine, as the check takes them; none that are for elsewhere
        facts: dict[str, dict[str, Any]] = {}
        try:
            for key in keys:
                engine, facts[key.stage] = self._build_engine(key)
                if engine is not None:
                    engines[key.stage] = engine
            report = {}
            if engines:
                check_build = import_module(CHECK_MODULE).check_build
                report = check_build(self.bundle, self.spec, engines, keys[0].batch, self.tell)
        finally:
            for engine in engines.values():
                engine.close()
        if not self.is_same():  # the graphs may be another bundle's
            raise self.bundle.replaced()
        for key in keys:
            artifact = self.folder / key.folder_name
            write_engine_file(artifact, key, {**facts[key.stage], "golden": dict(report)})
            publish(artifact, key, self.engines_dir)

    def _build_engine(self, key: EngineKey) -> tuple[Any, dict[str, Any]]:
        """Compile and load one engine; return it, None where it is for other machines, and what is known of it."""
        self.check()
        backend = self.spec.find_backend()
        options = dataclasses.replace(
            self.spec.of_batch(key.batch, self.tell),
            build=backend.choose_build(self.spec.build, key, self.engines_dir),
        )
        artifact = self.folder / key.folder_name
        artifact.mkdir()
        self.tell(f"compiling {key.stage} for {key.backend} {key.backend_version}, {key.precision}, batch {key.batch}")
        start = time.perf_counter()
        notes = dict(backend.compile(self.stage_paths[key.stage], artifact, options))
        compile_ms = (time.perf_counter() - start) * 1e3
        find = find_device_backend if self.spec.is_on_gpu else find_host_backend
        engine = find(key.backend).load(artifact, options) if backend.runs_here(options) else None
        told = notes.pop("precision_by_layer_type", {})  # where an engine that has been loaded says nothing of itself
        counts = (engine.precision_by_layer_type() if engine is not None else {}) or told
        backend.check_precision(counts, key.precision)
        return engine, {"precision_by_layer_type": counts, "compile_ms": round(compile_ms, 1), "notes": notes}


def main(arguments: Sequence[str]) -> int:
    """Build what the job in arguments[0] asks for; return 0, or 1 after reporting an error."""

    def say(message: Mapping[str, object]) -> None:
        print(json.dumps(message), flush=True)

    try:
        job = json.loads(arguments[0])
        limit_process(job["parent"], job["memory_bytes"])
        build(job, lambda line: say({"progress": line}))
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
