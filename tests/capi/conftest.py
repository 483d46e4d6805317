"""A handle of the C library, alone and with a queue that a test holds, and hosts that do what a test says."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ndp_rt import Inspector
from tests.capi.library import Library
from tests.capi.line import Gate, Line
from tests.capi.programs import Run, run_steps


@pytest.fixture
def inspector(library: Library, tiny_bundle: Path) -> Iterator[object]:
    """A handle of the tiny bundle, opened with one thread; closed by the test or afterwards."""
    handle = library.open(tiny_bundle, threads=1)
    yield handle
    library.lib.ndp_rt_inspector_close(handle)


@pytest.fixture
def run(steps: Path, library_path: Path, tiny_bundle: Path) -> Run:
    """Runs steps; "open" and "race" alone mean the tiny bundle."""

    def run_words(
        *words: str, environment: dict[str, str] | None = None, library: Path = library_path, exit_code: int = 0
    ) -> list[str]:
        named = [f"{word}={tiny_bundle}" if word in ("open", "race") else word for word in words]
        return run_steps(steps, library, named, environment, exit_code=exit_code)

    return run_words


@pytest.fixture(scope="module")
def score(steps: Path, library_path: Path, tiny_bundle: Path) -> str:
    """What an ordinary host is told of its image."""
    lines = run_steps(steps, library_path, [f"open={tiny_bundle}", "inspect", "close"])
    assert [line.split()[0] for line in lines] == ["open:", "inspect:", "score:", "close:"] and lines[-1] == "close: OK"
    return lines[2]


@pytest.fixture
def line(library: Library, tiny_bundle: Path) -> Iterator[Line]:
    made = Line(library, library.open(tiny_bundle, threads=1, queue_capacity=4))
    yield made
    library.lib.ndp_rt_inspector_close(made.handle)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(Inspector, "inspect", made.pass_through(Inspector.inspect))
    yield made
    made.is_open.set()


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool
