"""What is packaged: the map of setup.py, the links in ndp_rt/, the wheel and the source archive hold the same.

The C library is in the wheel where this machine can compile it, and nothing breaks where it cannot.
"""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from ndp_rt.capi.build import BRIDGE_NAME, LIBRARY_NAME, SONAME, check_tools
from ndp_rt.errors import MissingExtraError
from tests.build_packages import (
    NO_COMPILER,
    ROOT,
    build,
    copy_checkout,
    install,
    list_wheel,
    make_environment,
    run,
    unpack,
)

COMPILED = {f"ndp_rt/capi/{name}" for name in (BRIDGE_NAME, LIBRARY_NAME, SONAME)}
# What of the package is no Python, by folder.
DATA = {
    "ndp_rt": {".typed"},
    "ndp_rt/capi": {".h", ".hpp", ".c", ".pc", ".cmake"},
    "ndp_rt/capi/examples": {".txt", ".cpp", ".cs", ".csproj"},
    "ndp_rt/kernels": {".cu", ".cuh"},
    "ndp_rt/bench/capi": {".cpp", ".hpp"},
    "ndp_rt/bench/models": {".json"},
    "ndp_rt/bench/report": {".html"},
}


def read_map() -> dict[str, str]:
    """Return MAPPED of setup.py, without running it."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAPPED":
            return dict(ast.literal_eval(node.value))
    raise AssertionError("setup.py has no MAPPED")


def list_expected() -> set[str]:
    """Return the files that a wheel without the C library has to hold, by reading the checkout."""
    places = {"ndp_rt": "ndp_rt"} | {package.replace(".", "/"): folder for package, folder in read_map().items()}
    names = {
        f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}"
        for prefix, folder in places.items()
        for path in walk(ROOT / folder)
    }
    expected = {
        name
        for name in names
        if name.endswith(".py")
        or name.startswith("ndp_rt/data/")
        or any(name.startswith(f"{folder}/") and Path(name).suffix in suffixes for folder, suffixes in DATA.items())
    }
    assert {
        "ndp_rt/kernels/shared/warp.cuh",
        "ndp_rt/data/demo.ndp/manifest.json",
        "ndp_rt/data/demo/README.txt",
        "ndp_rt/capi/include/ndp_rt.h",
        "ndp_rt/capi/examples/c/inspect.c",
        "ndp_rt/capi/examples/pnm.h",
        "ndp_rt/capi/source/calls.h",
        "ndp_rt/capi/cmake/ndp_rtConfig.cmake",
        "ndp_rt/capi/pkgconfig/ndp_rt.pc",
    } <= expected
    return expected


def walk(folder: Path) -> list[Path]:
    """Return the files below `folder`, none behind a link."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    inside = [path for path in found if not any(parent.is_symlink() for parent in path.parents if parent != ROOT)]
    return [path for path in inside if "__pycache__" not in path.parts]


def read_wheel_tags(wheel: Path) -> str:
    """Return the file WHEEL of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))).decode()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with its links, in a path with a space."""
    return copy_checkout(tmp_path_factory.mktemp("check out") / "ndp-rt")


@pytest.fixture
def tools() -> None:
    try:
        check_tools()
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")


def test_each_mapped_package_has_a_relative_link_to_its_folder() -> None:
    top, capi = ROOT / "ndp_rt", ROOT / "ndp_rt" / "capi"
    links = {path: path.readlink().as_posix() for path in (*top.iterdir(), *capi.iterdir()) if path.is_symlink()}
    mapped = {ROOT / package.replace(".", "/"): folder for package, folder in read_map().items()}
    assert links == {link: f"{'../' * len(link.relative_to(top).parts)}{mapped[link]}" for link in mapped}


def test_every_folder_with_code_is_a_package() -> None:
    files = [path for folder in ("ndp_rt", "kernels", "export", "bench") for path in walk(ROOT / folder)]
    folders = {path.parent for path in files if path.suffix == ".py"}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_a_wheel_without_a_compiler_holds_exactly_the_packages_and_their_data(checkout: Path, tmp_path: Path) -> None:
    wheel, said = build(checkout, tmp_path / "with", "wheel", **NO_COMPILER)
    found = list_wheel(wheel)
    assert found == list_expected()
    assert {name.split("/")[0] for name in found} == {"ndp_rt"}
    with zipfile.ZipFile(wheel) as archive:
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "ndp-rt = ndp_rt.cli:main" in archive.read(entry_points).decode()
    assert wheel.name.endswith("-py3-none-any.whl") and "Root-Is-Purelib: true" in read_wheel_tags(wheel)
    [line] = (line for line in said.splitlines() if "the C library is not built" in line)
    assert NO_COMPILER["CC"] in line and "'ndp-rt capi build'" in line


