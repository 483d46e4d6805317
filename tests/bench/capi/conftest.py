"""The benchmark's host in C, compiled once for all its tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ndp_rt.bench.capi.host import HostProcess, HostProgram, build_host, learn
from ndp_rt.bench.capi.pictures import load_pictures, make_network_pictures
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.errors import MissingExtraError


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostProgram:
    try:
        return build_host(tmp_path_factory.mktemp("bench-capi"))
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def process(host: HostProgram, bundle: Bundle, tmp_path: Path) -> Iterator[HostProcess]:
    """A host with two inspectors of the tiny bundle and a picture, whose answer it knows."""
    with host.start() as started:
        for _ in range(2):
            started.ask("open", bundle.path, 1)
        folder = tmp_path / "pictures"
        folder.mkdir()
        load_pictures(started, make_network_pictures(bundle)[:1], folder)
        learn(started, 0, 0)
        yield started
