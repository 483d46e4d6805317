"""The list of an archive's paths: on the disk, each once, shard by shard."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndp_rt.archive import path_list
from ndp_rt.archive.path_list import writing_paths
from ndp_rt.archive.shards import count_shards, hash_path
from ndp_rt.errors import InputError, StorageError

PATHS = [Path(f"/archive/{number % 7}/{number}.png") for number in range(2000)]


@pytest.mark.parametrize("held_bytes", [0, 1000, 2**23])
def test_paths_alone_decide_the_shard(monkeypatch: pytest.MonkeyPatch, held_bytes: int) -> None:
    monkeypatch.setattr(path_list, "HELD_BYTES", held_bytes)
    with writing_paths(PATHS) as files, writing_paths(PATHS[:100]) as fewer:
        shards, some = dict(files.list_shards(64)), dict(fewer.list_shards(64))
    assert sorted(path for paths in shards.values() for path in paths) == sorted(PATHS)
    assert max(map(len, shards.values())) < 4 * min(map(len, shards.values())) and len(shards) == 64
    assert some == {shard: paths for shard in shards if (paths := [one for one in shards[shard] if one in PATHS[:100]])}
    assert hash_path(Path("/archive/a.png")) % 64 == 45  # for ever: else a second run would do everything again


@pytest.mark.parametrize("shard_count", [1, 3, 16, 48, 256, 4096])
def test_any_number_of_shards_holds_each_path_once(shard_count: int) -> None:
    with writing_paths([*PATHS, *PATHS[:50]]) as files:
        shards = list(files.list_shards(shard_count))
        assert sorted(path for _, paths in shards for path in paths) == sorted(PATHS) == sorted(files)
        assert len({shard for shard, _ in shards}) == len(shards) and len(files) == len(PATHS)
    assert all(hash_path(path) % shard_count == shard for shard, paths in shards for path in paths)


def test_names_are_kept_byte_by_byte() -> None:
    names = [Path("/a\nb"), Path("/" + "x" * 3000), Path(os.fsdecode(b"/\xff")), Path("/a\0b")]
    with writing_paths(names) as files:
        assert sorted(files) == sorted(names)


def test_the_number_of_shards_grows_with_the_images() -> None:
    assert [count_shards(count) for count in (1, 500, 10_000, 10**6, 10**9)] == [16, 32, 64, 2048, 65536]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, in which paths are written at once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(path_list, "HELD_BYTES", 0)
    return tmp_path


def test_a_list_that_is_lost_is_an_error_and_no_empty_archive(disk: Path) -> None:
    with writing_paths(PATHS) as files:
        for path in disk.glob("*/*"):
            path.unlink()
        with pytest.raises(StorageError):
            list(files.list_shards(64))
    assert not list(disk.iterdir())


def test_a_full_disk_is_one_sentence(disk: Path) -> None:
    disk.rmdir()
    with pytest.raises(StorageError, match="TMPDIR"), writing_paths(PATHS):
        pass


def test_few_paths_and_errors_leave_nothing_on_the_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Iterator[Path]:
        yield from PATHS
        raise InputError("a folder cannot be read.")

    with pytest.raises(InputError), writing_paths(fail()):
        pass
    assert not list(disk.iterdir())
    monkeypatch.setattr(path_list, "HELD_BYTES", 2**23)
    with writing_paths(PATHS) as files:
        assert len(files) == 2000 and not list(disk.iterdir())


class LivePath(type(Path())):  # type: ignore[misc]
    """A path that tells whether it is in memory."""

    __slots__ = ("__weakref__",)


def test_memory_does_not_hold_the_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_list, "HELD_BYTES", 1000)
    alive: list[weakref.ref[Path]] = []

    def give() -> Iterator[Path]:
        for number in range(2000):
            path = LivePath(f"/archive/{number}.png")
            alive.append(weakref.ref(path))
            yield path

    with writing_paths(give()) as files:
        assert sum(one() is not None for one in alive) <= path_list.FILE_COUNT + 1  # one of each file
        assert max(len(paths) for _, paths in files.list_shards(256)) < 50
