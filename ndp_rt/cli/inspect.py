"""`ndp-rt inspect`: inspects image files and writes a table of results."""

import argparse
import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli import EXIT_DEFECTS, EXIT_OK, EXIT_UNREADABLE
from ndp_rt.cli.archive_arguments import add_archive_arguments, wants_workers
from ndp_rt.cli.counting_arguments import add_counting_arguments, counting_options, tell_ignored
from ndp_rt.cli.engine_arguments import add_engine_arguments, engine_options, log_to_stderr
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import complain, say
from ndp_rt.cli.white_level import parse_white_level

if TYPE_CHECKING:
    from ndp_rt.bundle.open import Bundle
    from ndp_rt.folders.recording import Tally
    from ndp_rt.images.listing import LeftOut

AUTO = "auto"
SAMPLED = 16  # files that the white level is read from
DETAILS = """\
PATH is an image, a folder (searched with all below it, through links too) or a quoted pattern such as 'day/**/*.png'.
What is an image, its content decides. Each file is inspected once; entries of a folder that are no images are counted,
named, and listed in OUT/left_out.txt. Of a file with several pages --page chooses one, or all, each with a row of its
own, whose path is FILE[PAGE]; 'scan.tif[2]' as PATH is the second page too. OUT is a folder; it is made, and refused if
it holds results of an earlier run, unless --overwrite is given, or if another run is writing to it.

OUT/results.csv (or .jsonl, .parquet) has one row per image in the order of PATH: path, status (ok, error), decision
(good, defect), score, threshold, brightness (as trained, darker, brighter; faint), size, milliseconds per stage,
engine_hash, defects (box, area and peak, in pixels of the image, and in mm with --mm-per-pixel; with --contours also
the points [x, y] where the outline turns; a list of structs in Parquet, JSON in CSV), the names of overlay and map, and
the error of an image that could not be read. Rows are kept whatever ends the run; a run that was killed leaves those of
a Parquet file in OUT/results.parquet.part.jsonl.

With --workers or --ray OUT has a Parquet file per shard instead, written whole or not at all. A run with the same OUT
inspects what is left: images without a row, with an error, or whose file has changed. Paths in rows are absolute.

--ignore takes an image of two values: 0 counts, the other does not. An image of another size than the mask's becomes a
row with an error. Scores, decisions, defects and overlays are of what counts; use set-threshold --calibrate with the
same --ignore and --smallest-area.

Exit code: 0 no defects; 3 defects found; 4 some images could not be read (the others were inspected); 1 an error;
2 wrong usage; 130 Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="images, folders, patterns")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--format",
        choices=("csv", "jsonl", "parquet"),
        help="default: csv; parquet, which several workers write, needs the extra [parquet]",
    )
    parser.add_argument("--overlays", action="store_true", help="also a picture per image in OUT/overlays")
    parser.add_argument("--maps", action="store_true", help="also the float32 map per image in OUT/maps (.npy)")
    parser.add_argument("--contours", action="store_true", help="also the outline of each defect, as a list of points")
    add_counting_arguments(parser)
    parser.add_argument("--smallest-area-mm2", metavar="X", type=parse_number, help="likewise, with --mm-per-pixel")
    parser.add_argument("--mm-per-pixel", metavar="X", type=float, help="also state defects in millimetres")
    parser.add_argument(
        "--white-level",
        metavar="N|auto",
        type=lambda text: AUTO if text == AUTO else parse_white_level(text),
        help="the value of 16-bit images that is white; auto: what files note (default: the bundle's)",
    )
    add_page(parser, takes_all=True)
    parser.add_argument("--threshold", metavar="T", type=parse_number, help="instead of the bundle's threshold")
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="images per run of the engine (default: 1)")
    parser.add_argument("--tiles", action="store_true", help="inspect in tiles of the network's size, without resizing")
    parser.add_argument(
        "--require-signature", metavar="KEY", type=Path, help="a public key that the bundle has to be signed with"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results of an earlier run in OUT")
    add_engine_arguments(parser)
    add_archive_arguments(parser)


def parse_number(text: str) -> float:
    """Read a finite number: JSON, and so a table, has no others."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return number


def find_exit_code(tally: "Tally") -> int:
    """Return the exit code of a run's outcome."""
    if tally.error_count:
        return EXIT_UNREADABLE
    return EXIT_DEFECTS if tally.defect_count else EXIT_OK


