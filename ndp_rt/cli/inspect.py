"""`ndp-rt inspect`: inspects image files and writes a table of results."""

import argparse
import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli import EXIT_DEFECTS, EXIT_OK, EXIT_UNREADABLE
from ndp_rt.cli.counting_arguments import add_counting_arguments, counting_options, tell_ignored
from ndp_rt.cli.engine_arguments import add_engine_arguments, engine_options, log_to_stderr
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import complain, say
from ndp_rt.cli.white_level import parse_white_level

if TYPE_CHECKING:
    from ndp_rt.cli.inspected import Taken
    from ndp_rt.images.listing import Listing
    from ndp_rt.inspector import Inspector
    from ndp_rt.pipeline.sinks import ResultTable
    from ndp_rt.result import Result

SHOWN_ERRORS = 5
AUTO = "auto"
UNUSUAL: dict[str | None, str] = {
    "darker": "are darker than all that training saw",
    "brighter": "are brighter than all that training saw",
    "faint": "of 16 bits use less than an eighth of the range up to white",
}
LONGEST_STEM_BYTES = 200
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
        default="csv",
        help="default: %(default)s; parquet needs the extra [parquet]",
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


def parse_number(text: str) -> float:
    """Read a finite number: JSON, and so a table, has no others."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return number


@dataclass(kw_only=True)
class Tally:
    """Counts of a run's good, defective and unreadable images."""

    good_count: int = 0
    defect_count: int = 0
    left_out_count: int = 0
    unusual: dict[str | None, list[Path]] = field(default_factory=lambda: {name: [] for name in UNUSUAL})
    errors: list[str] = field(default_factory=list)

    def find_exit_code(self) -> int:
        if self.errors:
            return EXIT_UNREADABLE
        return EXIT_DEFECTS if self.defect_count else EXIT_OK

    def describe(self) -> str:
        count = self.good_count + self.defect_count
        images = "image" if count == 1 else "images"
        text = f"{count} {images} inspected: {self.good_count} good, {self.defect_count} with defects"
        text = f"{text}; {len(self.errors)} could not be read" if self.errors else text
        entries = "entry" if self.left_out_count == 1 else "entries"
        return f"{text}; {self.left_out_count} {entries} left out" if self.left_out_count else text


class Recorder:
    """Turns results into rows and pictures."""

    def __init__(self, out: Path, table: "ResultTable", inspector: "Inspector", args: argparse.Namespace) -> None:
        self._out = out
        self._table = table
        self._engine_hash = inspector.engine_hash
        self._white_level = inspector.bundle.manifest.input.white_level_16bit
        self._with_overlays: bool = args.overlays
        self._with_maps: bool = args.maps
        self.tally = Tally()

    def add_result(self, path: Path, taken: "Taken", result: "Result") -> None:
        """Write an image's overlay and map, then the row that names them."""
        from ndp_rt.images.page_names import split_page
        from ndp_rt.pipeline.sinks import make_row

        # The row's number keeps pictures of files with the same name in different folders apart.
        page = split_page(path)[1]
        name = f"{self._table.row_count:05d}-{_shorten(path.stem)}" + ("" if page is None else f"-page{page}")
        overlay = map_file = None
        if self._with_overlays:
            overlay = self._write(f"overlays/{name}.png", self._draw(path, taken.pixels, result))
        if self._with_maps:
            map_file = self._write(f"maps/{name}.npy", _encode_map(result))
        row = make_row(
            str(path),
            result,
            self._engine_hash,
            overlay=overlay,
            map_file=map_file,
            brightness=taken.brightness,
        )
        self._table.add(row)
        if taken.brightness in self.tally.unusual:
            self.tally.unusual[taken.brightness].append(path)
        if result.is_defect:
            self.tally.defect_count += 1
        else:
            self.tally.good_count += 1

    def add_error(self, path: Path, error: Exception) -> None:
        """Write the row of a file that could not be read."""
        from ndp_rt.pipeline.sinks import make_error_row

        self._table.add(make_error_row(str(path), error))
        self.tally.errors.append(str(error))

    def _draw(self, path: Path, image: Any, result: "Result") -> bytes:
        from ndp_rt.pipeline.overlays import draw_overlay, encode_png

        return encode_png(draw_overlay(image, result, path.name, white_level_16bit=self._white_level))

    def _write(self, name: str, content: bytes) -> str:
        from ndp_rt.files import write_atomically

        write_atomically(self._out / name, content)
        return name


