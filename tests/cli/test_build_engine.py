"""`ndp-rt build-engine`: what it prints and how it ends."""

from pathlib import Path

import pytest

from ndp_rt.cli import main
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
        (["--backend", "onnxruntime", "--precision", "bf16"], "onnxruntime takes fp32"),
        (["--precision", "int8"], "openvino takes fp32 or bf16"),
    ],
)
def test_what_cannot_be_built_is_one_line_and_exit_1(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    import re

    assert main(["build-engine", str(bundle_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ndp-rt: error: ") and len(error.strip().splitlines()) == 1
    assert re.search(words, error)


def test_a_missing_bundle_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build-engine", str(tmp_path / "none.ndp")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--batch", "0"], ["--batch", "a"], ["--threads", "0"], ["--backend", "x"]])
def test_wrong_usage_is_exit_2(bundle_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["build-engine", str(bundle_path), *arguments])
    assert exit_info.value.code == 2
