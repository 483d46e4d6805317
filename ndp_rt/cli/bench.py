"""`ndp-rt bench`: inference times of a bundle here, and of what would be used instead."""

import argparse
import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.cli.build_engine import parse_batches, parse_count
from ndp_rt.cli.engine_arguments import log_to_stderr
from ndp_rt.cli.page import add_page
from ndp_rt.cli.terminal import make_console
from ndp_rt.cli.terminal import show as show_name

if TYPE_CHECKING:
    from rich.console import Console

    from ndp_rt.bench.request import BenchRequest
    from ndp_rt.bench.run import Bench
    from ndp_rt.evaluate.record import Record

Say = Callable[[str], None]

EXIT_INTERRUPTED = 130
EXIT_REFUSED = 4
TABLE_WIDTH = 80  # a narrower terminal breaks lines, where a narrower table would cut its numbers
DETAILS = """\
Times the inspector's own path, image in memory to decision out, after a warm-up that lasts until times are stable.
Ours and every rival have a process of their own; they take turns in rounds, so that a machine that slows down slows
all, and each is compared with PyTorch's float32 maps before it is timed.

NAME of --against (repeat it, or join with commas):
  pytorch, torch-compile, onnxruntime, openvino-plain   this network, as one would run it instead
  onnxruntime-cuda, tensorrt-fused                      the same on a GPU
  ndp-rt:PRECISION                                      this bundle in another precision
  padim, patchcore, riad, ...                           other methods at their true cost, with random weights
  paper                                                 all fifteen of the NDP-Net paper's comparison
  anomalib, anomalib:NAME                               anomalib's models, where it is installed; with --fit really
                                                        fitted, so that --data gives their accuracy too
  OTHER.ndp                                             another bundle of ndp-rt
  FILE.onnx                                             any network with one image as its input

--plain PLAIN.ndp, exported from the same run with --no-rewrite, is what rivals of this network then run; openvino-plain
needs it.

The record is appended to a file of JSON lines: ndp-rt bench report FILE draws it, ndp-rt bench compare A B compares.

Exit code: 0 done; 4 done, but a rival failed or answered wrongly, or none could run; 1 an error; 130 Ctrl-C or
SIGTERM (the record holds what was measured until then, and says so).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DETAILS
    parser.usage = "%(prog)s NAME.ndp [options]\n       %(prog)s report RECORD...\n       %(prog)s compare A B"
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="append to this (default: NAME-bench.jsonl)")
    group = parser.add_argument_group("what is timed")
    group.add_argument("--scenario", default="single-stream", metavar="NAME", help=SCENARIO_HELP)
    group.add_argument("--batch", type=parse_batches, default=(1,), metavar="1,8", help="batch sizes (default: 1)")
    group.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for each row, at least (default: 10)")
    group.add_argument("--from-file", action="store_true", help="read and decode a PNG file inside the clock")
    group.add_argument(
        "--data", type=Path, metavar="DIR", help="labelled images (MVTec's layout): adds ROCAUC and AUPRO"
    )
    add_page(group)
    group.add_argument("--target-qps", type=float, metavar="Q", help="server: images a second (default: searched)")
    group.add_argument(
        "--latency-bound",
        type=float,
        metavar="MS",
        help="server: for 99 %% of the images (default: 3 x one of the first's)",
    )
    modes = group.add_mutually_exclusive_group()
    modes.add_argument("--cold", action="store_true", help="from process start to first decision, instead")
    modes.add_argument("--idle", type=float, metavar="S", help="the first image after a pause of S seconds, instead")
    modes.add_argument("--sweep", metavar="AXIS", help="batch, threads, size or streams: how cost grows, instead")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)")
    engine.add_argument(
        "--backend", type=split_words, default=(), metavar="NAME,...", help="default: the device's first"
    )
    engine.add_argument(
        "--precision", type=split_words, default=("fp32",), metavar="NAME,...", help="such as fp32,bf16 (default: fp32)"
    )
    engine.add_argument("--plan", metavar="NAME", help="one of the bundle's programs (default: its first)")
    engine.add_argument("--threads", type=parse_count, metavar="N", help="of each on a CPU (default: the usable cores)")
    rivals = parser.add_argument_group("rivals")
    rivals.add_argument(
        "--against", type=split_words, action="extend", default=[], metavar="NAME,...", help="see below"
    )
    rivals.add_argument("--plain", type=Path, metavar="PLAIN.ndp", help="this network, exported with --no-rewrite")
    rivals.add_argument(
        "--models-on", default="pytorch", metavar="NAME", help="other methods on pytorch or openvino (default: pytorch)"
    )
    rivals.add_argument(
        "--fit", type=Path, metavar="DIR", help="fit anomalib's models to the good images of DIR/train, with Lite0"
    )


SCENARIO_HELP = "single-stream, multi-stream, offline or server, MLPerf's (default: single-stream)"


def split_words(text: str) -> tuple[str, ...]:
    """Read words that are joined with commas; a file's name may hold none."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise argparse.ArgumentTypeError(f"expected names such as pytorch,onnxruntime, got {text!r}")
    return words


