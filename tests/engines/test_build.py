"""Building, finding and loading engines: what is stored, what is refused, and what is said."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ndp_rt
from ndp_rt import config
from ndp_rt.bundle import Bundle
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines import spec, worker
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import build_engine, find_engine, load_engine
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import BundleError, EngineError, HostError, InputError, MissingExtraError, StorageError
from ndp_rt.runtime.host import HostExecutor
from ndp_rt.runtime.open import make_host_executor, open_host
from tests.tiny_bundle import make_tiny_bundle
from tests.tolerances import assert_close

COMMAND = r"ndp-rt build-engine \S*tiny\.ndp --backend openvino --precision fp32 --batch 1,3 --plan fused"


def make_job(bundle: Bundle, cache_dir: Path, **settings: Any) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "fingerprint": bundle.fingerprint,
        "spec": EngineSpec(**settings).resolve(bundle, cache_dir).to_json(),
        "rebuild": False,
        "engines_dir": str(cache_dir / "engines"),
        "parent": os.getpid(),
        "memory_bytes": None,
    }


def forbid_children(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a child process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("plan", ["fused", "staged"])
def test_engines_of_every_backend_and_plan_agree_with_the_golden_maps(
    bundle: Bundle, tmp_path: Path, backend: str, plan: str
) -> None:
    lines: list[str] = []
    wanted = EngineSpec(backend=backend, plan=plan, batches=(1, 3), threads=1)
    record = build_engine(bundle, wanted, progress=lines.append, cache_dir=tmp_path)
    assert not record.was_cached and any("golden" in line for line in lines)
    assert set(record.precision_by_layer_type()) >= {"Convolution" if backend == "openvino" else "Conv"}
    golden = bundle.golden()
    executor = make_host_executor(bundle, wanted, load_engine(bundle, wanted, cache_dir=tmp_path))
    rows = [0, 1, 0]
    for batch in (1, 3):
        maps, _ = executor.run(np.ascontiguousarray(golden.image[rows[:batch]]))
        assert_close(maps, golden.map[rows[:batch]], "map", "float32")
    executor.close()


def test_a_second_build_is_a_hit_without_a_child(
    bundle: Bundle, built_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_children(monkeypatch)
    record = build_engine(bundle, EngineSpec(batches=(1, 3)), cache_dir=built_cache)
    assert record.was_cached and len(record.entries) == 2
    one = build_engine(bundle, EngineSpec(batches=(3,)), cache_dir=built_cache)
    assert one.entries == record.entries[1:]
    assert one.engine_hash != record.engine_hash


def test_a_hit_imports_no_backend(bundle: Bundle, built_cache: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ndp_rt.bundle import open_bundle;"
        "from ndp_rt.engines.build import find_engine;"
        "assert find_engine(open_bundle(sys.argv[1]), cache_dir=Path(sys.argv[2])).was_cached;"
        "assert not {'openvino', 'onnxruntime', 'onnx', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(bundle.path), str(built_cache)], check=True)


def test_changed_thresholds_need_no_new_engine(own_bundle: Bundle, built_cache: Path) -> None:
    from ndp_rt.bundle import update_manifest

    changed = update_manifest(own_bundle, lambda now: replace(now, thresholds={}, name="renamed"))
    assert find_engine(changed, cache_dir=built_cache) is not None


def test_absent_engines_are_errors_with_the_command_that_builds_them(bundle: Bundle, tmp_path: Path) -> None:
    assert find_engine(bundle, cache_dir=tmp_path) is None
    with pytest.raises(EngineError, match=f"holds no engine of tiny.ndp for stage fused.*batch 1. .*{COMMAND}"):
        load_engine(bundle, EngineSpec(batches=(1, 3)), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_engine_of_another_version_is_named_and_not_used(
    bundle: Bundle, built_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "find_version", lambda backend: "2099.1")
    assert find_engine(bundle, cache_dir=built_cache) is None
    with pytest.raises(EngineError, match=r"One is there for backend_version \S+ \(now 2099\.1\)\. Build it with"):
        load_engine(bundle, cache_dir=built_cache)


def test_an_engine_for_another_cpu_is_named_and_not_used(
    bundle: Bundle, built_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    cpu = replace(find_cpu(), model_name="Another CPU")
    monkeypatch.setattr("ndp_rt.devices.machine.find_cpu", lambda: cpu)
    with pytest.raises(EngineError, match=r"device_model .* \(now Another CPU\)"):
        load_engine(bundle, cache_dir=built_cache)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_build_that_disagrees_with_the_golden_vectors_fails_and_says_by_how_much(tmp_path: Path, batch: int) -> None:
    wrong = make_tiny_bundle(tmp_path / "wrong.ndp", map_shift=0.01)
    words = r"maps differ by 1\.00e-02 \(1e-04 is allowed\), scores by .*It is not used"
    with pytest.raises(EngineError, match=words):
        build_engine(wrong, EngineSpec(batches=(batch,)), cache_dir=tmp_path)
    assert find_engine(wrong, EngineSpec(batches=(batch,)), cache_dir=tmp_path) is None
    assert not [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]


def test_opening_checks_a_golden_vector(bundle: Bundle, built_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = HostExecutor.run

    def shift(executor: HostExecutor, images: Any) -> Any:
        maps, scores = run(executor, images)
        return maps + np.float32(0.01), scores

    monkeypatch.setenv("NDP_RT_CACHE", str(built_cache))
    monkeypatch.setattr(HostExecutor, "run", shift)
    with pytest.raises(EngineError, match=r"maps differ by 1\.0"):
        open_host(bundle, EngineSpec(batches=(1,)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"backend": "tflite"},
            "expected a backend of openvino, onnxruntime, tensorrt, tensorrt-rtx, torch-cuda, got 'tflite'",
        ),
        ({"precision": "int3"}, "expected a precision of fp32, tf32, bf16, .*, got 'int3'"),
        ({"precision": "fp16"}, "precision fp32 or bf16 or int8 or mixed for backend openvino, got 'fp16'"),
        ({"backend": "openvino", "precision": "int3"}, "for backend openvino, got 'int3'. Choose another precision or"),
        (
            {"backend": "onnxruntime", "precision": "bf16"},
            "expected precision fp32 for backend onnxruntime, got 'bf16'",
        ),
        ({"plan": "both"}, "plan on cpu: expected fused or staged, got 'both'"),
        ({"precision": "int8", "plan": "staged"}, "expected a plan of one engine for precision int8 on a CPU"),
        ({"batches": ()}, "expected batches of different sizes from 1"),
        ({"batches": (0,)}, r"got \[0\]"),
        ({"batches": (2, 2)}, r"got \[2, 2\]"),
        ({"threads": 0}, "expected 1 or more threads, .*, got 0"),
        ({"device": "gpu"}, "expected a device of cpu, cuda, cuda:N, got 'gpu'"),
        ({"device": "cpu:1"}, "got 'cpu:1'"),
        ({"device": "cuda:-1"}, "got 'cuda:-1'"),
        ({"device": "cuda:"}, "got 'cuda:'"),
        ({"device": "cuda:1:2"}, "got 'cuda:1:2'"),
        ({"device": "CUDA"}, "got 'CUDA'"),
        ({"device": "cuda:\u0663"}, "expected a device of"),  # a digit, but not one of ours
        ({"device": "cuda", "backend": "openvino"}, "expected device cpu for backend openvino, got 'cuda'"),
        ({"backend": "tensorrt"}, "expected device cuda or cuda:N for backend tensorrt, got 'cpu'"),
    ],
)
def test_requests_that_are_not_taken_are_refused(
    bundle: Bundle, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build_engine(bundle, EngineSpec(**settings), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "command"),
    [("onnxruntime", r"pip install 'ndp-rt\[onnxruntime\]'"), ("tensorrt", r"pip install 'ndp-rt\[gpu\]'")],
)
def test_a_missing_backend_names_its_install_command(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    backend = find_backend(name)
    monkeypatch.setattr(type(backend), "distributions", ("not-there-at-all",))
    assert backend.find().version is None
    wanted = EngineSpec(device=backend.devices[0], backend=name)
    with pytest.raises(MissingExtraError, match=command):
        build_engine(bundle, wanted, cache_dir=tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_a_storage_error_that_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=f"{os.strerror(code)}.*NDP_RT_CACHE"):
        worker.build(make_job(bundle, tmp_path), lambda line: None)
    assert not [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]


def test_a_disk_that_fills_under_onnxruntime_is_a_storage_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(StorageError, match="no space is left"):
        find_backend("onnxruntime").compile(bundle.stage_path("fused"), tmp_path / "not-there", EngineOptions())


def test_a_cache_that_cannot_be_made_is_a_storage_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="NDP_RT_CACHE"):
        build_engine(bundle, cache_dir=tmp_path / "file")


def test_a_bundle_changed_since_it_was_opened_is_not_built(own_bundle: Bundle, tmp_path: Path) -> None:
    (own_bundle.path / "weights.bin").write_bytes(b"x" * (own_bundle.path / "weights.bin").stat().st_size)
    with pytest.raises(BundleError, match="was changed"):
        build_engine(own_bundle, cache_dir=tmp_path)
    (own_bundle.path / "weights.bin").unlink()
    with pytest.raises(BundleError, match="expected weights.bin, as its manifest says, got none"):
        build_engine(own_bundle, cache_dir=tmp_path)


def test_a_model_that_the_backend_refuses_is_an_engine_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x09")
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(EngineError, match="refuses"):
            find_backend(name).compile(tmp_path / "bad.onnx", tmp_path, EngineOptions())


def test_files_of_the_working_directory_are_not_imported(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "queue", "numpy", "openvino"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')")
    monkeypatch.chdir(tmp_path)
    assert not build_engine(bundle, cache_dir=tmp_path / "cache").was_cached


def test_a_builder_that_says_what_is_no_text_is_an_engine_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def babble(arguments: list[str], **options: Any) -> Any:
        return start(["sh", "-c", r"printf '\377\n'; printf 'odd \376' >&2; exit 3"], **options)

    monkeypatch.setattr(subprocess, "Popen", babble)
    with pytest.raises(EngineError, match=r"with exit code 3 \(odd .\)"):
        build_engine(bundle, cache_dir=tmp_path)


def test_a_builder_that_dies_is_an_engine_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def die(arguments: list[str], **options: Any) -> Any:
        return start(["sh", "-c", "echo out of luck >&2; kill -9 $$"], **options)

    monkeypatch.setattr(subprocess, "Popen", die)
    with pytest.raises(EngineError, match=r"ended by signal 9, as when memory runs out \(out of luck\)\. Nothing"):
        build_engine(bundle, cache_dir=tmp_path)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes this process look like a program of PyInstaller; returns a file that is there once that was started."""
    program, started = tmp_path / "line", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("NDP_RT_PYTHON", raising=False)
    return started


