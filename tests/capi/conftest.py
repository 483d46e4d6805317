"""The C library, built once for all tests into a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ndp_rt.capi.build import build_library
from ndp_rt.errors import MissingExtraError
from tests.capi.library import Library
from tests.capi.programs import compile_host


@pytest.fixture(scope="session")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of libndp_rt.so as it is compiled from the sources now."""
    try:
        return build_library(tmp_path_factory.mktemp("capi"))
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")


@pytest.fixture(scope="session")
def library(library_path: Path) -> Library:
    return Library(library_path)


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of hosts/steps.c."""
    return compile_host(["steps.c", "process_state.c"], tmp_path_factory.mktemp("steps") / "steps")


@pytest.fixture
def inspector(library: Library, tiny_bundle: Path) -> Iterator[object]:
    """A handle of the tiny bundle, opened with one thread; closed by the test or afterwards."""
    handle = library.open(tiny_bundle, threads=1)
    yield handle
    library.lib.ndp_rt_inspector_close(handle)
