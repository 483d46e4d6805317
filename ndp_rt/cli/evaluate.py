"""`ndp-rt evaluate`: measures a bundle's accuracy on labelled images."""

import argparse
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.archive_arguments import add_archive_arguments, find_workers, tell_worker, wants_workers
from ndp_rt.cli.build_engine import parse_count
from ndp_rt.cli.counting_arguments import add_counting_arguments, counting_options, repeat_counting
from ndp_rt.cli.engine_arguments import add_engine_arguments, describe_engine, engine_options, log_to_stderr
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import make_console
from ndp_rt.cli.terminal import show as show_name
from ndp_rt.errors import StorageError

if TYPE_CHECKING:
    from rich.table import Table

    from ndp_rt.evaluate.record import Record
    from ndp_rt.evaluate.run import Evaluation

EXIT_LEFT_OUT = 4
PAGE, EXPLAINED_COUNT = "explain.html", 8
RECORD, SCORES = "evaluation.json", "scores.png"
FILES = (RECORD, SCORES, PAGE)
DETAILS = """\
DATA has MVTec's layout: test/good, test/KIND, and ground_truth/KIND/NAME_mask.png (0: good, one other value: defect).
An image that cannot be read is left out; one whose mask is missing or does not fit is left out of the pixel figures
only. Both are listed, and so is what is no image. Maps are compared with the masks at each image's own size. Images
and masks may lie in sub-folders; ground_truth/KIND/NAME/ may hold several masks of one image (MVTec LOCO).

OUT is refused if it holds an earlier run's files, unless --overwrite is given.

With --ignore, what is marked there counts for no figure; images of another size are left out. With --smallest-area,
scores and decisions are of regions of that area or more; pixel figures are of the map as it is.

--explain also writes OUT/explain.html, one page that needs no other file: the N defective images with the lowest scores
and the N good ones with the highest, each with its map, its mask's outline and the regions that reach the threshold.

Image ROCAUC ranks images by score; pixel ROCAUC ranks all pixels together; AUPRO is the area under the per-region
overlap up to a false positive rate of 0.3, divided by 0.3. Each row compares one kind of defect with all good images.

Exit code: 0 done; 4 done, but something was left out; 1 an error; 130 Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    parser.add_argument("data", metavar="DATA", type=Path, help="folder with test/ and ground_truth/")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, help="folder to write to (default: NAME-evaluation)")
    parser.add_argument(
        "--explain",
        metavar="N",
        type=parse_count,
        nargs="?",
        const=EXPLAINED_COUNT,
        help="also write a page of the N worst misses and the N worst false alarms (N without a number: %(const)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in OUT")
    add_page(parser)
    add_counting_arguments(parser)
    add_engine_arguments(parser)
    add_archive_arguments(parser)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that results may be written to a folder.

    Raises:
        StorageError: it holds an earlier run's files, and `overwrite` is False.
    """
    old = [name for name in FILES if (out / name).exists()]
    if old and not overwrite:
        raise StorageError(
            f"{out}: expected no results of an earlier run, got {old[0]}. Choose another folder with -o, or pass "
            "--overwrite."
        )


def show(count: int | None) -> str:
    """Return a count for the table, a dash where there is none."""
    return "-" if count is None else str(count)


def make_table(evaluation: "Evaluation", title: str) -> "Table":
    """Return the figures as a table: a row a kind, the good images, and all defects together."""
    from rich.markup import escape
    from rich.table import Table

    from ndp_rt.evaluate.plots import format_figure

    table = Table(title=escape(title), title_justify="left")
    table.add_column("kind")
    for heading in ("images", "called defective", "image ROCAUC", "pixel ROCAUC", "AUPRO"):
        table.add_column(heading, justify="right")
    alarms = None if evaluation.confusion is None else evaluation.confusion.false_alarm_count
    table.add_row("good", str(evaluation.scores_of("good").size), show(alarms), "", "", "", end_section=True)
    for row in (*evaluation.kinds, evaluation.overall):
        table.add_row(
            escape(show_name(row.kind)),
            str(row.image_count),
            show(row.flagged_count),
            format_figure(row.image_rocauc),
            format_figure(row.pixel_rocauc),
            format_figure(row.aupro),
            end_section=row in evaluation.kinds[-1:],
        )
    return table


def evaluate_data(args: argparse.Namespace, data: Path, command: list[str]) -> "tuple[Evaluation, Record]":
    """Inspect the images, here or by several workers, and return the figures and their record."""
    from ndp_rt.cli.progress import show_progress
    from ndp_rt.engines.spec import EngineSpec
    from ndp_rt.evaluate.run import evaluate_bundle

    options = engine_options(args)
    fallback = options.pop("fallback")
    with contextlib.ExitStack() as stack:
        make_seats = None
        if wants_workers(args):
            options["threads"], make_seats = stack.enter_context(find_workers(args))
        return evaluate_bundle(
            args.bundle,
            data,
            EngineSpec(**options),
            fallback=fallback,
            page=args.page,
            start_progress=lambda count: show_progress("inspecting", count),
            command=shlex.join(command),
            make_seats=make_seats,
            tell=tell_worker,
            **counting_options(args),
        )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write evaluation.json, scores.png and, if asked for, explain.html."""

    from ndp_rt.bundle.open import open_bundle
    from ndp_rt.evaluate.explain import write_page
    from ndp_rt.evaluate.plots import draw_scores
    from ndp_rt.evaluate.record import write_record
    from ndp_rt.files import locking
    from ndp_rt.images.listing import describe_left_out

    out = args.out or Path(f"{args.bundle.resolve().stem}-evaluation")
    console = make_console()
    words = (*describe_engine(args), *repeat_counting(args))
    command = ["ndp-rt", "evaluate", str(args.bundle), str(args.data), *words]
    command += [] if args.page is None else ["--page", str(args.page)]
    log_to_stderr()
    data = args.data.absolute() if wants_workers(args) else args.data
    check_out(out, overwrite=args.overwrite)
    evaluation, record = evaluate_data(args, data, command)
    engine = f"{args.backend or args.device}, {args.precision}"
    title = show_name(f"{args.bundle.resolve().name} on {args.data.resolve().name}: {engine}")
    console.print(make_table(evaluation, title))  # first, so that a full disk loses no figures
    if evaluation.threshold is None:
        console.print(f"The bundle has no threshold for {args.precision}, so nothing was decided: ndp-rt set-threshold")
    if evaluation.exclusions:
        count = len(evaluation.exclusions)
        console.print(f"{count} file{' was' if count == 1 else 's were'} left out:")
        for one in evaluation.exclusions:
            figures = "all figures" if one.what == "image" else "the pixel figures"
            line = show_name(f"  {one.path} (from {figures}): {one.reason}")
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    if evaluation.left_out:
        text = describe_left_out(evaluation.left_out)
        console.print(show_name(text), soft_wrap=True, highlight=False, markup=False)
    with locking(out):
        check_out(out, overwrite=args.overwrite)  # another run may have ended since
        (out / PAGE).unlink(missing_ok=True)
        write_record(record, out / RECORD)
        draw_scores(evaluation, title, out / SCORES)
        written = f"{out / RECORD} and {out / SCORES}"
        if args.explain is not None:
            level = open_bundle(args.bundle, verify=False).manifest.input.white_level_16bit
            write_page(evaluation, data, title, out / PAGE, count=args.explain, white_level_16bit=level)
            written = f"{written}, and the page {out / PAGE}"
    console.print(show_name(f"Wrote {written}"), soft_wrap=True, highlight=False, markup=False)
    return EXIT_LEFT_OUT if evaluation.exclusions else 0
