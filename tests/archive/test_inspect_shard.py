"""A shard: what is left of it is inspected, and its file is whole or not there."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.archive import inspect_shard as module
from ndp_rt.archive.inspect_shard import Drawing, inspect_shard
from ndp_rt.archive.shards import (
    ArchiveFile,
    hash_path,
    hash_settings,
    make_key,
    name_part,
)
from ndp_rt.errors import StorageError
from ndp_rt.pipeline.sinks import ARCHIVE_FILE
from tests.archive.images import make_images, read_rows_of, remember

NOTHING = Drawing()


@pytest.fixture(scope="module")
def inspector(tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, threads=1) as one:
        yield one


@pytest.fixture
def part(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / name_part(3, 16, make_key("engine", "settings"))


def test_pages_of_a_file_share_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(b"II*\0")
    assert len({hash_path(one) for one in (path, Path(f"{path}[1]"), Path(f"{path}[12]"))}) == 1


def test_a_second_run_leaves_the_file_as_it_is(inspector: Inspector, tmp_path: Path, part: Path) -> None:
    paths = make_images(tmp_path / "images", 5)
    first = inspect_shard(inspector, paths, part, NOTHING)
    before = remember(part.parent)
    assert inspect_shard(inspector, paths, part, NOTHING) == first
    assert first.good_count + first.defect_count == 5
    assert remember(part.parent) == before


def test_lists_that_are_added_fill_a_shard_only_so_far(
    inspector: Inspector, tmp_path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    paths = make_images(tmp_path / "images", 9)
    inspect_shard(inspector, paths[:3], part, NOTHING)
    inspect_shard(inspector, paths[2:4], part, NOTHING)
    before = remember(part.parent)
    with pytest.raises(StorageError, match=r"out: expected at most 4 images in a shard, got 6: .* Choose another"):
        inspect_shard(inspector, paths[3:6], part, NOTHING)
    assert remember(part.parent) == before
    inspect_shard(inspector, paths[1:4], part, NOTHING)  # what is there may be asked for again
    assert len(read_rows_of(part.parent)) == 4


def test_one_list_may_be_longer_and_pages_of_a_file_too(
    inspector: Inspector, tmp_path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    paths = make_images(tmp_path / "images", 6)
    inspect_shard(inspector, paths, part, NOTHING)
    inspect_shard(inspector, paths, part, NOTHING)
    other, (scan,) = part.with_name(name_part(4, 16, "0" * 16)), make_images(tmp_path / "scans", 1)
    pages = [Path(f"{scan}[{number}]") for number in range(1, 7)]
    for some in (pages[:3], pages[3:]):  # a job that a worker died of was cut in two
        inspect_shard(inspector, some, other, NOTHING)
    assert len(read_rows_of(part.parent)) == 12


def test_only_what_is_left_is_inspected(
    inspector: Inspector, tmp_path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_images(tmp_path / "images", 6)
    (tmp_path / "images" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    broken = tmp_path / "images" / "0" / "broken.png"
    tally = inspect_shard(inspector, [*paths[:4], broken], part, NOTHING)
    assert tally.error_count == 1 and "broken.png" in tally.errors[0]
    paths[1].write_bytes(paths[2].read_bytes())
    os.utime(paths[1], ns=(1, 1))
    asked: list[Path] = []
    inspect = module.inspect_files

    def note(inspector: Inspector, some: Any, **settings: Any) -> Any:
        asked.extend(some)
        return inspect(inspector, some, **settings)

    monkeypatch.setattr(module, "inspect_files", note)
    inspect_shard(inspector, [*paths[:5], broken], part, NOTHING)
    assert sorted(asked) == sorted([paths[1], paths[4], broken])  # changed, new, and one that may be read by now
    rows = read_rows_of(part.parent)
    assert [row["path"] for row in rows] == sorted(map(str, [*paths[:5], broken]))
    scores = {row["path"]: row["score"] for row in rows}
    assert scores[str(paths[1])] == scores[str(paths[2])]


def test_a_failure_leaves_the_earlier_file(
    inspector: Inspector, tmp_path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_images(tmp_path / "images", 4)
    inspect_shard(inspector, paths[:2], part, NOTHING)
    before = remember(part.parent)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match=r"No space left on device.*Free some space"):
            inspect_shard(inspector, paths, part, NOTHING)
    assert remember(part.parent) == before
    assert [path.name for path in part.parent.iterdir()] == [part.name]
    inspect_shard(inspector, paths, part, NOTHING)
    assert len(read_rows_of(part.parent)) == 4


def test_a_damaged_file_is_named_and_kept(inspector: Inspector, tmp_path: Path, part: Path) -> None:
    part.write_bytes(b"PAR1 but no more")
    with pytest.raises(StorageError, match=r"part-00003.*cannot be read.*Move it away"):
        inspect_shard(inspector, make_images(tmp_path / "images", 1), part, NOTHING)
    assert part.read_bytes() == b"PAR1 but no more"


def test_what_workers_die_of_becomes_a_row(inspector: Inspector, tmp_path: Path, part: Path) -> None:
    (path,) = make_images(tmp_path / "images", 1)
    tally = inspect_shard(inspector, [path], part, NOTHING, deadly="expected much, got nothing.")
    assert tally.errors == [f"{path}: expected much, got nothing."]
    assert inspect_shard(inspector, [path], part, NOTHING).error_count == 0  # the next run tries again


def test_overlays_and_maps_of_a_shard(inspector: Inspector, tmp_path: Path, part: Path) -> None:
    paths = make_images(tmp_path / "images", 4)
    same_name = tmp_path / "images" / "9" / paths[0].name
    same_name.parent.mkdir()
    same_name.write_bytes(paths[1].read_bytes())
    inspect_shard(inspector, [*paths, same_name], part, Drawing(with_overlays=True, with_maps=True))
    rows = read_rows_of(part.parent)
    assert len({row["map"] for row in rows}) == 5
    for row in rows:
        assert (part.parent / row["overlay"]).is_file()
        assert float(np.load(part.parent / row["map"]).max()) >= 0.0
        assert row["map"].startswith("maps/00003/")


def test_paths_that_are_no_utf8_have_a_row_each(inspector: Inspector, tmp_path: Path, part: Path) -> None:
    names = (b"\xff", b"\xfe", rb"\xff", rb"\x5cxff", b"\\\xff")
    odd = [
        path.rename(Path(os.fsdecode(os.fsencode(path.parent) + b"/" + name + b".png")))
        for path, name in zip(make_images(tmp_path / "images", 5), names, strict=True)
    ]
    assert inspect_shard(inspector, odd, part, NOTHING).error_count == 0
    before = remember(part.parent)
    inspect_shard(inspector, odd, part, NOTHING)
    assert remember(part.parent) == before
    found = {row["path"].rpartition("/")[2] for row in read_rows_of(part.parent)}
    assert found == {r"\xff.png", r"\xfe.png", r"\x5cxff.png", r"\x5cx5cxff.png", r"\\xff.png"}


def test_keys_tell_engines_and_settings_apart() -> None:
    keys = {make_key(engine, hash_settings({"threshold": value})) for engine in "ab" for value in (0.5, 0.6)}
    assert len(keys) == 4


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "ndp-rt archive", "version": 2}', b"[]", b"\xff"])
def test_an_archive_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ARCHIVE_FILE).write_bytes(content)
    with pytest.raises(StorageError, match=r"expected an archive of format 1.*--overwrite"):
        ArchiveFile.open(tmp_path, 5)


def test_an_archive_keeps_its_number_of_shards(tmp_path: Path) -> None:
    first = ArchiveFile.open(tmp_path, 10)
    second = ArchiveFile.open(tmp_path, 16 * 4096)
    assert (first.shard_count, second.shard_count) == (16, 16)
    assert first.run != second.run


def test_an_archive_of_few_images_refuses_a_great_many(tmp_path: Path) -> None:
    first = ArchiveFile.open(tmp_path, 10)
    with pytest.raises(StorageError, match=r"expected at most 65536 images .* with 16 shards, got 1000000\. Choose an"):
        ArchiveFile.open(tmp_path, 10**6)
    assert ArchiveFile.read(tmp_path).run == first.run
    ArchiveFile.open(tmp_path / "new", 10**9)
