"""ndp_rt.hpp: what it promises holds in programs, under every compiler and standard that it names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.capi.build import INCLUDE
from tests.bricks import BRICKS
from tests.capi.cpp import compile_cpp

HOST = Path(__file__).parent / "hosts" / "wrapper.cpp"
HEADER = INCLUDE / "ndp_rt.hpp"
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "cpp" / "inspect.cpp"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"NDP_RT_CACHE": str(tmp_path / "cache"), "NDP_RT_PYTHON": sys.executable}


@pytest.mark.nightly
def test_the_wrapper_does_what_its_comments_say(
    library_path: Path, tmp_path: Path, tiny_bundle: Path, environment: dict[str, str]
) -> None:
    program = compile_cpp(library_path, HOST, tmp_path / "wrapper")
    done = subprocess.run([program, tiny_bundle], capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.nightly
@pytest.mark.parametrize(("compiler", "standard"), [("g++", "c++20"), ("clang++", "c++17"), ("clang++", "c++20")])
def test_the_wrapper_compiles_without_a_warning(
    library_path: Path, tmp_path: Path, compiler: str, standard: str
) -> None:
    flags = ("-fsyntax-only", "-Wshadow", "-Wconversion", "-Wold-style-cast")
    compile_cpp(library_path, HOST, tmp_path / "wrapper", *flags, compiler=compiler, standard=standard)
    compile_cpp(library_path, EXAMPLE, tmp_path / "inspect", "-fsyntax-only", compiler=compiler, standard=standard)


@pytest.mark.nightly
def test_two_sources_of_one_program_may_include_the_wrapper(library_path: Path, tmp_path: Path) -> None:
    other, main = tmp_path / "other.cpp", tmp_path / "main.cpp"
    text = "#include <{}>\n{}\n{{\n    ndp_rt::set_log(nullptr);\n    return ndp_rt::abi_fits() ? 0 : 1;\n}}\n"
    other.write_text(text.format("ndp_rt_types.hpp", "int other()"))
    main.write_text(text.format("ndp_rt.hpp", "int other();\nint main()").replace("? 0", "? other()"))
    program = compile_cpp(library_path, main, tmp_path / "both", str(other))
    assert subprocess.run([program], timeout=300).returncode == 0


def test_the_header_opens_with_a_program_that_runs_and_heeds_a_threshold(
    library_path: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    comment = HEADER.read_text(encoding="utf-8").partition("*/")[0]
    lines = re.findall(r"^ {7}(.*)$|^()$", comment.partition("a whole program:")[2].partition("WHAT HOLDS")[0], re.M)
    source = tmp_path / "first.cpp"
    text, more = "\n".join(code for code, _ in lines), "inspector.set_threshold(1), inspector.inspect(image)"
    source.write_text(text.replace("    } catch", f"    std::cout << ({more}).is_defect;\n    }} catch"))
    (tmp_path / "tiles.ndp").symlink_to(BRICKS)
    program = compile_cpp(library_path, source, tmp_path / "first")
    done = subprocess.run([program], capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"0\.\d+: defect\n0", done.stdout)
