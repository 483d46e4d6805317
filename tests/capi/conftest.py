"""A handle of the C library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capi.library import Library


@pytest.fixture
def inspector(library: Library, tiny_bundle: Path) -> Iterator[object]:
    """A handle of the tiny bundle, opened with one thread; closed by the test or afterwards."""
    handle = library.open(tiny_bundle, threads=1)
    yield handle
    library.lib.ndp_rt_inspector_close(handle)
