"""The library's two names: libndp_rt.so, and the soname with the ABI's number that linked programs ask for."""

import re
import sys
from pathlib import Path

import pytest

from ndp_rt.capi.build import LIBRARY_NAME, SONAME, read_header
from tests.capi.binaries import read_dynamic
from tests.capi.programs import compile_host, link_host, run_program

COMPARE = """
import ctypes, sys
loaded = [ctypes.CDLL(path) for path in sys.argv[1:]]
print(len({ctypes.cast(one.ndp_rt_last_error, ctypes.c_void_p).value for one in loaded}))
"""


@pytest.fixture(scope="module")
def linked(library_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of hosts/names.c, linked as --libs says."""
    return link_host(library_path, ["names.c"], tmp_path_factory.mktemp("linked") / "names")


def test_the_soname_has_the_abis_major_number(library_path: Path) -> None:
    [major] = re.findall(r"#define NDP_RT_ABI_MAJOR +(\d+)", read_header())
    assert f"{LIBRARY_NAME}.{major}" == SONAME
    assert read_dynamic(library_path, "SONAME") == read_dynamic(library_path.with_name(SONAME), "SONAME") == [SONAME]


def test_a_linked_program_asks_for_the_soname_and_runs(linked: Path) -> None:
    assert [name for name in read_dynamic(linked, "NEEDED") if "ndp_rt" in name] == [SONAME]
    assert run_program([linked]) == []


def test_a_linked_program_that_loads_it_by_other_names_has_one_library(linked: Path, library_path: Path) -> None:
    by_path = [library_path, library_path.with_name(SONAME)]
    assert run_program([linked, *by_path, SONAME]) == ["same"] * 3
    by_name = {"LD_LIBRARY_PATH": str(library_path.parent)}
    assert run_program([linked, LIBRARY_NAME, SONAME], by_name) == ["same"] * 2


def test_both_names_are_one_library_in_either_order(library_path: Path) -> None:
    names = [LIBRARY_NAME, SONAME]
    paths = [str(library_path.with_name(name)) for name in names]
    environment = {"LD_LIBRARY_PATH": str(library_path.parent)}
    for order in (names, names[::-1], paths, paths[::-1], [paths[0], names[1]], [names[1], paths[0]]):
        assert run_program([sys.executable, "-c", COMPARE, *order], environment) == ["1"], order


def test_a_program_that_was_linked_before_the_soname_had_a_number_runs(library_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "former.c"
    source.write_text("int ndp_rt_abi_version(void);\nint ndp_rt_abi_version(void) { return 0; }\n")
    former = compile_host([str(source)], tmp_path / LIBRARY_NAME, "-fPIC", "-shared", f"-Wl,-soname,{LIBRARY_NAME}")
    program = compile_host(["names.c"], tmp_path / "names", str(former), f"-Wl,-rpath,{library_path.parent}")
    former.unlink()
    assert LIBRARY_NAME in read_dynamic(program, "NEEDED")
    assert run_program([program, library_path.with_name(SONAME)]) == ["same"]


def test_a_link_of_that_name_beside_a_program_is_enough(library_path: Path, tmp_path: Path) -> None:
    flags = (f"-L{library_path.parent}", "-lndp_rt", "-Wl,-rpath,$ORIGIN")
    program = compile_host(["names.c"], tmp_path / "names", *flags)
    run_program([program], exit_code=127)
    (tmp_path / SONAME).symlink_to(library_path)
    assert run_program([program]) == []