def test_a_frozen_program_builds_in_itself_and_does_not_start_itself(
    bundle: Bundle, tmp_path: Path, frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_children(monkeypatch)
    lines: list[str] = []
    record = build_engine(bundle, EngineSpec(threads=1), cache_dir=tmp_path / "cache", progress=lines.append)
    assert not record.was_cached and not frozen.exists()
    assert lines[0].startswith("building in this program, as it is no Python interpreter")


def test_a_frozen_program_begins_no_engine_once_it_is_late(
    bundle: Bundle, tmp_path: Path, frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDP_RT_BUILD_LIMIT_S", "1e-9")
    with pytest.raises(EngineError, match=r"building in this program: expected it to end within 1e-09 s"):
        build_engine(bundle, EngineSpec(threads=1), cache_dir=tmp_path / "cache")
    assert find_engine(bundle, EngineSpec(threads=1), cache_dir=tmp_path / "cache") is None


def test_a_program_that_embeds_python_is_not_started_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NDP_RT_PYTHON", raising=False)
    for executable in ("", "/opt/line/inspection"):
        monkeypatch.setattr(sys, "executable", executable)
        assert config.find_python() is None
        with pytest.raises(HostError, match=f"got {executable or 'none'}. Set NDP_RT_PYTHON"):
            config.child_command("ndp_rt.engines.worker")


def test_a_frozen_program_builds_with_the_interpreter_that_is_configured(
    bundle: Bundle, tmp_path: Path, frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, popen, commands = os.fsdecode(Path(sys.prefix, "bin", "python")), subprocess.Popen, []
    monkeypatch.setenv("NDP_RT_PYTHON", python)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundled")
    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/own")
    environments = []

    def start(command: Any, **options: Any) -> Any:
        commands.append(command[0])
        environments.append(options["env"])
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    build_engine(bundle, EngineSpec(threads=1), cache_dir=tmp_path / "cache")
    assert commands == [python] and not frozen.exists()
    assert environments[0]["LD_LIBRARY_PATH"] == "/own" and "LD_LIBRARY_PATH_ORIG" not in environments[0]
    monkeypatch.setattr(ndp_rt, "__version__", "9.9")
    with pytest.raises(EngineError, match=rf"{python}: expected ndp-rt 9\.9, as in this program, got 0\."):
        build_engine(bundle, EngineSpec(threads=1), cache_dir=tmp_path / "other")
