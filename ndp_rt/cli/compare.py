"""`ndp-rt compare`: several bundles side by side on one labelled folder."""

import argparse
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli.engine_arguments import ENGINE_ARGUMENTS, add_engine_arguments, describe_engine, log_to_stderr
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import make_console
from ndp_rt.cli.terminal import show as show_name
from ndp_rt.errors import StorageError

if TYPE_CHECKING:
    from rich.table import Table

    from ndp_rt.evaluate.record import Record

EXIT_LEFT_OUT = 4
SHOWN = 5  # entries that are named
DETAILS = """\
DATA has MVTec's layout, as for ndp-rt evaluate, and every bundle inspects all of its test images with the same engine
options. Found and false alarms are the shares of defective and of good images that a bundle calls defective at its own
threshold.

Then the bundles are timed, each in a process of its own, which is first compared with the bundle's golden vectors and
warmed up until its times are stable. They take turns in rounds, so that a machine that slows down slows all. The time
is the median from an image in memory to its decision, over images of DATA. ndp-rt bench measures more of one bundle.

FILE is refused if it is there, unless --overwrite is given.

Exit code: 0 done; 4 done, but a file was left out or a bundle could not be timed; 1 an error; 130 Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundles", metavar="NAME.ndp", type=Path, nargs="+", help="two bundles or more")
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with test/ and ground_truth/")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="JSON file (default: DATA-comparison.json)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="time each bundle for S at least (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the JSON file of an earlier comparison")
    add_page(parser)
    add_engine_arguments(parser, may_fall_back=False)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that the record may be written to a file.

    Raises:
        StorageError: it is there, and `overwrite` is False; or it is a folder.
    """
    if out.is_dir():
        raise StorageError(f"{out}: expected a file, got a folder. Give a name such as {out / 'comparison.json'}.")
    if out.exists() and not overwrite:
        raise StorageError(
            f"{out}: expected no file of an earlier comparison, got one. Choose another with -o, or pass --overwrite."
        )


def run(args: argparse.Namespace) -> int:
    """Measure the bundles, print the table and write the record."""
    from rich.markup import escape

    from ndp_rt.bench.request import check_above_zero
    from ndp_rt.bench.side_by_side import compare_accuracy, compare_times, open_bundles
    from ndp_rt.cli.progress import show_progress
    from ndp_rt.engines.spec import EngineSpec
    from ndp_rt.evaluate.record import write_record

    def start_progress(name: str, count: int) -> AbstractContextManager[Callable[[], None]]:
        return show_progress(f"{name}: inspecting", count)

    check_above_zero("seconds", args.seconds)
    out = args.out or Path(f"{args.data.resolve().name}-comparison.json")
    check_out(out, overwrite=args.overwrite)
    bundles = open_bundles(args.bundles)
    spec = EngineSpec(**{name: getattr(args, name) for name in ENGINE_ARGUMENTS})
    paths = [str(path) for path in args.bundles]
    command = ["ndp-rt", "compare", *paths, str(args.data), *describe_engine(args), "--seconds", f"{args.seconds:g}"]
    command += [] if args.page is None else ["--page", str(args.page)]
    log_to_stderr()
    record = compare_accuracy(bundles, args.data, spec, start_progress, shlex.join(command), args.page)
    with make_console(stderr=True).status("timing") as status:
        compare_times(record, bundles, args.data, args.seconds, lambda line: status.update(escape(line)))
    console = make_console()
    engine = f"{args.backend or args.device}, {args.precision}"
    console.print(make_table(record, f"{args.data.resolve().name}: {engine}"))  # first: a full disk loses no figures
    for sentence in list_sentences(record):
        console.print(show_name(sentence), soft_wrap=True, markup=False)
    check_out(out, overwrite=args.overwrite)  # another run may have written it since
    write_record(record, out)
    console.print(show_name(f"Wrote {out}"), soft_wrap=True, markup=False)
    is_whole = not record["refused"] and not any(row["figures"]["excluded"] for row in record["rows"])
    return 0 if is_whole else EXIT_LEFT_OUT


def make_table(record: "Record", title: str) -> "Table":
    """Return a row for each bundle."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from ndp_rt.evaluate.plots import format_figure

    table = Table(title=escape(show_name(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("bundle", overflow="fold")
    for heading in ("image\nROCAUC", "pixel\nROCAUC", "AUPRO", "found", "false\nalarms", "ms", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)  # names give way where the terminal is narrow
    for row in record["rows"]:
        overall, timing = row["figures"]["overall"], row["timing"]
        table.add_row(
            escape(show_name(row["name"])),
            *(format_figure(overall[name]) for name in ("image_rocauc", "pixel_rocauc", "aupro")),
            *format_decisions(row["figures"]["confusion"]),
            "-" if timing is None else f"{timing['latency']['p50_ms']:.1f}",
            f"{row['size_bytes'] / 1e6:.2f}",
        )
    return table


def format_decisions(confusion: dict[str, Any] | None) -> tuple[str, str]:
    """Return the shares of defects found and of false alarms, a dash each where nothing was decided."""
    if confusion is None:
        return "-", "-"
    found, alarms = confusion["found_count"], confusion["false_alarm_count"]
    return (
        format_share(found, found + confusion["missed_count"]),
        format_share(alarms, alarms + confusion["passed_count"]),
    )


def format_share(count: int, total: int) -> str:
    """Return a share in percent, a dash where there is nothing to count."""
    return f"{100 * count / total:.1f} %" if total else "-"


def list_sentences(record: "Record") -> list[str]:
    """Return what the table does not say."""
    sentences = []
    for row in record["rows"]:
        excluded_count = len(row["figures"]["excluded"])
        if row["figures"]["threshold"] is None:
            precision = row["engine"]["precision"]
            sentences.append(
                f"{row['name']} has no threshold for {precision}, so nothing was decided: ndp-rt set-threshold"
            )
        if excluded_count:
            were = " was" if excluded_count == 1 else "s were"
            sentences.append(f"{row['name']}: {excluded_count} file{were} left out; the JSON file says why.")
    others = record["rows"][0]["figures"].get("left_out", []) if record["rows"] else []
    if others:
        names = ", ".join(one["path"] for one in others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        sentences.append(f"{len(others)} entries of the data are no images or masks of them: {names}.")
    sentences += [f"{name} was not timed: {reason}" for name, reason in record["refused"].items()]
    settings, timed = record["settings"], [row for row in record["rows"] if row["timing"] is not None]
    if timed:
        counts = ", ".join(str(row["timing"]["warm_up"]["query_count"]) for row in timed)
        sentences.append(
            f"ms: median from an image in memory to its decision, over {settings['timed_image_count']} images of the "
            f"data. The bundles took turns in {settings['rounds']} rounds, after {counts} inspections to warm up."
        )
    unstable = [row["name"] for row in timed if not row["timing"]["warm_up"]["is_stable"]]
    if unstable:
        sentences.append(f"Times were still changing after the warm-up: {', '.join(unstable)}. Give more --seconds.")
    sentences.append("MB: all files of the bundle, golden vectors and calibration images included.")
    return sentences
