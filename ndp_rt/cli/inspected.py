"""Reads the files of `ndp-rt inspect` and inspects them: as a stream, in batches or in tiles."""

import argparse
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli.terminal import complain

if TYPE_CHECKING:
    from ndp_rt.errors import ImageFileError
    from ndp_rt.inspector import Inspector

SAMPLED = 16  # files that are read for --white-level auto
Outcome = tuple[Path, Any, Any]  # a file, the image that was taken of it, and its result or error


def lacks_memory(error: Exception) -> bool:
    """Tell whether an error is of memory that has run out."""
    from ndp_rt.images.opencv import cv2

    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem)


def lacking_memory(path: Path) -> "ImageFileError":
    """Return what is said of an image for which there was too little memory."""
    from ndp_rt.errors import ImageFileError

    return ImageFileError(
        f"{path}: expected enough memory to inspect it, got too little. Close other programs, or inspect it in tiles "
        "(--tiles)."
    )


def inspect_each(inspector: "Inspector", files: Sequence[Path], args: argparse.Namespace) -> Iterator[Outcome]:
    """Yield file, image and result (or the error) of each file in order."""
    if args.tiles or args.batch > 1:
        yield from (inspect_tiled if args.tiles else inspect_batches)(inspector, files, args)
        return
    done = 0
    while done < len(files):
        try:
            for outcome in inspect_stream(inspector, files[done:], args):
                done += 1
                yield outcome
        except Exception as error:
            if not lacks_memory(error):
                raise
            yield files[done], None, lacking_memory(files[done])  # the stream has ended; another goes on behind it
            done += 1


def inspect_stream(inspector: "Inspector", files: Sequence[Path], args: argparse.Namespace) -> Iterator[Outcome]:
    """Yield file, image and result (or the error); reads the next file while the engine inspects one.

    An exception other than an image's is raised in place of the first file that it may be of.
    """
    reader = Reader(inspector, is_tiled=False)
    read: deque[tuple[Path, Any]] = deque()  # filled by the stream's thread, in order

    def read_frames() -> Iterator[Any]:
        for path in files:
            taken = reader.read(path)
            if isinstance(taken, Exception):
                read.append((path, taken))
                continue
            read.append((path, taken if args.overlays else Taken(pixels=None, brightness=taken.brightness)))
            yield taken.pixels

    results = inspector.stream(read_frames(), keep_reconstruction=_shows_reconstruction(inspector, args))
    try:
        for result in results:
            path, taken = read.popleft()
            while isinstance(taken, Exception):
                yield path, None, taken
                path, taken = read.popleft()
            yield path, taken, result
    except Exception as error:
        while lacks_memory(error) and read and isinstance(read[0][1], Exception):
            path, taken = read.popleft()
            yield path, None, taken
        raise
    for path, problem in read:
        yield path, None, problem


def inspect_batches(inspector: "Inspector", files: Sequence[Path], args: argparse.Namespace) -> Iterator[Outcome]:
    """Yield file, image and result (or the error), in batches of args.batch files; one by one where memory runs out."""
    reader, reconstructs = Reader(inspector, is_tiled=False), _shows_reconstruction(inspector, args)
    for start in range(0, len(files), args.batch):
        paths = files[start : start + args.batch]
        taken = [reader.read(path) for path in paths]
        readable = [one.pixels for one in taken if not isinstance(one, Exception)]
        found = _try(paths[0], partial(inspector.inspect_batch, readable, keep_reconstruction=reconstructs))
        results = None if isinstance(found, Exception) else iter(found)
        for path, one in zip(paths, taken, strict=True):
            if isinstance(one, Exception):
                yield path, None, one
            elif results is not None:
                yield path, one, next(results)
            else:
                yield path, one, _try(path, partial(inspector.inspect, one.pixels, keep_reconstruction=reconstructs))


def inspect_tiled(inspector: "Inspector", files: Sequence[Path], args: argparse.Namespace) -> Iterator[Outcome]:
    """Yield file, image and result (or the error), each image cut into tiles."""
    reader = Reader(inspector, is_tiled=True)
    for path in files:
        taken = reader.read(path)
        if isinstance(taken, Exception):
            yield path, None, taken
        else:
            yield path, taken, _try(path, partial(inspector.inspect_large, taken.pixels))


def _try(path: Path, inspect: Callable[[], Any]) -> Any:
    """Return what inspecting gives, or what is said of the image where memory ran out."""
    try:
        return inspect()
    except Exception as error:
        if not lacks_memory(error):
            raise
        return lacking_memory(path)


def _shows_reconstruction(inspector: "Inspector", args: argparse.Namespace) -> bool:
    """Tell whether overlays are wanted and the model has a reconstruction to draw in them."""
    programs = inspector.bundle.manifest.programs.values()
    has_one = any("reconstruction" in program.outputs for by_name in programs for program in by_name.values())
    return bool(args.overlays) and has_one


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """An image that was read; `pixels` is None once they are not needed any more."""

    pixels: Any
    brightness: str | None  # against training's images; None where the bundle does not say


class Reader:
    """Reads the files of a run for one bundle; may be called from the stream's thread."""

    def __init__(self, inspector: "Inspector", *, is_tiled: bool) -> None:
        from ndp_rt.images.pages import PageReader

        manifest = inspector.bundle.manifest
        self._session, self._is_tiled = inspector.session, is_tiled
        self._white_level = manifest.input.white_level_16bit
        self._files = PageReader(white_level=self._white_level)
        self._trained = manifest.training_range

    def read(self, path: Path) -> "Taken | Exception":
        """Return the image, or the error of one that cannot be read, or has not the mask's size."""
        from ndp_rt.errors import ImageFileError, InputError
        from ndp_rt.images.white_level import judge_brightness, measure_values

        try:
            pixels = self._files.read(path)
        except ImageFileError as error:
            return error
        try:
            self._session.find_counting(pixels.shape[:2], is_tiled=self._is_tiled)
        except InputError as error:
            return InputError(f"{path}: {error}")
        except MemoryError:
            return lacking_memory(path)
        try:
            brightness = judge_brightness(measure_values(pixels), self._white_level, self._trained)
        except MemoryError:
            return lacking_memory(path)
        return Taken(pixels=pixels, brightness=brightness)


def find_level(files: list[Path]) -> int | None:
    """Return the white level that the 16-bit images among the first SAMPLED files note, and say on stderr what it is.

    None: they note none. Few images tell too little by their values, so the bundle's level stays, which training found.
    """
    from ndp_rt.errors import ImageFileError
    from ndp_rt.images.read import load_image
    from ndp_rt.images.white_level import find_noted_level, measure_values

    values = []
    for path in files[:SAMPLED]:
        with contextlib.suppress(ImageFileError):  # it becomes a row of its own
            file = load_image(path)
            values.append(measure_values(file.pixels, file.significant_bits))
    level = find_noted_level(values)
    if level is not None:
        complain(f"ndp-rt: white level {level}: the files say {level.bit_length()} bits")
    elif any(one.bits == 16 for one in values):
        complain("ndp-rt: white level: the bundle's, since the 16-bit files do not all note one number of bits")
    else:
        complain("ndp-rt: white level: the bundle's, since no image has 16 bits")
    return level
