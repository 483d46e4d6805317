"""A list of an archive's paths on the disk, so that memory holds those of a few shards alone."""

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from ndp_rt.archive.shards import hash_path
from ndp_rt.files import make_temporary_folder, storing

FILE_COUNT = 256  # one of them is in memory, or a few of a small archive
HELD_BYTES = 2**23  # before they are written
HASH_BYTES, LENGTH_BYTES = 8, 4


class PathList:
    """Paths, each once, in files by their hash."""

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        """Write the paths.

        Args:
            folder: for the files.
            paths: absolute; some may come several times.

        Raises:
            StorageError: no space for them.
        """
        self._folder = folder
        self.some: dict[int, Path] = {}  # of each file that has any, the first
        held: defaultdict[int, bytearray] = defaultdict(bytearray)
        held_bytes = 0
        for path in paths:
            number, content = hash_path(path), os.fsencode(path)
            record = number.to_bytes(HASH_BYTES, "big") + len(content).to_bytes(LENGTH_BYTES, "big") + content
            self.some.setdefault(number % FILE_COUNT, path)
            held[number % FILE_COUNT] += record
            held_bytes += len(record)
            if held_bytes > HELD_BYTES:
                self._write(held)
                held_bytes = 0
        self._write(held)
        self._count = sum(1 for _ in self)

    def _write(self, held: dict[int, bytearray]) -> None:
        for number, records in held.items():
            path = self._folder / str(number)
            with storing(path, "Free some space there, or set TMPDIR."), path.open("ab") as file:
                file.write(records)
        held.clear()

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
        with storing(self._folder):
            os.utime(self._folder)  # it is in use: see `make_temporary_folder`
            contents = [(self._folder / str(number)).read_bytes() for number in numbers if number in self.some]
        found: dict[Path, int] = {}
        for records in contents:
            start = 0
            while start < len(records):
                first = start + HASH_BYTES + LENGTH_BYTES
                end = first + int.from_bytes(records[start + HASH_BYTES : first], "big")
                found[Path(os.fsdecode(records[first:end]))] = int.from_bytes(
                    records[start : start + HASH_BYTES], "big"
                )
                start = end
        return found


@contextlib.contextmanager
def writing_paths(paths: Iterable[Path]) -> Iterator[PathList]:
    """Give a list of paths, in a temporary folder that goes with the block.

    Raises:
        StorageError: no space for it.
    """
    with contextlib.ExitStack() as stack:
        with storing(Path("a temporary folder"), "Free some space there, or set TMPDIR."):
            folder = stack.enter_context(make_temporary_folder("paths"))
        yield PathList(Path(folder), paths)
