"""Which tests a run takes: all, the quick part that `make test` runs, or the rest of `make test-all`."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

PARTS = ("all", "quick", "rest")
ROOT = Path(__file__).parent
NIGHTLY = ROOT / "nightly"


def select(items: Sequence[pytest.Item], part: str) -> list[pytest.Item]:
    """Return the tests of one of PARTS in the order of `items`.

    Quick is what is not marked `nightly`, and of a test with several parameters not every combination: enough cases
    that every value of every parameter occurs.
    """
    if part == "all":
        return list(items)
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not is_nightly(item):
            groups[item.nodeid.partition("[")[0]].append(item)
    quick = {id(item) for group in groups.values() for item in choose_representatives(group)}
    return [item for item in items if (id(item) in quick) == (part == "quick")]


def is_nightly(item: pytest.Item) -> bool:
    return item.get_closest_marker("nightly") is not None or NIGHTLY in item.path.parents


def choose_representatives(cases: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return cases of one test in which every value of every parameter occurs."""
    return [cases[index] for index in cover([find_values(case) for case in cases])]


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