@pytest.mark.nightly
def test_a_wheel_with_the_c_library_is_for_this_platform_and_python(
    checkout: Path, tmp_path: Path, tools: None
) -> None:
    earlier = checkout / "build" / "lib" / "ndp_rt" / "capi" / "_ndp_rt_bridge.cpython-39-x86_64-linux-gnu.so"
    earlier.parent.mkdir(parents=True, exist_ok=True)
    earlier.write_bytes(b"what a build for another Python left")
    wheel, said = build(checkout, tmp_path, "wheel")
    assert list_wheel(wheel) == list_expected() | COMPILED, said
    tags = read_wheel_tags(wheel)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert re.search(rf"-{python}-{python}\w*-{platform}\.whl$", wheel.name)
    assert "Root-Is-Purelib: false" in tags and f"Tag: {python}-" in tags


@pytest.mark.nightly
def test_code_that_does_not_compile_breaks_no_build_and_is_said(tmp_path: Path, tools: None) -> None:
    broken = copy_checkout(tmp_path / "broken")
    with (broken / "ndp_rt" / "capi" / "source" / "log.c").open("a", encoding="utf-8") as stream:
        stream.write("\nthis is no C\n")
    wheel, said = build(broken, tmp_path / "wheel", "wheel")
    assert list_wheel(wheel) == list_expected() and wheel.name.endswith("-py3-none-any.whl")
    assert "the C library is not built" in said and "log.c" in said and "error:" in said


@pytest.mark.nightly
def test_wheel_and_archive_are_the_same_without_the_links(checkout: Path, tmp_path: Path) -> None:
    for name in read_map():
        (checkout / name.replace(".", "/")).unlink(missing_ok=True)
    shutil.rmtree(checkout / "build", ignore_errors=True)
    for name in COMPILED:
        (checkout / name).write_bytes(b"what an editable installation compiled")
    assert list_wheel(build(checkout, tmp_path / "without", "wheel", **NO_COMPILER)[0]) == list_expected()
    archive, said = build(checkout, tmp_path / "archive", "sdist")
    assert "build_capi" not in said
    with tarfile.open(archive) as opened:
        assert [name for name in opened.getnames() if ".so" in name] == []
    unpacked = unpack(archive, tmp_path / "unpacked")
    for name in (
        "LICENSE",
        "Makefile",
        ".clang-format",
        "tests/capi/library.py",
        "mkdocs.yml",
        ".github/workflows/test.yml",
    ):
        assert (unpacked / name).is_file(), name
    assert list_wheel(build(unpacked, tmp_path / "again", "wheel", **NO_COMPILER)[0]) == list_expected()


def test_the_installed_wheel_imports_from_an_empty_folder(checkout: Path, tmp_path: Path) -> None:
    wheel, _ = build(checkout, tmp_path / "wheel", "wheel", **NO_COMPILER)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import ndp_rt, ndp_rt.kernels, ndp_rt.export, ndp_rt.bench\n"
        "print(ndp_rt.__file__, ndp_rt.bench.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(tmp_path / "site")) for path in done.stdout.split())


@pytest.mark.nightly
def test_an_editable_installation_compiles_beside_the_sources_or_says_why_not(tmp_path: Path, tools: None) -> None:
    checkout, environment = copy_checkout(tmp_path / "checkout"), make_environment(tmp_path / "environment")
    capi = checkout / "ndp_rt" / "capi"
    said = install(environment, "-e", ".", cwd=checkout, **NO_COMPILER)
    assert "the C library is not built" in said and [*capi.glob("*.so*")] == []
    said = install(environment, "-e", ".", cwd=checkout)
    assert {path.name for path in capi.glob("*.so*")} == {BRIDGE_NAME, LIBRARY_NAME, SONAME}, said
    found = run([str(environment / "bin" / "ndp-rt"), "capi", "--library"], cwd=tmp_path).stdout
    assert found == f"{capi / LIBRARY_NAME}\n"


def test_what_ships_names_no_folder_of_the_machine_that_made_it() -> None:
    for path in (ROOT / "ndp_rt" / "data").rglob("*"):
        if path.suffix in {".json", ".txt", ".md"}:
            found = re.findall(
                r"(?<![\w.:/])/(?:home|root|work|tmp|Users|mnt)/[\w./-]*", path.read_text(encoding="utf-8")
            )
            assert found == [], path.name


def test_the_page_for_packagers_lists_every_package_of_the_base_installation() -> None:
    page = (ROOT / "docs" / "packagers.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([\w-]+) \| (?!licence)[^|]+ \|", page, re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^    "([\w-]+)', project.partition("\ndependencies = [")[2].partition("\n]")[0], re.MULTILINE)
    assert sorted(set(listed) - {"---"}) == sorted(needed) and len(needed) > 5
