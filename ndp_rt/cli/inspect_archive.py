"""`ndp-rt inspect` with several workers: an archive, in shards."""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.archive_arguments import find_workers, tell_worker
from ndp_rt.cli.counting_arguments import tell_ignored_share
from ndp_rt.cli.inspect import (
    SAMPLED,
    find_exit_code,
    opening_options,
    shows_reconstruction,
    tell_left_out,
    tell_outcome,
)
from ndp_rt.cli.terminal import complain
from ndp_rt.errors import InputError

if TYPE_CHECKING:
    from ndp_rt.archive.inspect_shard import Drawing
    from ndp_rt.archive.path_list import PathList
    from ndp_rt.folders.recording import Tally
    from ndp_rt.images.listing import LeftOut


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the paths of the command line mean.

    Attributes:
        files: images and pages, absolute.
        first: the first SAMPLED of them.
        left_out: entries of folders that are no images.
    """

    files: "PathList"
    first: list[Path]
    left_out: "list[LeftOut]"


def run_archive(args: argparse.Namespace) -> int:
    """Inspect with several workers what OUT lacks, and return the exit code of all that was asked for."""
    from ndp_rt.pipeline.sinks import ARCHIVE_FILE, check_folder, check_format

    if args.format not in (None, "parquet"):
        raise InputError(f"--format: expected parquet, which several workers write, got {args.format}.")
    check_format("parquet")
    out = args.out.absolute()

    def check_out() -> None:
        check_folder(out, overwrite=args.overwrite or (out / ARCHIVE_FILE).is_file())

    check_out()
    with find_images_of(args, out) as found:
        tally, key = _inspect(args, out, found, check_out)
        tally.left_out_count = len(found.left_out)
        tell_outcome(tally, len(found.files), out / f"part-*-{key}.parquet")
    return find_exit_code(tally)


@contextlib.contextmanager
def find_images_of(args: argparse.Namespace, out: Path) -> Iterator[Found]:
    """Give the images that paths name, each once; memory holds few of them.

    Raises:
        InputError: as `list_images` and `choose_pages`.
        StorageError: no space for a list of them.
    """
    from ndp_rt.archive.path_list import writing_paths
    from ndp_rt.images.listing import LeftOut, find_images
    from ndp_rt.images.page_names import split_page
    from ndp_rt.images.pages import choose_pages

    first, others = list[Path](), dict[str, LeftOut]()

    def find_paths() -> Iterator[Path]:
        for one in find_images(args.paths, excluded=out):
            if isinstance(one, LeftOut):
                others.setdefault(os.path.abspath(one.path), one)
                continue
            for path in map(make_absolute, choose_pages([one], args.page)):
                if len(first) < SAMPLED:
                    first.append(path)
                yield path

    with writing_paths(find_paths()) as files:
        if others and len(args.paths) > 1:  # another path may name one of them
            for path in map(str, files):
                others.pop(str(split_page(path)[0]), None)
        yield Found(files=files, first=first, left_out=list(others.values()))


def _inspect(args: argparse.Namespace, out: Path, found: Found, check_out: Callable[[], None]) -> "tuple[Tally, str]":
    """Inspect what is left, and return the counts of all and what the names of the files end with."""
    from ndp_rt.archive.run import inspect_archive
    from ndp_rt.archive.shards import drop_temporary_files
    from ndp_rt.cli.progress import show_progress
    from ndp_rt.files import locking
    from ndp_rt.images.masks import take_ignore_mask
    from ndp_rt.options import make_options
    from ndp_rt.pipeline.sinks import clear_folder

    opening = opening_options(args, found.first) | {"bundle": str(args.bundle.absolute())}
    make_options(channels="rgb", build=True, **opening)  # refuses before anything starts
    if args.ignore is not None:
        opening["ignore_mask"] = take_ignore_mask(args.ignore)
        tell_ignored_share(opening["ignore_mask"])
    if args.require_signature is not None:
        opening["require_signature"] = args.require_signature.absolute()
    drawing = choose_drawing(args)
    with locking(out), find_workers(args) as (threads, make_seats):
        check_out()  # another run may have ended since
        if args.overwrite:
            clear_folder(out)
        drop_temporary_files(out)
        tell_left_out(found.left_out, out)
        done_count = 0

        with show_progress("inspecting", len(found.files)) as advance:

            def count(image_count: int) -> None:
                nonlocal done_count
                done_count += image_count
                advance(image_count)

            opening["threads"] = threads
            try:
                return inspect_archive(found.files, opening, out, drawing, make_seats, advance=count, tell=tell_worker)
            except KeyboardInterrupt:
                complain(f"ndp-rt: stopped after {done_count} of {len(found.files)} images")
                raise


def choose_drawing(args: argparse.Namespace) -> "Drawing":
    """Return what several workers keep beside rows."""
    from ndp_rt.archive.inspect_shard import Drawing
    from ndp_rt.bundle.open import open_bundle

    return Drawing(
        batch=args.batch,
        is_tiled=args.tiles,
        with_overlays=args.overlays,
        with_maps=args.maps,
        keep_reconstruction=shows_reconstruction(open_bundle(args.bundle), args) and not args.tiles,
    )


def make_absolute(path: Path) -> Path:
    """Return the absolute path of the same file, without '..'; links before that are followed, no others."""
    if ".." not in path.parts:
        return path.absolute()
    end = len(path.parts) - path.parts[::-1].index("..")
    return Path(*path.parts[:end]).resolve().joinpath(*path.parts[end:])
