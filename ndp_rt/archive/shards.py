"""Shards of an archive: paths alone decide which images belong together."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.errors import StorageError
from ndp_rt.files import write_atomically
from ndp_rt.images.page_names import split_page
from ndp_rt.pipeline.sinks import ARCHIVE_FILE

FORMAT, FORMAT_VERSION = "ndp-rt archive", 1
FEWEST_SHARDS, FEW_SHARDS, MOST_SHARDS = 16, 64, 65536
FEW_IMAGES, SHARD_IMAGES = 16, 512  # of a shard: up to FEW_SHARDS, and of more
MOST_IMAGES = 4096  # of a shard on average: its rows are in memory, and written once all are there
MOST_ROWS = MOST_IMAGES + MOST_IMAGES // 8  # of a shard that several lists have filled: chance makes some larger
KEY_DIGITS = 16


def count_shards(image_count: int) -> int:
    """Return the number of shards for so many images, a power of two."""
    count = FEWEST_SHARDS
    while count < MOST_SHARDS and count * (FEW_IMAGES if count < FEW_SHARDS else SHARD_IMAGES) < image_count:
        count *= 2
    return count


def hash_path(path: Path) -> int:
    """Return the hash of an image's path, or of a page's file: its remainder of the number of shards is the shard."""
    digest = hashlib.sha256(os.fsencode(split_page(path)[0])).digest()
    return int.from_bytes(digest[:8], "big")


def name_part(shard: int, shard_count: int, key: str) -> str:
    """Return the name of a shard's Parquet file; `key` says which engine and settings its rows come from."""
    return f"part-{shard:05d}-of-{shard_count:05d}-{key}.parquet"


def make_key(engine_hash: str, settings: str) -> str:
    """Return what the names of parts hold: a hash of the engine and of the settings that rows depend on."""
    return hashlib.sha256(f"{engine_hash}\n{settings}".encode()).hexdigest()[:KEY_DIGITS]


def hash_settings(settings: Mapping[str, Any]) -> str:
    """Return a hash of values of JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]


@dataclass(kw_only=True)
class ArchiveFile:
    """What `OUT/archive.json` says.

    Attributes:
        folder: OUT.
        shard_count: of the run that began it.
        run: a word that every run makes anew, by which a worker knows the folder.
    """

    folder: Path
    shard_count: int
    run: str

    @classmethod
    def open(cls, folder: Path, image_count: int) -> "ArchiveFile":
        """Read it, or begin one, and write it with a new word.

        Raises:
            StorageError: it is damaged, of a newer version, for far fewer images, or cannot be written.
        """
        path = folder / ARCHIVE_FILE
        run = secrets.token_hex(8)
        made = cls(folder=folder, shard_count=count_shards(image_count), run=run)
        if path.exists():
            made = cls.read(folder)
            made.run = run
        if image_count > (most := made.shard_count * MOST_IMAGES) and made.shard_count < MOST_SHARDS:
            raise StorageError(
                f"{folder}: expected at most {most} images in an archive that began with {made.shard_count} shards, "
                f"got {image_count}. Choose another folder, or pass --overwrite."
            )
        made.write()
        return made

    @classmethod
    def read(cls, folder: Path) -> "ArchiveFile":
        """Read it.

        Raises:
            StorageError: it is missing, damaged, or of a newer version.
        """
        path = folder / ARCHIVE_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if (document["format"], document["version"]) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"{document['format']} {document['version']}")
            count, run = document["shard_count"], document["run"]
            if type(count) is not int or count < 1:
                raise ValueError(f"shard_count {count!r:.80}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path}: expected an archive of format {FORMAT_VERSION}, got one that cannot be read ({error}). "
                "Choose another folder, or pass --overwrite."
            ) from error
        return cls(folder=folder, shard_count=count, run=str(run))

    def write(self) -> None:
        """Write it whole.

        Raises:
            StorageError: it cannot be written.
        """
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "shard_count": self.shard_count,
            "run": self.run,
        }
        write_atomically(self.folder / ARCHIVE_FILE, json.dumps(document, indent=1).encode())


def drop_temporary_files(folder: Path) -> None:
    """Remove what killed workers left of files that they were writing; no other run writes to the folder."""
    for path in folder.glob(".ndp-rt-*.tmp"):
        path.unlink(missing_ok=True)