def _shorten(stem: str) -> str:
    """Return the start of a name, so that with number and suffix it fits into a file name's 255 bytes."""
    content = os.fsencode(stem)
    return stem if len(content) <= LONGEST_STEM_BYTES else content[:LONGEST_STEM_BYTES].decode("utf-8", "ignore")


def _encode_map(result: "Result") -> bytes:
    import numpy as np

    content = io.BytesIO()
    np.save(content, result.anomaly_map)
    return content.getvalue()


def run(args: argparse.Namespace) -> int:
    """Inspect everything and return the exit code of the outcome."""
    from ndp_rt.cli.inspected import find_level
    from ndp_rt.files import locking
    from ndp_rt.images.listing import list_images
    from ndp_rt.images.pages import choose_pages
    from ndp_rt.inspector import Inspector
    from ndp_rt.pipeline.sinks import ResultTable, check_folder, check_format, clear_folder

    log_to_stderr()
    check_format(args.format)
    listing = list_images(args.paths, excluded=args.out)
    check_folder(args.out, overwrite=args.overwrite)
    files = choose_pages(listing.files, args.page)
    batches = tuple(sorted({1, args.batch}))
    with (
        Inspector.open(
            args.bundle,
            batches=batches,
            threshold=args.threshold,
            mm_per_pixel=args.mm_per_pixel,
            require_signature=args.require_signature,
            white_level=find_level(files) if args.white_level == AUTO else args.white_level,
            smallest_area_mm2=args.smallest_area_mm2,
            contours=args.contours,
            **counting_options(args),
            **engine_options(args),
        ) as inspector,
        locking(args.out),
    ):
        check_folder(args.out, overwrite=args.overwrite)  # another run may have ended since
        clear_folder(args.out)
        tell_left_out(listing, args.out)
        tell_ignored(inspector)
        with ResultTable(args.out, args.format, inspector.stage_names) as table:
            recorder = Recorder(args.out, table, inspector, args)
            try:
                inspect_files(inspector, files, recorder, args)
            except KeyboardInterrupt:
                complain(f"ndp-rt: stopped after {table.row_count} of {len(files)} images")
                raise
    tally = recorder.tally
    tally.left_out_count = len(listing.left_out)
    for text in tally.errors[:SHOWN_ERRORS]:
        complain(f"ndp-rt: not read: {text}")
    if len(tally.errors) > SHOWN_ERRORS:
        complain(f"ndp-rt: and {len(tally.errors) - SHOWN_ERRORS} more; all are in {table.path}")
    for brightness, paths in tally.unusual.items():
        if paths:
            complain(
                f"ndp-rt: {len(paths)} of {len(files)} images {UNUSUAL[brightness]}, such as {paths[0]}: their scores "
                "may mean nothing. Check the light, and the white level of 16-bit images (--white-level)."
            )
    say(f"{tally.describe()}. Results: {table.path}")
    return tally.find_exit_code()


def tell_left_out(listing: "Listing", out: Path) -> None:
    """Name the entries of folders that are no images: on stderr, and all of them in OUT."""
    from ndp_rt.files import write_atomically
    from ndp_rt.images.listing import describe_left_out
    from ndp_rt.pipeline.sinks import LEFT_OUT_FILE

    if listing.left_out:
        lines = "".join(f"{one.describe()}\n" for one in listing.left_out)
        write_atomically(out / LEFT_OUT_FILE, lines.encode("utf-8", "surrogateescape"))
        complain(f"ndp-rt: {describe_left_out(listing.left_out)}")


def inspect_files(inspector: "Inspector", files: list[Path], recorder: Recorder, args: argparse.Namespace) -> None:
    """Read and inspect the files, recording each in their order; memory that runs out costs one of them."""
    from ndp_rt.cli.inspected import inspect_each, lacking_memory, lacks_memory
    from ndp_rt.cli.progress import show_progress

    with show_progress("inspecting", len(files)) as advance:
        for path, taken, outcome in inspect_each(inspector, files, args):
            try:
                if isinstance(outcome, Exception):
                    recorder.add_error(path, outcome)
                else:
                    recorder.add_result(path, taken, outcome)
            except Exception as error:
                if not lacks_memory(error):
                    raise
                recorder.add_error(path, lacking_memory(path))
            advance()
