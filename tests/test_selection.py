"""Which tests `make test` takes, and that `make test-all` takes every one."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.selection import PARTS, cover, list_rooms, order_rooms

ROOT = Path(__file__).parent.parent
CASES = """
import pytest

@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2)])
def test_product(size, low, high): ...

@pytest.mark.parametrize("word", ["a", pytest.param("b", marks=pytest.mark.nightly)])
def test_words(word): ...

@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("digit", range(9))
def test_digits(digit): ...

def test_one(): ...

@pytest.mark.nightly
def test_slow(): ...
"""


LIST_PARTS = """
import sys
import pytest
options = ["-p", "tests.conftest", "-c", "pyproject.toml", f"--rootdir={sys.argv[1]}", "--co", sys.argv[1]]
for part in sys.argv[2:]:
    print("PART", part)
    pytest.main([*options, "--part", part])
"""


def list_parts(folder: Path) -> dict[str, list[str]]:
    """Return the tests of CASES that a run takes, by its part."""
    (folder / "test_cases.py").write_text(CASES)
    command = [sys.executable, "-c", LIST_PARTS, str(folder), *PARTS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    sections = [section.splitlines() for section in done.stdout.split("PART ")[1:]]
    return {part: [line.split("::")[1] for line in lines if "::" in line] for part, *lines in sections}


def test_every_value_is_covered_by_as_few_cases_as_the_longest_list() -> None:
    cases = [dict(zip("abc", values, strict=True)) for values in product(range(10), range(2), range(5))]
    chosen = [cases[index] for index in cover(cases)]
    assert {pair for case in chosen for pair in case.items()} == {pair for case in cases for pair in case.items()}
    assert len(chosen) == 10
    assert [sum(case["b"] == value for case in chosen) for value in (0, 1)] == [5, 5]


@pytest.mark.parametrize("count", [1, 3])
def test_a_test_without_parameters_is_kept_and_so_is_a_single_list(count: int) -> None:
    assert cover([{}] * count) == list(range(count))
    assert cover([{"a": n} for n in range(count)]) == list(range(count))


def test_quick_and_rest_are_all(tmp_path: Path) -> None:
    whole, quick, rest = list_parts(tmp_path).values()
    assert sorted(quick + rest) == sorted(whole) and len(whole) == 19
    assert len([name for name in quick if name.startswith("test_product")]) == 3
    assert [name for name in quick if "product" not in name] == [
        *("test_words[a]", "test_digits[0]", "test_digits[8]", "test_one")
    ]


def test_rooms_of_changed_files_come_first_and_the_others_by_turns() -> None:
    rooms = ["bench", "capi", "interpreter", "kernels", "test_docs.py", "test_inspector.py"]
    changed = ["kernels/smooth/launch.py", "ndp_rt/inspector.py", "docs/speed.md"]
    assert order_rooms(changed, rooms, 1) == [*rooms[2:], "capi", "bench"]
    assert order_rooms([], rooms, 8) == rooms[2:] + rooms[:2]
    assert {"bench", "capi", "kernels", "test_selection.py"} <= set(list_rooms())
