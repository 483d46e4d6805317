"""Reading kernel sources: our own headers go into the text, once, and the digest sees them."""

from pathlib import Path

import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.flags import make_options
from ndp_rt.kernels.source import FOLDER, read_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "k.cu").write_text('#include <mma.h>\n# include "a.cuh"\n#include "b.cuh"  // twice\nint k;\n')
    (tmp_path / "a.cuh").write_text('#include "b.cuh"\nint a;\n')
    (tmp_path / "b.cuh").write_text("int b;\n")
    return tmp_path


def test_own_headers_are_put_in_once_and_lines_keep_their_numbers(folder: Path) -> None:
    assert read_source("k.cu", folder).text.splitlines() == [
        '#line 1 "k.cu"',
        "#include <mma.h>",
        '#line 1 "a.cuh"',
        '#line 1 "b.cuh"',
        "int b;",
        '#line 2 "a.cuh"',
        "int a;",
        '#line 3 "k.cu"',
        "",
        "int k;",
    ]


def test_a_header_is_looked_for_beside_its_file_and_then_from_the_root(folder: Path) -> None:
    (folder / "op").mkdir()
    (folder / "op" / "k.cu").write_text('#include "own.cuh"\n#include "b.cuh"\nint k;\n')
    (folder / "op" / "own.cuh").write_text("int own;\n")
    assert read_source("op/k.cu", folder).text.splitlines()[:4] == [
        '#line 1 "op/k.cu"',
        '#line 1 "op/own.cuh"',
        "int own;",
        '#line 2 "op/k.cu"',
    ]


def test_a_source_of_another_package_includes_ours(tmp_path: Path) -> None:
    (tmp_path / "theirs.cu").write_text('#include "shared/warp.cuh"\nint theirs;\n')
    text = read_source(str(tmp_path / "theirs.cu")).text
    assert text.startswith('#line 1 "theirs.cu"\n#line 1 "shared/warp.cuh"\n') and text.endswith("int theirs;\n")
    assert "warp_sum" in text


def test_the_digest_changes_with_a_header(folder: Path) -> None:
    before = read_source("k.cu", folder)
    assert read_source("k.cu", folder).sha256 == before.sha256
    (folder / "b.cuh").write_text("int c;\n")
    after = read_source("k.cu", folder)
    assert after.sha256 != before.sha256
    assert make_options({}, after.sha256) != make_options({}, before.sha256)


def test_a_missing_file_or_header_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"expected the kernel file 'x.cu' in .*; it is not there"):
        read_source("x.cu", folder)
    (folder / "b.cuh").unlink()
    with pytest.raises(InputError, match=r"expected the kernel file 'b.cuh'"):
        read_source("k.cu", folder)


def test_no_own_header_is_included_under_a_condition() -> None:
    for path in FOLDER.rglob("*.cu*"):
        depth = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            word = line.replace(" ", "")
            depth += word.startswith("#if") - word.startswith("#endif")
            assert not (depth and word.startswith('#include"')), f"{path.name}: {line}"


def test_options_are_sorted_and_say_what_cupy_adds() -> None:
    assert make_options({"B": 2, "A": 1}, "0f") == (
        "-std=c++17",
        "-ftz=true",
        "-DA=1",
        "-DB=2",
        "-DNDP_RT_SOURCE_SHA256=0f",
    )
