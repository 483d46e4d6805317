"""Which tests a run takes: all, the quick part that `make test` runs, or the rest of `make test-all`.

`python -m tests.selection` prints the order of the rest for CI.
"""

import math
import subprocess
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import pytest

PARTS = ("all", "quick", "rest")
ROOT = Path(__file__).parent
NIGHTLY = ROOT / "nightly"
# Where the tests of a file lie that shares no name with them.
ELSEWHERE = {
    "docs": "test_docs.py",
    "README.md": "test_docs.py",
    "examples": "capi",
    "kernels": "interpreter",
    "pyproject.toml": "test_packaging.py",
    "setup.py": "test_packaging.py",
}


def select(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """Return the tests of one of PARTS in the order of `items`.

    Quick is what is not marked `nightly`, of a test that is marked `nightly(but=N)` N cases, and of a test with several
    parameters not every combination: enough cases that every value of every parameter occurs.
    """
    if part == "all":
        return list(items)
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if count_quick(item) > 0:
            groups[item.nodeid.partition("[")[0]].append(item)
    quick = {id(item) for group in groups.values() for item in choose_representatives(group)}
    return [item for item in items if (id(item) in quick) == (part == "quick")]


def count_quick(item: pytest.Item) -> float:
    """Return how many cases of an item's test are quick at most."""
    marker = item.get_closest_marker("nightly")
    if NIGHTLY in item.path.parents:
        return 0
    return math.inf if marker is None else float(marker.kwargs.get("but", 0))


def choose_representatives(cases: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return cases of one test in which every value of every parameter occurs, or some from first to last."""
    chosen = [cases[index] for index in cover([find_values(case) for case in cases])]
    count = min(len(chosen), count_quick(cases[0]))
    return [chosen[round(index * (len(chosen) - 1) / max(count - 1, 1))] for index in range(int(count))]


def find_values(case: pytest.Item) -> dict[str, Hashable]:
    """Return what a case takes from each list of parameters; names that are listed together make one."""
    callspec = getattr(case, "callspec", None)
    if callspec is None:
        return {}
    values = {name: id(value) for name, value in callspec.params.items()}  # all cases share the lists' objects
    found: dict[str, Hashable] = {}
    for mark in case.iter_markers("parametrize"):
        given = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
        found[",".join(names)] = tuple(values.pop(name) for name in names)
    return found | values  # the rest are fixtures' own


def cover(cases: Sequence[Mapping[str, Hashable]]) -> list[int]:
    """Return the sorted indices of cases that hold every (name, value) between them.

    Each choice takes the case that brings most of what is missing, and of equal ones that whose values were used least,
    so that the cases run across the table of combinations, not along its edges.
    """
    missing = {pair for case in cases for pair in case.items()}
    if not missing:
        return list(range(len(cases)))
    used: Counter[tuple[str, Hashable]] = Counter()
    chosen: list[int] = []
    while missing:
        best = min(
            (index for index in range(len(cases)) if index not in chosen),
            key=lambda index: (
                -len(missing.intersection(cases[index].items())),
                sum(used[pair] for pair in cases[index].items()),
            ),
        )
        chosen.append(best)
        used.update(cases[best].items())
        missing.difference_update(cases[best].items())
    return sorted(chosen)


def name_room(item: pytest.Item) -> str:
    """Return the first folder of tests/ that a test lies in, or its file."""
    return item.path.relative_to(ROOT).parts[0]


def sort_by_rooms(items: Iterable[pytest.Item], rooms: Sequence[str]) -> list[pytest.Item]:
    """Return the tests of these folders and files of tests/ first, in this order, then the others as they were."""
    ranks = {ROOT / room: rank for rank, room in enumerate(rooms)}

    def find_rank(item: pytest.Item) -> int:
        found = [ranks[path] for path in (item.path, *item.path.parents) if path in ranks]
        return min(found, default=len(ranks))

    return sorted(items, key=find_rank)


def list_rooms() -> list[str]:
    """Return the folders and the files of tests/ that hold tests."""
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("test_*.py"))]
    return sorted(folders) + sorted(path.name for path in ROOT.glob("test_*.py"))


def find_touched_rooms(changed: Iterable[str], rooms: Sequence[str]) -> list[str]:
    """Return the rooms of these files of the checkout: those that share a name with them, and those of ELSEWHERE."""
    names = {part for name in changed for part in Path(name).parts}
    names |= {f"test_{Path(name).stem}.py" for name in names} | {ELSEWHERE[name] for name in names & set(ELSEWHERE)}
    return [room for room in rooms if room in names]


def order_rooms(changed: Iterable[str], rooms: Sequence[str], day: int) -> list[str]:
    """Return the touched rooms, then the others from another one each day."""
    touched = find_touched_rooms(changed, rooms)
    start = day % len(rooms)
    return touched + [room for room in (*rooms[start:], *rooms[:start]) if room not in touched]


def list_changed_files() -> list[str]:
    """Return the files that differ from where this branch left main, or on main from the commit before."""
    head = ask_git("rev-parse", "HEAD")
    left = [ask_git("merge-base", "HEAD", main) for main in ("origin/main", "main")]
    base = next((commit for commit in left if commit and commit != head), ["HEAD~1"])
    return ask_git("diff", "--name-only", *base)


def ask_git(*words: str) -> list[str]:
    """Return the lines that git prints; none where it fails, as in a clone of one commit or without git."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.splitlines()


if __name__ == "__main__":
    print(",".join(order_rooms(list_changed_files(), list_rooms(), date.today().toordinal())))
