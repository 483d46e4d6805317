"""What `ndp-rt export-triton` writes, and what it refuses; tests/nightly/test_triton.py has it served."""

from pathlib import Path

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.cli import main


def test_a_repository_holds_bundles_configurations_and_models(bundle_path: Path, tmp_path: Path) -> None:
    words = [f"tiny={bundle_path}", f"tiny:3={bundle_path}", "-o", str(tmp_path / "all"), "--precision", "bf16"]
    options = ["--timeout-ms", "40", "--queue", "5", "--instances", "2", "--environment", 'C:\\a "b"', "--threads", "1"]
    assert main(["export-triton", *words, *options]) == 0
    folder = tmp_path / "all" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "3", "config.pbtxt"]
    for version in ("1", "3"):
        assert open_bundle(folder / version / "bundle.ndp").fingerprint == open_bundle(bundle_path).fingerprint
        compile((folder / version / "model.py").read_text(), "model.py", "exec")
    text = (folder / "config.pbtxt").read_text()
    for line in (
        'parameters { key: "precision" value { string_value: "bf16" } }',
        'parameters { key: "threads" value { string_value: "1" } }',
        'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "C:\\\\a \\"b\\"" } }',
        "instance_group [ { count: 2 kind: KIND_CPU } ]",
        "max_queue_size: 5 timeout_action: REJECT allow_timeout_override: true default_timeout_microseconds: 40000",
    ):
        assert line in text


def test_on_gpus_every_gpu_has_instances(bundle_path: Path, tmp_path: Path) -> None:
    assert main(["export-triton", str(bundle_path), "-o", str(tmp_path / "all"), "--device", "cuda"]) == 0
    assert "count: 1 kind: KIND_GPU" in (tmp_path / "all/tiny/config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing.ndp"], "missing.ndp"),
        (["a b={path}"], "expected names of letters"),
        (["tiny:x={path}"], "versions from 1 on"),
        (["tiny:0={path}"], "versions from 1 on"),
        (["tiny:1={path}", "tiny:01={path}"], "each name and version once"),
        (["{path}", "--instances", "0"], "instance_count: expected a number from 1 on"),
        (["{path}", "--delay-us", "-1"], "delay_us"),
        (["{path}", "--device", "cuda:1"], "expected cpu or cuda"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    bundle_path: Path, tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(path=bundle_path) for word in words]
    assert main(["export-triton", *given, "-o", str(tmp_path / "all")]) == 1
    assert sentence in capsys.readouterr().err and not (tmp_path / "all").exists()


def test_a_model_that_is_there_is_kept(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-triton", str(bundle_path), "-o", str(tmp_path)]) == 0
    before = (tmp_path / "tiny/config.pbtxt").read_bytes()
    assert main(["export-triton", str(bundle_path), "-o", str(tmp_path), "--queue", "7"]) == 1
    assert "expected no model of that name" in capsys.readouterr().err
    assert (tmp_path / "tiny/config.pbtxt").read_bytes() == before
