"""A list of an archive's paths on the disk, so that memory holds those of a few shards alone."""

import contextlib
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from ndp_rt.archive.shards import hash_path
from ndp_rt.files import make_temporary_folder, storing

FILE_COUNT = 256  # one of them is in memory, or a few of a small archive
HELD_BYTES = 2**23  # before they are written
HASH_BYTES, LENGTH_BYTES = 8, 4


class PathList:
    """Paths, each once, by their hash in files; as long as they are few, in memory alone."""

    def __init__(self) -> None:
        """Begin without any."""
        self.some: dict[int, Path] = {}  # of each file that has any, the first
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._written: set[int] = set()
        self._held: defaultdict[int, bytearray] = defaultdict(bytearray)  # by file, what is not written
        self._count = 0

    def write(self, paths: Iterable[Path]) -> None:
        """Take all paths.

        Args:
            paths: absolute; some may come several times.

        Raises:
            StorageError: no space for them.
        """
        held_bytes = 0
        for path in paths:
            number, content = hash_path(path), os.fsencode(path)
            record = number.to_bytes(HASH_BYTES, "big") + len(content).to_bytes(LENGTH_BYTES, "big") + content
            self.some.setdefault(number % FILE_COUNT, path)
            self._held[number % FILE_COUNT] += record
            held_bytes += len(record)
            if held_bytes > HELD_BYTES:
                self._write_held()
                held_bytes = 0
        self._count = sum(1 for _ in self)

    def _write_held(self) -> None:
        with storing(Path(tempfile.gettempdir()), "Free some space there, or set TMPDIR."):
            if self._folder is None:
                self._folder = make_temporary_folder("paths")
            for number, records in self._held.items():
                with (Path(self._folder.name) / str(number)).open("ab") as file:
                    file.write(records)
                self._written.add(number)
        self._held.clear()

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Path]:
        for number in range(FILE_COUNT):
            yield from self._read([number])

    def list_shards(self, shard_count: int) -> Iterator[tuple[int, list[Path]]]:
        """Yield each shard that has any paths, with them."""
        # Files and shards both go by remainders of the hash, so these files hold these shards whole.
        part_count = math.gcd(FILE_COUNT, shard_count)
        for part in range(part_count):
            shards: defaultdict[int, list[Path]] = defaultdict(list)
            for path, number in self._read(range(part, FILE_COUNT, part_count)).items():
                shards[number % shard_count].append(path)
            yield from sorted(shards.items())

    def _read(self, numbers: Iterable[int]) -> dict[Path, int]:
        """Return the paths in some files, and their hashes."""
        found: dict[Path, int] = {}
        for number in numbers:
            records, start = self._read_file(number) + self._held.get(number, b""), 0
            while start < len(records):
                first = start + HASH_BYTES + LENGTH_BYTES
                end = first + int.from_bytes(records[start + HASH_BYTES : first], "big")
                hashed = int.from_bytes(records[start : start + HASH_BYTES], "big")
                found[Path(os.fsdecode(bytes(records[first:end])))] = hashed
                start = end
        return found

    def _read_file(self, number: int) -> bytes:
        if self._folder is None or number not in self._written:
            return b""
        folder = Path(self._folder.name)
        with storing(folder):
            os.utime(folder)  # it is in use: see `make_temporary_folder`
            return (folder / str(number)).read_bytes()


@contextlib.contextmanager
def writing_paths(paths: Iterable[Path]) -> Iterator[PathList]:
    """Give a list of paths; its files go with the block.

    Raises:
        StorageError: no space for it.
    """
    with contextlib.closing(PathList()) as found:
        found.write(paths)
        yield found