def make_request(args: argparse.Namespace) -> "BenchRequest":
    """Return what the arguments ask for."""
    from ndp_rt.bench.request import BenchRequest

    return BenchRequest(
        bundle=args.bundle,
        plain=args.plain,
        device=args.device,
        backends=args.backend,
        precisions=args.precision,
        plan=args.plan,
        threads=args.threads,
        batches=args.batch,
        scenario=args.scenario,
        against=tuple(args.against),
        models_on=args.models_on,
        fit=args.fit,
        seconds=args.seconds,
        data=args.data,
        page=args.page,
        is_from_file=args.from_file,
        target_qps=args.target_qps,
        latency_bound_ms=args.latency_bound,
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print the table and append the record."""
    from ndp_rt.bench.run import Bench
    from ndp_rt.bench.table import print_record

    request, command = make_request(args), shlex.join(["ndp-rt", *sys.argv[1:]])
    out = args.out or Path(f"{args.bundle.resolve().stem}-bench.jsonl")
    bench, code = run_bench(out, lambda say: Bench(request, command, say), lambda one: measure(one, args), print_record)
    return code or (EXIT_REFUSED if bench.refused or not bench.has_figures else 0)


def run_bench(
    out: Path, make_bench: Callable[[Say], Any], measure: Callable[[Any], None], show: Callable[["Console", Any], None]
) -> tuple[Any, int]:
    """Measure, append the record to `out` and print it; return the benchmark, and EXIT_INTERRUPTED or 0.

    Args:
        out: a file of records.
        make_bench: takes what shows a line of progress; its `record` is kept, if it `has_figures`, whatever ends it.
        measure: fills in the record.
        show: prints it.
    """
    from rich.markup import escape

    from ndp_rt.evaluate.record import check_appendable

    console, notes = make_console(), make_console(stderr=True)
    console.width = max(console.width, TABLE_WIDTH)
    log_to_stderr()
    check_appendable(out)
    is_interrupted = False
    with taking_sigterm_for_ctrl_c(), notes.status("starting") as status:
        bench = make_bench(lambda line: status.update(escape(line)))
        try:
            measure(bench)
        except KeyboardInterrupt:
            is_interrupted = True
        except Exception:
            if bench.has_figures:
                keep_record(bench.record, out, console, show)
            raise
    keep_record(bench.record, out, console, show)
    if is_interrupted:
        console.print("Interrupted: the record holds what was measured until then, and says so.", soft_wrap=True)
    return bench, EXIT_INTERRUPTED if is_interrupted else 0


@contextlib.contextmanager
def taking_sigterm_for_ctrl_c() -> Iterator[None]:
    """Let `kill` and batch systems end a run as Ctrl-C does, with what was measured until then."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_record(record: "Record", out: Path, console: "Console", show: Callable[["Console", Any], None]) -> None:
    """Append a record and print its table: the reader of the table may have left, and the disk may be full.

    Raises:
        StorageError: it could not be appended; the table was printed.
    """
    from ndp_rt.evaluate.record import append_record

    try:
        append_record(record, out)
    finally:
        show(console, record)
    console.print(show_name(f"Appended to {out}"), soft_wrap=True, markup=False)


def measure(bench: "Bench", args: argparse.Namespace) -> None:
    """Fill in the record, in the mode that the arguments ask for."""
    if args.cold:
        bench.measure_cold()
    elif args.idle is not None:
        bench.measure_idle(args.idle)
    elif args.sweep is not None:
        bench.measure_sweep(args.sweep)
    else:
        bench.measure_latencies()
