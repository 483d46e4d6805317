"""`ndp-rt watch`: inspects images as they come into a folder."""

import argparse
import signal
import threading
from pathlib import Path

from ndp_rt.cli import EXIT_OK
from ndp_rt.cli.counting_arguments import add_counting_arguments, counting_options, tell_ignored
from ndp_rt.cli.engine_arguments import add_engine_arguments, engine_options, log_to_stderr
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import say
from ndp_rt.errors import InputError

DETAILS = """\
FOLDER and all below it are looked at again and again. A file is taken when its size and time have not changed for
--settle seconds, the oldest first; hidden files and those called .tmp or .part are not. Where files are renamed into
FOLDER, --settle 0 takes them at once. Images stay where they are, or go when their row is on the disk (--move-to,
--delete).

OUT/results-000001.jsonl (or .parquet) has the columns of ndp-rt inspect, and size_bytes, modified_ns and inspected; a
new part begins after --rotate rows and each day (UTC). Rows of JSON lines are there as they come, those of Parquet when
their part is ended.

Started again with the same OUT it goes on: what has a row there is not inspected again, unless its content is new.
A full disk or a share that is away does not end it: images wait, and it tries again. Images that could not be inspected
have a row with the error, and stay in FOLDER. Of a file with several pages --page chooses one, or all, each with a row
of its own, whose path is FILE[PAGE]. SIGTERM or Ctrl-C end it.

Exit code: 0 ended by a signal or --stop-after-idle; 1 an error; 2 wrong usage.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    add("folder", metavar="FOLDER", type=Path, help="the folder to watch")
    add("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the results, outside FOLDER")
    add("--format", choices=("jsonl", "parquet"), default="jsonl", help="default: %(default)s; parquet: [parquet]")
    add("--rotate", type=int, default=10_000, metavar="N", help="rows of a part (default: %(default)s)")
    add("--settle", type=float, default=1.0, metavar="S", help="unchanged so long: complete (default: %(default)s)")
    add("--poll", type=float, default=0.2, metavar="S", help="seconds between two looks (default: %(default)s)")
    add("--stop-after-idle", type=float, metavar="S", help="end when nothing has come for S seconds")
    put_away = parser.add_mutually_exclusive_group()
    put_away.add_argument("--move-to", metavar="DIR", type=Path, help="where images go when they are done")
    put_away.add_argument("--delete", action="store_true", help="remove images when they are done")
    add("--overlays", action="store_true", help="also a picture per image in OUT/overlays")
    add("--maps", action="store_true", help="also the float32 map per image in OUT/maps (.npy)")
    add("--tiles", action="store_true", help="inspect in tiles of the network's size, without resizing")
    add_page(parser, takes_all=True)
    add("--threshold", metavar="T", type=float, help="instead of the bundle's threshold")
    add("--mm-per-pixel", metavar="X", type=float, help="also state defects in millimetres")
    add("--require-signature", metavar="KEY", type=Path, help="a public key that the bundle has to be signed with")
    add_counting_arguments(parser)
    add_engine_arguments(parser)


def check_folders(folder: Path, *others: Path | None) -> None:
    """Check that what is written lies outside the watched folder.

    Raises:
        InputError: it lies in it.
    """
    for other in others:
        if other is not None and other.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{other}: expected a folder outside of {folder}, which is watched, got one in it.")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ndp_rt.files import locking
    from ndp_rt.folders.hot_folder import HotFolder
    from ndp_rt.folders.recording import Recorder
    from ndp_rt.folders.rotation import RotatingTable
    from ndp_rt.folders.watch import Watcher, WatchOptions
    from ndp_rt.inspector import Inspector
    from ndp_rt.pipeline.sinks import check_format

    for name in ("rotate", "settle", "poll", "stop_after_idle"):
        value, least = getattr(args, name), 1 if name == "rotate" else 0
        if value is not None and not least <= value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')}: expected a number from {least} on, got {value}.")
    check_format(args.format)
    hot = HotFolder(args.folder.resolve(), args.settle, page=args.page)
    check_folders(args.folder, args.out, args.move_to)
    options = WatchOptions(
        poll_s=args.poll,
        idle_s=args.stop_after_idle,
        is_tiled=args.tiles,
        keeps_pixels=args.overlays,
        move_to=args.move_to,
        deletes=args.delete,
    )
    log_to_stderr()
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with (
            Inspector.open(
                args.bundle,
                threshold=args.threshold,
                mm_per_pixel=args.mm_per_pixel,
                require_signature=args.require_signature,
                **counting_options(args),
                **engine_options(args),
            ) as inspector,
            locking(args.out),
            RotatingTable(args.out, args.format, inspector.stage_names, args.rotate) as table,
        ):
            hot.load_done(args.out)
            tell_ignored(inspector)
            recorder = Recorder(args.out, table, inspector, with_overlays=args.overlays, with_maps=args.maps)
            say(f"watching {args.folder}; results: {table.path}")
            Watcher(inspector, hot, recorder, table, options, say).run(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    say(f"{recorder.tally.describe()}. Results: {args.out}")
    return EXIT_OK
