"""The dispatcher: usage, exit codes, and what it imports."""

import argparse
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import ndp_rt
from ndp_rt import cli
from ndp_rt.cli.demo_page import BUNDLE
from ndp_rt.errors import BundleError
from tests.bricks import BRICK_IMAGES, BRICKS

NOT_IN_THE_BASE = ("jinja2", "matplotlib", "onnx", "onnxruntime", "pyarrow", "rich", "scipy", "sklearn", "torch")
HEAVY = ("numpy", "cv2", "openvino", "onnxruntime", "onnx", "torch", "pyarrow", "rich", "matplotlib", "safetensors")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_help_imports_nothing_heavy(command: str | None) -> None:
    arguments = ["--help"] if command is None else [command, "--help"]
    code = f"""
import sys
from ndp_rt.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "usage: ndp-rt" in done.stdout
    assert "HEAVY []" in done.stderr, done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"ndp-rt {ndp_rt.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["guess"], ["inspect"], ["doctor", "--guess"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: ndp-rt" in capsys.readouterr().err


def make_command(run: Callable[[argparse.Namespace], int]) -> SimpleNamespace:
    return SimpleNamespace(add_arguments=lambda parser: None, run=run)


def test_our_errors_are_one_line_and_end_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise BundleError("x.ndp: is damaged. Export it again.")

    monkeypatch.setattr(cli, "load_command", lambda name: make_command(fail))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "ndp-rt: error: x.ndp: is damaged. Export it again.\n"


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise MemoryError("Unable to allocate 3.00 GiB")

    monkeypatch.setattr(cli, "load_command", lambda name: make_command(fail))
    assert cli.main(["doctor"]) == 1
    assert "not enough memory (Unable to allocate 3.00 GiB)" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: argparse.Namespace) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/secret/x")

    monkeypatch.setattr(cli, "load_command", lambda name: make_command(refuse))
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("ndp-rt: error: /secret/x: Permission denied. Check")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ndp_rt.cli", "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("ndp-rt: error: No space left on device.") and done.stderr.count("\n") == 1


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_command", lambda name: make_command(interrupt))
    assert cli.main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = """
import sys, types
from ndp_rt import cli
import ndp_rt.cli.demo_page
def talk(args):
    for _ in range(100000):
        print("a line that nobody reads")
    return 0
cli.load_command = lambda name: types.SimpleNamespace(add_arguments=lambda parser: None, run=talk)
sys.exit(cli.main(["doctor"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as talker:
        assert talker.stdout is not None and talker.stderr is not None
        talker.stdout.readline()
        talker.stdout.close()
        complaints = talker.stderr.read()
    assert talker.returncode == 0 and complaints == ""


def test_importing_the_package_needs_nothing() -> None:
    code = f"import sys, ndp_rt; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(code).stdout == "[]\n"


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize(
    "arguments",
    [
        ["build-engine", str(BUNDLE)],
        ["demo", "-o", "out"],
        ["doctor"],
        ["inspect", str(BRICKS), str(BRICK_IMAGES / "good_000.png"), "-o", "results", "--overlays"],
        ["set-reference", "copy.ndp", str(BRICK_IMAGES / "good_001.png")],
        ["set-threshold", "copy.ndp", "0.5"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_base_installation_runs_what_needs_no_extra(arguments: list[str], tmp_path: Path) -> None:
    shutil.copytree(BRICKS, tmp_path / "copy.ndp")
    code = f"import sys; sys.modules.update(dict.fromkeys({NOT_IN_THE_BASE!r})); from ndp_rt.cli import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + f"sys.exit(main({arguments!r}))"],
        cwd=tmp_path,
        env={**os.environ, "NDP_RT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["evaluate", "tiles.ndp", "data"], "rich", "evaluate"),
        (["bench", "tiles.ndp"], "rich", "bench"),
        (["export-stages", str(BUNDLE), "-o", "stages"], "onnx", "graphs"),
        (["build-engine", str(BUNDLE), "--precision", "int8"], "rich", "evaluate"),
    ],
)
def test_a_package_that_is_missing_is_one_line_with_the_extra_that_brings_it(
    arguments: list[str],
    package: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"needs the package {package}" in said and f"'ndp-rt[{extra}]'" in said
