"""Compiling the C library: what is missing is named, what is there is replaced in one step, and what comes out."""

import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import ndp_rt
from ndp_rt import errors
from ndp_rt.capi.build import (
    BRIDGE_MODULE,
    BRIDGE_NAME,
    LIBRARY_FILES,
    LIBRARY_NAME,
    PYTHON_VERSION,
    SONAME,
    SOURCE,
    build_library,
    check_tools,
    find_shared_python,
    read_declarations,
    read_header,
)
from ndp_rt.errors import EngineError, MissingExtraError, NdpRtError, StorageError
from tests.capi.binaries import read_dynamic, run_tool
from tests.capi.library import Library
from tests.capi.programs import HOSTS, compile_host

TEXT = read_header()
OF_LIBC = re.compile(r"(libc|libdl|libm|libpthread|ld-linux.*)\.so")
FUNCTION = re.compile(r"^NDP_RT_API [^;]*?\b(ndp_rt_\w+)\(", re.MULTILINE)


def read_statuses() -> dict[str, int]:
    """Return the header's statuses without their prefix."""
    return {name: int(value) for name, value in re.findall(r"NDP_RT_STATUS_(\w+) = (\d+)", TEXT)}


def list_exports(path: Path) -> set[str]:
    """Return the names that a shared library defines for others."""
    return {line.split()[-1] for line in run_tool("nm", "-D", "--defined-only", str(path)).splitlines()}


@pytest.mark.parametrize("folder_exists", [True, False])
@pytest.mark.parametrize(
    ("compiler", "kind", "said"),
    [
        ("/nonexistent/cc", MissingExtraError, "there is no C compiler '/nonexistent/cc'.*apt install gcc.*CC"),
        ("no-such-compiler -m64", MissingExtraError, "there is no C compiler 'no-such-compiler'"),
        ("false", EngineError, f"{re.escape(BRIDGE_NAME)} cannot be compiled. false -std=c11"),
    ],
)
def test_a_compiler_that_is_not_there_or_fails_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tools: None,
    compiler: str,
    kind: type[NdpRtError],
    said: str,
    folder_exists: bool,
) -> None:
    folder = tmp_path / "out"
    if folder_exists:
        folder.mkdir()
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(kind, match=said):
        build_library(folder)
    assert folder.exists() is folder_exists and [*tmp_path.rglob("*.so")] == []


@pytest.fixture
def tools() -> None:
    try:
        check_tools()
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")


def test_a_compiler_that_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: None) -> None:
    compiler = tmp_path / "cc"
    compiler.write_bytes(b"\x7fELF of another machine")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(MissingExtraError, match=f"the C compiler '{compiler}' cannot be run"):
        build_library(tmp_path / "out")


