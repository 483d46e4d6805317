"""One tiny bundle and one built cache for all engine tests; tests that change them get copies."""

import shutil
from pathlib import Path

import pytest

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.spec import EngineSpec


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from tests.tiny_bundle import make_tiny_bundle  # needs onnx, which machines that only run engines lack

    return make_tiny_bundle(tmp_path_factory.mktemp("engines") / "tiny.ndp")


@pytest.fixture(scope="session")
def built_cache(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the fused OpenVINO engines of batch 1 and 3; not to be changed."""
    cache_dir = tmp_path_factory.mktemp("cache")
    build_engine(bundle, EngineSpec(batches=(1, 3)), cache_dir=cache_dir)
    return cache_dir


@pytest.fixture
def cache(built_cache: Path, tmp_path: Path) -> Path:
    """A copy of `built_cache` to change."""
    return Path(shutil.copytree(built_cache, tmp_path / "cache"))


@pytest.fixture
def own_bundle(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the bundle to change."""
    return open_bundle(shutil.copytree(bundle.path, tmp_path / "own.ndp"))
