"""A tiny bundle with a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(folder / "cache"))
        yield make_tiny_bundle(folder / "tiny.ndp").path
