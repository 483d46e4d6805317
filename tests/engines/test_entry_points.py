"""Backends that other packages bring, found through entry points; this one lives in tests/ alone."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.bundle import Bundle
from ndp_rt.cli import main
from ndp_rt.engines import registry
from ndp_rt.engines.build import build_engine, load_engine
from ndp_rt.engines.registry import find_backend, find_host_backend, list_backends
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import InputError
from ndp_rt.runtime.open import make_host_executor
from tests.engines.reference_backend import BACKEND, ReferenceOptions
from tests.tolerances import assert_close

NAME = "onnx-reference"


def bring(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Put a package's dist-info with one entry point onto sys.path."""
    info = folder / "other_backends-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-backends\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ndp_rt.backends]\n{line}\n")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a cache, with the backend there."""
    bring(tmp_path, monkeypatch, f"{NAME} = tests.engines.reference_backend:BACKEND")
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_backend_of_another_package_is_found_by_its_name(brought: Path) -> None:
    assert find_backend(NAME) is find_host_backend(NAME) is BACKEND
    assert list(list_backends()) == ["openvino", "onnxruntime", NAME, "tensorrt", "tensorrt-rtx", "torch-cuda"]
    assert list(list_backends("cpu"))[-1] == NAME and NAME not in list_backends("cuda")


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("plan", ["fused", "staged"])
def test_its_engines_are_built_in_the_child_and_agree(bundle: Bundle, brought: Path, plan: str) -> None:
    lines: list[str] = []
    spec = EngineSpec(backend=NAME, plan=plan, batches=(1, 2))
    record = build_engine(bundle, spec, progress=lines.append)
    assert not record.was_cached and any("compiling" in line and NAME in line for line in lines)
    golden = bundle.golden()
    executor = make_host_executor(bundle, spec, load_engine(bundle, spec))
    maps, _ = executor.run(golden.image)
    executor.close()
    assert_close(maps, golden.map, "map", "float32")


def test_an_inspector_runs_them(bundle: Bundle, brought: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    with Inspector.open(bundle.path, backend=NAME) as own, Inspector.open(bundle.path) as other:
        assert own.inspect(image).score == pytest.approx(other.inspect(image).score, abs=1e-4)


@pytest.mark.nightly
def test_commands_take_its_name_and_its_build_options(
    bundle: Bundle, brought: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build-engine", str(bundle.path), "--backend", NAME]
    assert main([*command, "--strict", "--doc-string", "a b"]) == 0
    assert f"{NAME} " in capsys.readouterr().out
    [entry] = brought.glob("engines/*/graph.onnx")
    assert b"a b" in entry.read_bytes()
    assert main([*command, "--workspace", "1GiB"]) == 1
    assert f"expected --workspace with --backend tensorrt, got it with {NAME}" in capsys.readouterr().err
    assert main(["doctor", str(bundle.path)]) == 0
    assert f"{NAME} fp32 fused" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main(["build-engine", "--help"])
    assert "--strict" in capsys.readouterr().out


def test_the_command_of_a_spec_builds_it(bundle: Bundle, brought: Path) -> None:
    spec = EngineSpec(backend=NAME, plan="fused", build=ReferenceOptions(strict=True, doc_string="x"))
    assert spec.make_command(bundle.path).endswith("--plan fused --doc-string x --strict")
    assert EngineSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("absent = tests.nowhere:BACKEND", r"backend 'absent' \(tests.nowhere:BACKEND\) cannot be imported: No module"),
        ("other = tests.engines.reference_backend:BACKEND", "called 'other', got ReferenceBackend 'onnx-reference'"),
        ("other = tests.engines.reference_backend:MODEL_FILE", "expected .* to be a HostBackend .*, got str"),
    ],
)
def test_what_is_no_backend_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    bring(tmp_path, monkeypatch, line)
    with pytest.raises(InputError, match=words):
        find_backend(line.split()[0])
    with pytest.raises(InputError, match=words):
        list_backends()
    assert find_backend("openvino").name == "openvino"
    assert main(["doctor"]) == 0
    assert line.split()[0] in capsys.readouterr().out
    assert main(["build-engine", "x.ndp"]) == 1
    assert re.search(words, capsys.readouterr().err)


def test_names_of_our_own_look_at_no_entry_points(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    def refuse(**settings: Any) -> None:
        raise AssertionError("entry points were looked at")

    monkeypatch.setattr(registry, "entry_points", refuse)
    spec = EngineSpec(device="cpu", backend="openvino", plan="fused", batches=(1,))
    assert spec.resolve(bundle) == spec
