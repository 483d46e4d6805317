"""Where engines are cached, by what the environment says."""

from pathlib import Path

import pytest

from ndp_rt.config import ImageLimits, find_cache_dir
from ndp_rt.errors import InputError, StorageError


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NDP_RT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert find_cache_dir() == tmp_path / ".cache" / "ndp-rt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert find_cache_dir() == tmp_path / ".cache" / "ndp-rt"
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert find_cache_dir() == Path("/shared/ndp-rt")
    monkeypatch.setenv("NDP_RT_CACHE", "~/own")
    assert find_cache_dir() == tmp_path / "own"
    monkeypatch.setenv("NDP_RT_CACHE", "here")
    assert find_cache_dir() == Path.cwd() / "here"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.delenv("NDP_RT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(StorageError, match="Set NDP_RT_CACHE"):
        find_cache_dir()


def test_limits_below_one_pixel_are_refused() -> None:
    with pytest.raises(InputError, match="image limits"):
        ImageLimits(max_side_px=0)
