"""What an installation has for C programs: they build with one line, and run with the interpreter they came with."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import ndp_rt
from ndp_rt.capi.build import BRIDGE_NAME, FOLDER, HEADER, LIBRARY_NAME, PYTHON_VERSION, SONAME, check_tools
from ndp_rt.capi.installed import CMAKE, PKGCONFIG, find_problem, list_link_flags
from ndp_rt.errors import MissingExtraError
from tests.bricks import BRICKS
from tests.build_packages import build, copy_checkout, install, make_environment, run

# Names the interpreter that the library has chosen.
DESCRIBE = """
#include <ndp_rt.h>
#include <stdio.h>

int main(void)
{
    char text[4096];

    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version()))
        return 2;
    if (ndp_rt_runtime_describe(text, sizeof text, NULL) != NDP_RT_STATUS_OK) {
        fprintf(stderr, "%s\\n", ndp_rt_last_error());
        return 1;
    }
    puts(text);
    return 0;
}
"""
CMAKE_LISTS = """
cmake_minimum_required(VERSION 3.16)
project(first LANGUAGES {languages})
find_package(ndp_rt {wanted} REQUIRED)
message(STATUS "ndp_rt is ${{ndp_rt_VERSION}}")
"""
PROGRAMS = """
foreach(language c cpp)
  add_executable(in_${language} describe.${language})
  target_link_libraries(in_${language} PRIVATE ndp_rt::ndp_rt)
  install(TARGETS in_${language} DESTINATION bin)
endforeach()
"""


def need(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}: sudo apt install {package}")


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two environments with the same wheel, the second in a path with a space."""
    need("cc", "gcc")
    try:
        check_tools()
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")
    folder = tmp_path_factory.mktemp("installed")
    wheel, said = build(copy_checkout(folder / "checkout"), folder / "wheel", "wheel")
    assert "-none-any" not in wheel.name, said
    made = make_environment(folder / "one"), make_environment(folder / "an other")
    for environment in made:
        install(environment, str(wheel), cwd=folder)
    shutil.rmtree(folder / "checkout")
    return made


@pytest.fixture
def describe_c(tmp_path: Path) -> Path:
    source = tmp_path / "describe.c"
    source.write_text(DESCRIBE, encoding="utf-8")
    return source


def run_shell(line: str, environment: Path, cwd: Path, **variables: str) -> str:
    """Run a line as a user does who has activated the environment; it has to succeed."""
    path = f"{environment / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return run(["sh", "-c", line], cwd=cwd, PATH=path, **variables).stdout


def find_interpreter(program: Path) -> str:
    """Return the interpreter that a program of DESCRIBE has found, with nothing in its environment."""
    found = run(["env", "-i", str(program)], cwd=program.parent).stdout
    assert f"ndp-rt {ndp_rt.__version__}\n" in found
    [path] = re.findall(r"^python \S+ (.*)$", found, re.MULTILINE)
    return str(path)


@pytest.mark.nightly
def test_the_headers_example_builds_as_it_says_and_runs(environments: tuple[Path, Path], tmp_path: Path) -> None:
    opening = HEADER.read_text(encoding="utf-8").partition("*/")[0]
    [command] = re.findall(r"build it with  (cc .*)$", opening, re.MULTILINE)
    source = opening.partition(command)[2].partition("WHAT HOLDS")[0]
    (tmp_path / "first.c").write_text(source, encoding="utf-8")
    (tmp_path / "tiles.ndp").symlink_to(BRICKS)
    said = run_shell(f"{command} -Wall -Wextra -Werror", environments[0], tmp_path)
    assert said == ""
    found = run([str(tmp_path / "first")], cwd=tmp_path, NDP_RT_CACHE=str(tmp_path / "cache")).stdout
    assert re.fullmatch(r"score [01]\.\d{3}: (defect|good)\n", found)


@pytest.mark.nightly
def test_one_wheel_works_in_every_environment_of_its_python(
    environments: tuple[Path, Path], tmp_path: Path, describe_c: Path
) -> None:
    for index, environment in enumerate(environments):
        line = f'eval "cc {describe_c} $(ndp-rt capi --cflags --libs) -o {index}"'  # quoted, for the path has a space
        run_shell(line, environment, tmp_path)
        assert find_interpreter(tmp_path / str(index)) == str(environment / "bin" / f"python{PYTHON_VERSION}")


@pytest.mark.nightly
def test_pkg_config_builds_programs(environments: tuple[Path, Path], tmp_path: Path, describe_c: Path) -> None:
    need("pkg-config", "pkg-config")
    export = 'export PKG_CONFIG_PATH="$(ndp-rt capi --pkgconfig-dir)"; '
    for index, environment in enumerate(environments):
        line = f'eval "cc {describe_c} $(pkg-config --cflags --libs ndp_rt) -o {index}"'
        run_shell(export + line, environment, tmp_path)
        assert find_interpreter(tmp_path / str(index)).startswith(str(environment))
    version = run_shell(f"{export} pkg-config --modversion ndp_rt", environments[0], tmp_path)
    assert version == f"{ndp_rt.__version__}\n"


