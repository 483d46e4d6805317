"""Measures what finding images takes: `python -m tests.archive.measure_listing FOLDER`.

Makes a million empty files in FOLDER, if it is not there yet, and finds them as `inspect --workers` does.
"""

import argparse
import time
from pathlib import Path

import psutil

from ndp_rt.archive.shards import count_shards
from ndp_rt.cli.inspect_archive import find_images_of

COUNT, FOLDER_COUNT = 10**6, 10**3


def main() -> None:
    """Print processor time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for number in range(0 if folder.exists() else COUNT):
        path = folder / f"{number % FOLDER_COUNT:04d}" / f"piece-{number:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    import ndp_rt.images.pages  # noqa: F401  # so that the first look comes after it

    process, paths = psutil.Process(), argparse.Namespace(paths=[str(folder)], page=None)
    begun_s, begun_bytes, largest_bytes = time.process_time(), process.memory_info().rss, 0
    with find_images_of(paths, folder / "none") as found:
        for _ in found.files.list_shards(count_shards(len(found.files))):
            largest_bytes = max(largest_bytes, process.memory_info().rss)
        taken_us, count = 1e6 * (time.process_time() - begun_s), len(found.files)
    print(f"{count} images: {taken_us / count:.0f} us each, {(largest_bytes - begun_bytes) / 2**20:.0f} MiB in all")


if __name__ == "__main__":
    main()