def run(args: argparse.Namespace) -> int:
    """Inspect everything and return the exit code of the outcome."""
    from ndp_rt.cli.inspect_archive import run_archive
    from ndp_rt.cli.progress import show_progress
    from ndp_rt.files import locking
    from ndp_rt.folders.inspect_files import inspect_files
    from ndp_rt.folders.recording import Recorder
    from ndp_rt.images.listing import list_images
    from ndp_rt.images.pages import choose_pages
    from ndp_rt.inspector import Inspector
    from ndp_rt.pipeline.sinks import FORMATS, ResultTable, check_folder, check_format, clear_folder

    log_to_stderr()
    if wants_workers(args):
        return run_archive(args)
    table_format = args.format or FORMATS[0]
    check_format(table_format)
    listing = list_images(args.paths, excluded=args.out)
    check_folder(args.out, overwrite=args.overwrite)
    files = choose_pages(listing.files, args.page)
    with (
        Inspector.open(**opening_options(args, files)) as inspector,
        locking(args.out),
    ):
        check_folder(args.out, overwrite=args.overwrite)  # another run may have ended since
        clear_folder(args.out)
        tell_left_out(listing.left_out, args.out)
        tell_ignored(inspector)
        with ResultTable(args.out, table_format, inspector.stage_names) as table:
            recorder = Recorder(args.out, table, inspector, with_overlays=args.overlays, with_maps=args.maps)
            found = inspect_files(
                inspector,
                files,
                batch=args.batch,
                is_tiled=args.tiles,
                keeps_pixels=args.overlays,
                keep_reconstruction=shows_reconstruction(inspector.bundle, args),
            )
            try:
                with show_progress("inspecting", len(files)) as advance:
                    for one in found:
                        recorder.add(one)
                        advance()
            except KeyboardInterrupt:
                complain(f"ndp-rt: stopped after {table.row_count} of {len(files)} images")
                raise
    recorder.tally.left_out_count = len(listing.left_out)
    tell_outcome(recorder.tally, len(files), table.path)
    return find_exit_code(recorder.tally)


def opening_options(args: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """Return the arguments as keywords of `Inspector.open`."""
    return {
        "bundle": args.bundle,
        "batches": tuple(sorted({1, args.batch})),
        "threshold": args.threshold,
        "mm_per_pixel": args.mm_per_pixel,
        "require_signature": args.require_signature,
        "white_level": find_level(files) if args.white_level == AUTO else args.white_level,
        "smallest_area_mm2": args.smallest_area_mm2,
        "contours": args.contours,
        **counting_options(args),
        **engine_options(args),
    }


def tell_outcome(tally: "Tally", file_count: int, table: Path) -> None:
    """Say what was inspected, and on stderr what was not read and what is of an unusual brightness."""
    from ndp_rt.folders.recording import UNUSUAL

    for text in tally.errors:
        complain(f"ndp-rt: not read: {text}")
    if tally.error_count > len(tally.errors):
        complain(f"ndp-rt: and {tally.error_count - len(tally.errors)} more; all are in {table}")
    for brightness, count in tally.unusual.items():
        complain(
            f"ndp-rt: {count} of {file_count} images {UNUSUAL[brightness]}, such as {tally.unusual_paths[brightness]}: "
            "their scores may mean nothing. Check the light, and the white level of 16-bit images (--white-level)."
        )
    say(f"{tally.describe()}. Results: {table}")


def tell_left_out(left_out: "Sequence[LeftOut]", out: Path) -> None:
    """Name the entries of folders that are no images: on stderr, and all of them in OUT."""
    from ndp_rt.files import storing, write_atomically
    from ndp_rt.images.listing import describe_left_out
    from ndp_rt.pipeline.sinks import LEFT_OUT_FILE

    if left_out:
        lines = "".join(f"{one.describe()}\n" for one in left_out)
        write_atomically(out / LEFT_OUT_FILE, lines.encode("utf-8", "surrogateescape"))
        complain(f"ndp-rt: {describe_left_out(left_out)}")
    else:
        with storing(out / LEFT_OUT_FILE):
            (out / LEFT_OUT_FILE).unlink(missing_ok=True)


def shows_reconstruction(bundle: "Bundle", args: argparse.Namespace) -> bool:
    """Tell whether overlays are wanted and the model has a reconstruction to draw in them."""
    programs = bundle.manifest.programs.values()
    has_one = any("reconstruction" in program.outputs for by_name in programs for program in by_name.values())
    return bool(args.overlays) and has_one


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