def configure(folder: Path, capi: Path, variable: str, *, wanted: str = "", languages: str = "NONE") -> str:
    """Configure a CMake project that finds the package in `capi` through `variable`; return what CMake said."""
    lists = CMAKE_LISTS.format(languages=languages, wanted=wanted) + (PROGRAMS if languages != "NONE" else "")
    (folder / "CMakeLists.txt").write_text(lists, encoding="utf-8")
    command = ["cmake", "-S", str(folder), "-B", str(folder / "build"), f"-D{variable}={capi / 'cmake'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ("Configuring done" in done.stdout) is (done.returncode == 0)
    return done.stdout + done.stderr


def find_capi(environment: Path) -> Path:
    [capi] = environment.glob("lib/python*/site-packages/ndp_rt/capi")
    return capi


@pytest.mark.nightly
@pytest.mark.parametrize(("index", "variable"), [(0, "ndp_rt_DIR"), (1, "CMAKE_PREFIX_PATH")])
def test_cmake_builds_programs_in_c_and_cpp(
    environments: tuple[Path, Path], tmp_path: Path, describe_c: Path, index: int, variable: str
) -> None:
    need("cmake", "cmake")
    need("c++", "g++")
    environment = environments[index]
    shutil.copy(describe_c, tmp_path / "describe.cpp")
    said = configure(tmp_path, find_capi(environment), variable, languages="C CXX", wanted=ndp_rt.__version__)
    assert f"ndp_rt is {ndp_rt.__version__}" in said, said
    run(["cmake", "--build", str(tmp_path / "build")], cwd=tmp_path)
    run(["cmake", "--install", str(tmp_path / "build"), "--prefix", str(tmp_path / "installed")], cwd=tmp_path)
    for name in ("in_c", "in_cpp"):
        assert find_interpreter(tmp_path / "build" / name).startswith(str(environment))
        assert find_interpreter(tmp_path / "installed" / "bin" / name).startswith(str(environment))


@pytest.mark.nightly
def test_the_examples_of_an_installation_build_and_run(environments: tuple[Path, Path], tmp_path: Path) -> None:
    need("cmake", "cmake")
    need("c++", "g++")
    flag = '-Dndp_rt_DIR="$(ndp-rt capi --cmake-dir)"'
    for line in (f'cmake -S "$(ndp-rt capi --examples)" -B build {flag}', "cmake --build build"):
        run_shell(line, environments[1], tmp_path)
    inspect = 'build/inspect_c "$(ndp-rt capi --demo)" "$(ndp-rt capi --demo-images)"/good.ppm'
    assert ": good" in run_shell(inspect, environments[1], tmp_path, NDP_RT_CACHE=str(tmp_path / "cache"))


@pytest.fixture
def version_1_4_2(tmp_path: Path) -> Path:
    """A folder with the files for builds, of another version, and without the library."""
    for folder in (CMAKE, PKGCONFIG):
        shutil.copytree(folder, tmp_path / "capi" / folder.name)
    (tmp_path / "__init__.py").write_text('"""A package."""\n\n__version__ = "1.4.2"  # a comment\n', encoding="utf-8")
    return tmp_path / "capi"


@pytest.mark.parametrize(
    ("wanted", "is_met"),
    [
        ("1.4", True),
        ("1", True),
        ("1.4.2 EXACT", True),
        ("1.4 EXACT", False),
        ("1.5", False),
        ("2", False),
        ("0.9", False),
        ("1.0...<1.5", True),
        ("0.1...1.4.2", True),
        ("1.0...<1.4.2", False),
        ("1.5...2.0", False),
    ],
)
def test_cmake_finds_versions_that_are_met(tmp_path: Path, version_1_4_2: Path, wanted: str, is_met: bool) -> None:
    need("cmake", "cmake")
    for name in (LIBRARY_NAME, SONAME):
        (version_1_4_2 / name).touch()
    said = configure(tmp_path, version_1_4_2, "ndp_rt_DIR", wanted=wanted)
    assert ("Configuring done" in said) is is_met, said
    assert is_met or "version: 1.4.2" in said


def test_cmake_says_how_to_build_what_is_not_built(tmp_path: Path, version_1_4_2: Path) -> None:
    need("cmake", "cmake")
    said = configure(tmp_path, version_1_4_2, "ndp_rt_DIR")
    assert "Configuring done" not in said and "is not built. Run: ndp-rt capi build" in " ".join(said.split())


def test_pkg_config_states_the_version_of_the_package() -> None:
    stated = re.findall(r"^Version: (.*)$", (PKGCONFIG / "ndp_rt.pc").read_text("utf-8"), re.MULTILINE)
    assert stated == [ndp_rt.__version__]


def test_a_library_that_this_python_can_use_has_no_problem(library_path: Path) -> None:
    assert find_problem(library_path.parent) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / LIBRARY_NAME).unlink(), "libndp_rt.so is not built"),
        (lambda folder: (folder / LIBRARY_NAME).write_bytes(b"\x7fELF"), "is not a library of ndp-rt"),
        (lambda folder: (folder / BRIDGE_NAME).unlink(), f"{BRIDGE_NAME} is missing beside"),
        (lambda folder: (folder / SONAME).unlink(), f"{SONAME} is missing beside"),
        (
            lambda folder: (folder / LIBRARY_NAME).write_bytes(b"\0_ndp_rt_bridge.cpython-39-x86_64-linux-gnu.so\0"),
            f"is built for cpython-39-x86_64-linux-gnu, and this is Python {PYTHON_VERSION}",
        ),
    ],
    ids=["no library", "another library", "no bridge", "no soname", "another Python"],
)
def test_says_what_is_wrong_with_a_library(tmp_path: Path, change: Callable[[Path], object], problem: str) -> None:
    (tmp_path / LIBRARY_NAME).write_bytes(b"\0" + BRIDGE_NAME.encode() + b"\0")
    for name in (BRIDGE_NAME, SONAME):
        (tmp_path / name).touch()
    assert find_problem(tmp_path) is None
    change(tmp_path)
    assert problem in str(find_problem(tmp_path))


def test_link_flags_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    flags = list_link_flags(Path("here"))
    assert flags == [f"-L{tmp_path}/here", "-lndp_rt", f"-Wl,-rpath,{tmp_path}/here"]
    assert shlex.join(list_link_flags()).startswith(f"-L{FOLDER} ")