def test_what_the_compiler_said_is_in_the_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: None) -> None:
    source = Path(shutil.copytree(SOURCE, tmp_path / "source"))
    with (source / "log.c").open("a", encoding="utf-8") as stream:
        stream.write("\nthis is no C\n")
    monkeypatch.setattr("ndp_rt.capi.build.SOURCE", source)
    with pytest.raises(EngineError, match=r"(?s)libndp_rt.so cannot be compiled.*log\.c:\d+.*error"):
        build_library(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def without_cffi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def without_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/nonexistent/include")


def without_shared_python(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = sysconfig.get_config_var
    static = {"INSTSONAME": f"libpython{PYTHON_VERSION}.a", "LIBDIR": "/nonexistent/lib"}
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: static.get(name, stored(name)))
    monkeypatch.setattr("sys.base_prefix", "/nonexistent")


@pytest.mark.parametrize(
    ("lack", "said"),
    [
        (without_cffi, f"cffi is not installed. Run: {re.escape(sys.executable)} -m pip install cffi"),
        (without_headers, rf"/nonexistent/include/Python.h is missing.*apt install python{PYTHON_VERSION}-dev"),
        (without_shared_python, rf"has no shared library .*apt install libpython{PYTHON_VERSION}-dev.*--enable-shared"),
    ],
)
def test_what_python_lacks_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lack: Callable[[pytest.MonkeyPatch], None], said: str
) -> None:
    monkeypatch.setenv("CC", sys.executable)  # any program that is there
    with monkeypatch.context() as patch:
        lack(patch)
        with pytest.raises(MissingExtraError, match=said):
            build_library(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_static_python_that_ships_its_shared_library_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_shared_python(monkeypatch)
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    (tmp_path / "lib").mkdir()
    shared = tmp_path / "lib" / f"libpython{sysconfig.get_config_var('LDVERSION')}.so.1.0"
    shared.touch()
    assert find_shared_python() == shared


def test_an_older_library_is_replaced_and_stays_with_who_has_it_open(tmp_path: Path, tools: None) -> None:
    for name in (LIBRARY_NAME, SONAME, BRIDGE_NAME):
        (tmp_path / name).write_bytes(b"older")
    with (tmp_path / LIBRARY_NAME).open("rb") as held:
        assert build_library(tmp_path) == tmp_path / LIBRARY_NAME
        assert held.read() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([BRIDGE_NAME, LIBRARY_NAME, SONAME])
    assert all(path.read_bytes().startswith(b"\x7fELF") for path in tmp_path.iterdir())


@pytest.mark.nightly
def test_a_folder_that_cannot_be_written_keeps_the_older_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: None
) -> None:
    (tmp_path / LIBRARY_NAME).write_bytes(b"older")

    def fill(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy", fill)
    with pytest.raises(StorageError, match="cannot be written .No space left on device.*ndp-rt capi build -o DIR"):
        build_library(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LIBRARY_NAME]
    assert (tmp_path / LIBRARY_NAME).read_bytes() == b"older"
    with pytest.raises(StorageError, match="Not a directory"):
        build_library(tmp_path / LIBRARY_NAME / "below")


def test_every_c_file_is_compiled() -> None:
    assert {path.name for path in SOURCE.glob("*.c")} == {*LIBRARY_FILES, "bridge_start.c"}


def test_the_library_exports_the_headers_functions_and_nothing_else(library_path: Path) -> None:
    declared = set(FUNCTION.findall(TEXT))
    assert len(declared) == TEXT.count("\nNDP_RT_API") > 20
    assert list_exports(library_path) == declared


def test_the_bridge_exports_its_start_and_the_module_alone(library_path: Path) -> None:
    exports = list_exports(library_path.with_name(BRIDGE_NAME))
    assert exports == {"ndp_bridge_start", f"PyInit_{BRIDGE_MODULE}"}


def test_the_library_needs_the_c_library_alone_and_the_bridge_python(library_path: Path) -> None:
    assert [name for name in read_dynamic(library_path, "NEEDED") if not OF_LIBC.match(name)] == []
    [python] = (name for name in read_dynamic(library_path.with_name(BRIDGE_NAME), "NEEDED") if not OF_LIBC.match(name))
    assert python.startswith(f"libpython{PYTHON_VERSION}")


def test_version_and_abi_are_the_packages_and_the_headers(library: Library) -> None:
    assert library.ffi.string(library.lib.ndp_rt_version()).decode() == ndp_rt.__version__
    major, minor = (
        int(re.findall(rf"NDP_RT_ABI_{part} +(\d+)$", TEXT, re.MULTILINE)[0]) for part in ("MAJOR", "MINOR")
    )
    assert library.lib.ndp_rt_abi_version() == major << 16 | minor


def test_every_status_of_the_header_has_its_name(library: Library) -> None:
    statuses = read_statuses()
    assert len(set(statuses.values())) == len(statuses) > 15
    for name, value in statuses.items():
        assert library.name(value) == name
        assert library.ffi.string(library.lib.ndp_rt_status_name(value)).decode() == f"NDP_RT_STATUS_{name}"
    assert library.name(-1) == library.name(max(statuses.values()) + 1) == "unknown status"


def test_statuses_below_32_are_those_of_the_error_classes() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, NdpRtError)]
    # MissingExtraError is MISSING: a class's first word; the root, NdpRtError, is ERROR.
    names = {one.status: re.findall("[A-Z][a-z]+", one.__name__)[0].upper() for one in classes}
    assert len(names) == len(classes) and max(names) < 32
    names |= {0: "OK", NdpRtError.status: "ERROR"}
    shared = {value: name for name, value in read_statuses().items() if value < 32}
    assert shared == {value: names.get(value) for value in shared}


def test_every_function_of_the_header_follows_a_comment() -> None:
    commented = re.findall(r"\*/\n((?:NDP_RT_API [^;]*;\n)+)", TEXT)  # one comment may be for a pair
    assert FUNCTION.findall("".join(commented)) == FUNCTION.findall(TEXT)


def test_the_header_reads_as_declarations_alone() -> None:
    declarations = read_declarations(TEXT)
    assert "#" not in declarations and "/*" not in declarations and 'extern "C"' not in declarations
    assert set(FUNCTION.findall(declarations)) == set(FUNCTION.findall(TEXT))


@pytest.mark.parametrize("name", sorted(path.name for path in HOSTS.glob("*.c")))
def test_hosts_compile_with_the_header_as_it_is(name: str, tmp_path: Path) -> None:
    """Some run in nightly tests alone, which a change of the header would break unseen."""
    compile_host([name], tmp_path / "host.o", "-Wno-pedantic", "-fsyntax-only")
