"""How `make gpu-check` runs tests and compute-sanitizer, with stand-ins that end as those do."""

import sys
from pathlib import Path

import pytest

from ndp_rt.bench import gpu_check, gpu_tests


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compute-sanitizer that finds an error with racecheck alone and writes down how it was called."""
    script = tmp_path / "compute-sanitizer"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "========= ERROR SUMMARY: 0 errors"\n[ "$2" != racecheck ]\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "calls"


def test_every_tool_runs_the_kernels_tests_and_an_error_is_a_failure(sanitizer: Path) -> None:
    found = gpu_tests.run_sanitizer(("memcheck", "racecheck"))
    assert [gpu_tests.has_failed(found[tool]) for tool in ("memcheck", "racecheck")] == [False, True]
    assert "ERROR SUMMARY: 0 errors" in found["memcheck"]["outcome"]
    first, second = sanitizer.read_text().splitlines()
    assert first == f"--tool memcheck --error-exitcode 1 {sys.executable} -m pytest -m gpu tests/kernels"
    assert second.startswith("--tool racecheck")


def test_a_tool_that_is_not_installed_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gpu_tests.run_sanitizer(("memcheck",))
    assert found == {"memcheck": {"left_out": "compute-sanitizer is not installed"}}
    assert not gpu_tests.has_failed(found["memcheck"])


def test_no_tests_is_no_failure_and_a_failed_one_is() -> None:
    assert not gpu_tests.has_failed(gpu_tests.run([sys.executable, "-c", "raise SystemExit(5)"]))
    assert gpu_tests.has_failed(gpu_tests.run([sys.executable, "-c", "print('1 failed'); raise SystemExit(1)"]))
    assert gpu_tests.run([sys.executable, "-c", "print('x'); print('3 passed in 1 s')"])["outcome"] == "3 passed in 1 s"


def test_unknown_tools_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_check.parse_arguments(["--sanitize", "lint"])
    assert "memcheck" in capsys.readouterr().err
    assert gpu_check.parse_arguments(["--sanitize", "memcheck,racecheck"]).sanitize == ("memcheck", "racecheck")
