"""Opening an executor on the host."""

from pathlib import Path

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.engines import cache
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.runtime.open import open_host


def test_an_engines_files_are_hashed_once_when_it_is_opened(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(tiny_bundle)
    open_host(bundle, EngineSpec()).close()  # builds what is missing
    hashed: list[str] = []

    def remember(path: Path) -> str:
        hashed.append(path.name)
        return hash_file(path)

    hash_file = cache.hash_file
    monkeypatch.setattr(cache, "hash_file", remember)
    open_host(bundle, EngineSpec(batches=(1,))).close()
    assert hashed == ["model.blob"]
