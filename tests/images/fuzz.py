"""Decodes very many damaged image files and tells what is neither an image nor one clear error.

    python -m tests.images.fuzz --count 100000 --seed 0 --keep FOLDER

A mutation is made from its number and the seed alone, so one that failed is made again with --only NUMBER. The bytes of
the mutation that is being decoded lie in FOLDER/current, for the case that the process itself dies.
"""

import argparse
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ndp_rt.config import ImageLimits
from ndp_rt.errors import ImageFileError
from ndp_rt.images.formats.tiff import SIGNATURES
from ndp_rt.images.read import decode_image, find_reader
from tests.images.encodings import join_png_chunks, list_png_chunks
from tests.images.samples import make_all_samples

LIMITS = ImageLimits(max_image_bytes=2**20)
LONGEST_S = 5.0  # of the processor, for files of a kilobyte that take a millisecond
MOST_MEMORY_BYTES = 2**25  # in which all copies of the largest picture that LIMITS allow fit
NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
PNG = b"\x89PNG"
PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(kw_only=True)
class Outcome:
    """What decoding did: counts by format, and a sentence for each failure."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    most_memory_bytes: int = 0
    longest_s: float = 0.0

    def describe(self) -> str:
        formats = sorted(self.read | self.refused)
        lines = [f"{name:8} {self.read[name]:8} read {self.refused[name]:8} refused" for name in formats]
        lines.append(f"most memory {self.most_memory_bytes / 2**20:.1f} MiB, longest {self.longest_s:.2f} s")
        return "\n".join([*lines, f"{len(self.failures)} failures", *self.failures])


def mutate(samples: Sequence[bytes], number: int, rng: np.random.Generator) -> bytes:
    """Return sample `number` with one to four changes; every second PNG has right checksums, and TIFF whole entries."""
    data = bytearray(samples[number % len(samples)])
    if data.startswith(PNG) and rng.random() < 0.5:
        return _mutate_chunks(data, rng)
    if data.startswith(SIGNATURES) and rng.random() < 0.5:
        return _mutate_entries(data, rng)
    for _ in range(int(rng.integers(1, 5))):
        _change(data, samples, rng)
    return bytes(data)


def _mutate_chunks(data: bytearray, rng: np.random.Generator) -> bytes:
    """Return a PNG with a chunk changed, lost, doubled or moved, and checksums that fit."""
    chunks = list_png_chunks(bytes(data))
    at, to = rng.integers(0, len(chunks), 2)
    how = rng.integers(6)
    kind, content = chunks[at]
    if how < 3:
        changed = bytearray(content)
        _change(changed, [bytes(data)], rng)
        chunks[at] = (kind, bytes(changed))
    elif how == 3:
        del chunks[at]
    elif how == 4:
        chunks.insert(to, chunks[at])
    else:
        chunks[at] = (bytes(rng.choice(list(b"IHDRPLTEacTLfdtNSz"), 4).tolist()), content)
    return join_png_chunks(chunks)


def _mutate_entries(data: bytearray, rng: np.random.Generator) -> bytes:
    """Return a TIFF with another type, count or value in one or two of its first directory's entries."""
    order, is_big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    number, size = ("Q", 20) if is_big else ("I", 12)
    (at,) = struct.unpack_from(order + number, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, at)
    for _ in range(int(rng.integers(1, 3))):
        entry = at + (8 if is_big else 2) + size * int(rng.integers(count))
        changes = rng.random(3) < 0.5
        if changes[0]:
            struct.pack_into(order + "H", data, entry + 2, int(rng.integers(1, 19)))
        if changes[1]:
            (former,) = struct.unpack_from(order + number, data, entry + 4)
            struct.pack_into(order + number, data, entry + 4, int(rng.choice([0, 1, 2, 3, former // 2, former // 4])))
        if changes[2]:
            struct.pack_into(order + "I", data, entry + 4 + size // 3, int(rng.choice(NUMBERS)))
    return bytes(data)


def _change(data: bytearray, samples: Sequence[bytes], rng: np.random.Generator) -> None:
    """Change bytes in place: bits, values, numbers of two and four bytes, lengths, pieces."""
    place = int(rng.integers(0, len(data) + 1)) if rng.random() < 0.6 else int(rng.integers(0, min(len(data), 64) + 1))
    size = int(rng.integers(1, 1 + rng.choice([4, 32, 256])))
    piece = data[place : place + size]
    how = rng.integers(9)
    if how == 0 and piece:
        data[place] ^= 1 << int(rng.integers(8))
    elif how == 1:
        data[place : place + size] = rng.integers(0, 256, len(piece), np.uint8).tobytes()
    elif how in (2, 3):
        width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
        value = int(rng.choice(NUMBERS)) % 256**width
        data[place : place + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    elif how == 4:
        del data[place : place + size]
    elif how == 5:
        del data[place:]
    elif how == 6:
        data[place:place] = piece
    elif how == 7:
        other = samples[int(rng.integers(len(samples)))]
        start = int(rng.integers(0, len(other)))
        data[place : place + size] = other[start : start + size]
    else:
        to = int(rng.integers(0, len(data) + 1))
        data[to : to + len(piece)] = piece


def find_failure(data: bytes, page: int | None, outcome: Outcome, kind: str) -> str | None:
    """Decode a page of a file and return what is wrong with how that went; None: nothing."""
    before = _reset_peak()
    started = time.process_time()
    problem = None
    try:
        image = decode_image(data, name="a file", limits=LIMITS, page=page)
        outcome.read[kind] += 1
        shape, dtype = image.shape, image.dtype
        if dtype not in (np.uint8, np.uint16) or shape[2:] not in ((), (3,)) or not image.flags.c_contiguous:
            problem = f"gives {dtype} {shape}"
        said_bytes = min(find_reader(data)[1](data, page).decoded_bytes, LIMITS.max_image_bytes)
        if image.nbytes > said_bytes:
            problem = f"gives {image.nbytes} bytes, its header says {said_bytes}"
    except ImageFileError as error:
        outcome.refused[kind] += 1
        if isinstance(error.__cause__, MemoryError) or "\n" in str(error) or len(str(error)) > 500:
            problem = f"says {error}"
    except Exception as error:
        problem = f"raises {error!r}"
    taken_s, peak_bytes = time.process_time() - started, _read_peak() - before
    outcome.longest_s = max(outcome.longest_s, taken_s)
    outcome.most_memory_bytes = max(outcome.most_memory_bytes, peak_bytes)
    if taken_s > LONGEST_S:
        problem = f"takes {taken_s:.1f} s"
    if peak_bytes > MOST_MEMORY_BYTES:
        problem = f"takes {peak_bytes} bytes of memory"
    return problem


def _reset_peak() -> int:
    """Begin to measure the most memory that the process holds, and return what it holds; 0 where it cannot be told."""
    if not os.access(RESET, os.W_OK):
        return 0
    RESET.write_text("5")
    return _read_peak()


def _read_peak() -> int:
    if not os.access(RESET, os.W_OK):
        return 0
    line = next(line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def run(samples: Mapping[str, bytes], numbers: Sequence[int], seed: int, keep: Path | None = None) -> Outcome:
    """Decode mutations by their numbers; failed ones are written to `keep`."""
    names, files = list(samples), list(samples.values())
    outcome = Outcome()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        page = int(rng.integers(1, 4)) if rng.random() < 0.5 else None
        data = mutate(files, number, rng)
        if keep is not None:
            (keep / "current").write_bytes(data)
        name = names[number % len(names)]
        problem = find_failure(data, page, outcome, name.split()[0])
        if problem is not None:
            outcome.failures.append(f"number {number} ({name}, seed {seed}): {problem}")
            if keep is not None:
                (keep / f"{seed}-{number}").write_bytes(data)
    return outcome


def main() -> int:
    """Run the command line and return its exit code: 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.images.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="mutations (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one mutation")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write files that failed to it")
    args = parser.parse_args()
    samples = make_all_samples(np.random.default_rng(args.seed))
    numbers = range(args.count) if args.only is None else [args.only]
    outcome = run(samples, numbers, args.seed, args.keep)
    print(outcome.describe())
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
