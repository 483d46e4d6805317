"""`ndp-rt build-engine`: what it prints and how it ends."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.cli import main
from ndp_rt.engines.backends.tensorrt.options import parse_size
from tests.fakes import fake_tensorrt, toy_device
from tests.fakes.fake_graphs import write_fake_stages
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("cli") / "tiny.ndp").path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))


def test_builds_then_hits_then_rebuilds(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build-engine", str(bundle_path), "--batch", "2,1", "--threads", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "cache miss" in printed and "Convolution" in printed and "f32" in printed
    assert "golden vectors, batch 2: 2 agree" in printed and str(tmp_path / "engines") in printed
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "cache hit" in again and again.splitlines()[-1] == printed.splitlines()[-1]
    assert main([*command, "--rebuild"]) == 0
    assert "cache miss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "tensorrt"], "TensorRT|pip install"),
        (
            ["--backend", "onnxruntime", "--precision", "bf16"],
            "expected precision fp32 for backend onnxruntime, got 'bf16'",
        ),
        (["--precision", "fp16"], "expected precision fp32 or bf16 or int8 or mixed for backend openvino, got 'fp16'"),
        (["--precision", "int8"], "expected calibration images in it, got none"),
        (["--plan", "unmerged"], "plan on cpu: expected fused or staged, got 'unmerged'"),
        (
            ["--workspace", "1GiB"],
            "expected --workspace with --backend tensorrt, got it with openvino",
        ),
        (["--backend", "tensorrt", "--strip"], "--onnx-stages DIR, which ndp-rt export-stages writes"),
        (["--device", "gpu"], "expected a device of cpu, cuda, cuda:N, got 'gpu'"),
    ],
)
def test_what_cannot_be_built_is_one_line_and_exit_1(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["build-engine", str(bundle_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ndp-rt: error: ") and len(error.strip().splitlines()) == 1
    assert re.search(words, error)


def test_a_missing_bundle_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build-engine", str(tmp_path / "none.ndp")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--batch", "0"], ["--batch", "a"], ["--threads", "0"], ["--backend", "x"], ["--workspace", "4 apples"]],
)
def test_wrong_usage_is_exit_2(bundle_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["build-engine", str(bundle_path), *arguments])
    assert exit_info.value.code == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 2**32),
        ("512MiB", 2**29),
        ("1.5 kib", 1536),
        ("2GB", 2 * 10**9),
        ("64M", 64 * 10**6),
        ("17", 17),
        ("9B", 9),
    ],
)
def test_sizes_are_read_in_both_kinds_of_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "0", "0.1", "-1", "4 apples", "4iB", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a size such as 4GiB"):
        parse_size(text)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TensorRT on a GPU that is not there, with stages and a check that suit it."""
    toy_device.install_gpu(monkeypatch)
    toy_device.run_worker_here(monkeypatch)
    monkeypatch.setattr("ndp_rt.engines.worker.write_stages", write_fake_stages)
    toy_device.install_check(monkeypatch)
    return fake_tensorrt.install(monkeypatch, "10.13.3.9")


def test_tensorrt_engines_are_built_with_every_option_and_described(
    bundle_path: Path, tmp_path: Path, tensorrt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build-engine", str(bundle_path), "--backend", "tensorrt", "--precision", "fp16", "--batch", "1,8"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "cache miss" in printed and "tensorrt 10.13.3.9, fp16, plan staged" in printed
    assert "for Toy H200, compute capability 9.0, driver 550.54\n" in printed
    assert "deconvolution" in printed and "f16" in printed and "how it was built: build.log" in printed
    assert "golden vectors, batch 8: 2 agree" in printed
    assert [build["profiles"][0]["image"][0][0] for build in tensorrt.knobs.builds] == [1, 1, 8, 8]
    assert tensorrt.knobs.cache_hits > 0  # the timing cache of the first build served the others
    assert [path.name for path in (tmp_path / "engines").glob("timing*")] == [
        "timing-tensorrt-10.13.3.9-Toy-H200.cache"
    ]
    assert main(command) == 0 and "cache hit" in capsys.readouterr().out
    assert main(["doctor", str(bundle_path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "tensorrt fp16 staged" in told and "built for batch 1, 8" in told and "10.13.3.9 on Toy H200" in told
    command += ["--plan", "fused", "--workspace", "2GiB", "--version-compatible", "--hardware-compatible"]
    assert main([*command, "--timing-cache", str(tmp_path / "t")]) == 0
    assert "driver 550.54; version-compatible, hardware-compatible, workspace=2147483648" in capsys.readouterr().out
    last = tensorrt.knobs.builds[-1]
    assert last["limits"] == {"WORKSPACE": 2**31} and last["level"] == "AMPERE_PLUS" and (tmp_path / "t").is_file()


def test_tensorrt_engines_are_built_from_stages_made_elsewhere(
    bundle_path: Path, tmp_path: Path, tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fake_stages(open_bundle(bundle_path), "fp16", tmp_path / "stages")
    monkeypatch.setattr("ndp_rt.engines.worker.write_stages", None)
    command = ["build-engine", str(bundle_path), "--backend", "tensorrt", "--precision", "fp16", "--strip"]
    assert main([*command, "--onnx-stages", str(tmp_path / "stages")]) == 0
    assert tensorrt.knobs.builds[0]["flags"] == {"STRIP_PLAN", "REFIT_IDENTICAL"}


def test_fp16_that_turns_out_fp32_is_a_failure(
    bundle_path: Path, tmp_path: Path, tensorrt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorrt.knobs.retypes = {"HALF": "FLOAT"}
    assert main(["build-engine", str(bundle_path), "--backend", "tensorrt", "--precision", "fp16"]) == 1
    assert "changed the types" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]
