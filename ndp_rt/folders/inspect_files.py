"""From image files to results, in order: a file that cannot be read is an error beside the results of the others."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.checks import Image
from ndp_rt.images.opencv import lacks_memory
from ndp_rt.images.pages import PageReader
from ndp_rt.images.white_level import judge_brightness, measure_values
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """A file and what came of it.

    Attributes:
        path: of the file, or of a page of it.
        outcome: the result, or the error of a file that cannot be read or inspected.
        pixels: the image; None where it was not to be kept.
        brightness: against training's images; None where the bundle does not say.
    """

    path: Path
    outcome: Result | Exception | None
    pixels: Image | None = None
    brightness: str | None = None


def inspect_files(
    inspector: Inspector,
    paths: Sequence[Path],
    *,
    batch: int = 1,
    is_tiled: bool = False,
    keeps_pixels: bool = False,
    keep_reconstruction: bool = False,
) -> Iterator[Inspected]:
    """Read and inspect files, and yield each in its turn.

    Args:
        inspector: for them.
        paths: files, or pages of files.
        batch: files that go through the engine together; 1: they stream, the next is read while one is inspected.
        is_tiled: cut into tiles of the network's size instead of resized.
        keeps_pixels: give the images too.
        keep_reconstruction: give the network's reconstructions too; not of tiles.
    """
    read = FileReader(inspector, is_tiled=is_tiled).read
    inspect = (
        inspector.inspect_large if is_tiled else partial(inspector.inspect, keep_reconstruction=keep_reconstruction)
    )
    keep: Callable[[Inspected], Inspected] = (lambda one: one) if keeps_pixels else drop_pixels
    if is_tiled:
        for path in paths:
            taken = read(path)
            yield keep(_inspect_one(taken, inspect))
        return
    if batch == 1:
        done = 0
        while done < len(paths):
            try:
                for one in _stream_files(inspector, paths[done:], read, keep, keep_reconstruction):
                    done += 1
                    yield one
            except Exception as error:
                if not lacks_memory(error):
                    raise
                yield Inspected(path=paths[done], outcome=lacking_memory(paths[done]))
                done += 1  # the stream has ended; another one goes on behind it
        return
    for start in range(0, len(paths), batch):
        some = [read(path) for path in paths[start : start + batch]]
        images = [one.pixels for one in some if one.pixels is not None]
        try:
            results = iter(inspector.inspect_batch(images, keep_reconstruction=keep_reconstruction))
        except Exception as error:
            if not lacks_memory(error):
                raise
            yield from (keep(_inspect_one(one, inspect)) for one in some)
            continue
        for one in some:
            yield keep(one if one.pixels is None else replace(one, outcome=next(results)))


def _inspect_one(taken: Inspected, inspect: Callable[[Image], Result]) -> Inspected:
    """Return a file that was read with its result, or with what is said of it where memory runs out."""
    if taken.pixels is None:
        return taken
    try:
        return replace(taken, outcome=inspect(taken.pixels))
    except Exception as error:
        if not lacks_memory(error):
            raise
        return replace(taken, outcome=lacking_memory(taken.path))


def lacking_memory(path: Path) -> ImageFileError:
    """Return what is said of an image for which there was too little memory."""
    return ImageFileError(
        f"{path}: expected enough memory to inspect it, got too little. Close other programs, or inspect it in tiles "
        "(--tiles)."
    )


def _stream_files(
    inspector: Inspector,
    paths: Sequence[Path],
    read: Callable[[Path], Inspected],
    keep: Callable[[Inspected], Inspected],
    keep_reconstruction: bool,
) -> Iterator[Inspected]:
    """Inspect files as a stream; an exception that is no image's is raised in place of the first that it may be of."""
    on_way: deque[Inspected] = deque()  # filled by the stream's thread, in order

    def read_frames() -> Iterator[Image]:
        for path in paths:
            taken = read(path)
            on_way.append(keep(taken) if taken.pixels is not None else taken)
            if taken.pixels is not None:
                yield taken.pixels

    try:
        for result in inspector.stream(read_frames(), keep_reconstruction=keep_reconstruction):
            while (one := on_way.popleft()).outcome is not None:
                yield one
            yield replace(one, outcome=result)
    except Exception as error:
        while lacks_memory(error) and on_way and on_way[0].outcome is not None:
            yield on_way.popleft()
        raise
    yield from on_way


def drop_pixels(one: Inspected) -> Inspected:
    """Return one without its image."""
    return replace(one, pixels=None)


class FileReader:
    """Reads files for one bundle; may be called from a stream's thread."""

    def __init__(self, inspector: Inspector, *, is_tiled: bool) -> None:
        """Take the inspector that they are for."""
        manifest = inspector.bundle.manifest
        self._session, self._is_tiled = inspector.session, is_tiled
        self._white_level = manifest.input.white_level_16bit
        self._files = PageReader(white_level=self._white_level)
        self._trained = manifest.training_range

    def read(self, path: Path) -> Inspected:
        """Return the image, without an outcome, or the error of one that cannot be read, or has not the mask's size."""
        try:
            pixels = self._files.read(path)
        except ImageFileError as error:
            return Inspected(path=path, outcome=error)
        try:
            self._session.find_counting(pixels.shape[:2], is_tiled=self._is_tiled)
            brightness = judge_brightness(measure_values(pixels), self._white_level, self._trained)
        except InputError as error:
            return Inspected(path=path, outcome=InputError(f"{path}: {error}"))
        except MemoryError:
            return Inspected(path=path, outcome=lacking_memory(path))
        return Inspected(path=path, outcome=None, pixels=pixels, brightness=brightness)
