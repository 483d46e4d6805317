"""`ndp-rt capi` and `ndp-rt capi build`: flags, paths, and what is wrong."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from ndp_rt import read_image
from ndp_rt.capi.build import BRIDGE_NAME, FOLDER, INCLUDE, LIBRARY_NAME, SONAME, check_tools
from ndp_rt.capi.installed import DATA, DEMO, DEMO_IMAGES, EXAMPLES, find_problem
from ndp_rt.cli import main
from ndp_rt.errors import MissingExtraError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package's, with a library, in a path with a space."""
    folder = tmp_path / "ca pi"
    folder.mkdir()
    (folder / LIBRARY_NAME).write_bytes(b"\0" + BRIDGE_NAME.encode() + b"\0")
    for name in (BRIDGE_NAME, SONAME):
        (folder / name).touch()
    for module in ("build", "installed"):
        monkeypatch.setattr(f"ndp_rt.capi.{module}.FOLDER", folder)
    return folder


def test_flags_are_one_line_that_a_shell_reads_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_flags, link_flags = [f"-I{INCLUDE}"], [f"-L{folder}", "-lndp_rt", f"-Wl,-rpath,{folder}"]
    for options, expected in {
        ("--cflags",): compile_flags,
        ("--libs",): link_flags,
        ("--libs", "--cflags"): compile_flags + link_flags,
    }.items():
        assert main(["capi", *options]) == 0
        [line] = capsys.readouterr().out.splitlines()
        assert shlex.split(line) == expected


@pytest.mark.parametrize(
    ("option", "holds"),
    [
        ("--include-dir", "ndp_rt.h"),
        ("--pkgconfig-dir", "ndp_rt.pc"),
        ("--cmake-dir", "ndp_rtConfig.cmake"),
        ("--examples", "csharp/inspect.csproj"),
        ("--demo", "manifest.json"),
        ("--demo-images", "defect.ppm"),
    ],
)
def test_folders_hold_what_they_are_asked_for(capsys: pytest.CaptureFixture[str], option: str, holds: str) -> None:
    assert main(["capi", option]) == 0
    found = Path(capsys.readouterr().out.removesuffix("\n"))
    assert found.is_absolute() and (found / holds).is_file()


def test_several_paths_are_a_line_each_after_the_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capi", "--library", "--include-dir", "--cflags"]) == 0
    lines = [shlex.join([f"-I{INCLUDE}"]), str(INCLUDE), str(folder / LIBRARY_NAME)]
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("option", ["--libs", "--library"])
def test_what_is_not_built_is_one_error_that_names_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (folder / LIBRARY_NAME).unlink()
    assert main(["capi", "--cflags", option]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ndp-rt: error: libndp_rt.so is not built. Run: ndp-rt capi build")
    assert captured.err.count("\n") == 1
    assert main(["capi", "--cflags", "--include-dir", "--pkgconfig-dir", "--cmake-dir"]) == 0


def test_without_options_tells_where_things_are(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["capi"]) == 0
    text = capsys.readouterr().out
    assert f"{folder / LIBRARY_NAME}\n" in text and "built for Python 3." in text
    assert str(INCLUDE / "ndp_rt.h") in text and "$(ndp-rt capi --cflags --libs)" in text
    (folder / LIBRARY_NAME).unlink()
    monkeypatch.setenv("CC", "/nonexistent/cc")
    assert main(["capi"]) == 0
    text = capsys.readouterr().out
    assert "libndp_rt.so is not built. Run: ndp-rt capi build; before that: there is no C compiler" in text


@pytest.mark.nightly
def test_build_writes_to_a_folder_and_says_what_to_build_programs_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        check_tools()
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")
    out = tmp_path / "new" / "folder"
    assert main(["capi", "build", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert find_problem(out) is None
    assert f"Wrote {out / LIBRARY_NAME}, for Python 3." in text and f"-L{out} -lndp_rt -Wl,-rpath,{out}\n" in text


def test_build_names_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    assert main(["capi", "build"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "ndp-rt: error: there is no C compiler '/nonexistent/cc'" in captured.err


def test_build_without_options_writes_into_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def record(folder: Path) -> Path:
        asked.append(folder)
        return folder / LIBRARY_NAME

    monkeypatch.setattr("ndp_rt.capi.build.build_library", record)
    assert main(["capi", "build"]) == 0
    assert asked == [FOLDER]


@pytest.mark.parametrize("name", ["good", "defect"])
def test_the_photographs_for_c_are_the_demos_first_in_its_colours(name: str) -> None:
    kind = "good" if name == "good" else "impurity"
    shown = sorted((DATA / "demo" / "test" / kind).iterdir())[0]
    assert np.array_equal(read_image(DEMO_IMAGES / f"{name}.ppm"), read_image(shown))


def test_where_everything_lies_includes_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capi"]) == 0
    text = capsys.readouterr().out
    assert f"demo        {DEMO}\n" in text and f"examples    {EXAMPLES}: " in text
