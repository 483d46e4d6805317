"""`ndp-rt bench capi`: what a call from C costs, and whether the C face holds under load and for long."""

import argparse
import shlex
import sys
from pathlib import Path

from ndp_rt.cli.bench import run_bench, split_words

EXIT_FAILED = 1
DETAILS = """\
Compiles a host in C++ against libndp_rt.so and has it call the C functions. Every answer is compared, bit for bit, with
the first of its image, and the first golden image's score with PyTorch's; a figure that is missed is printed as such.

PART of --only:
  calls    what a call costs beyond the inspector's own time, in turn with the same call from Python
  timings  ndp_rt_timings, from one thread and from 16 at once
  submit   ndp_rt_inspector_submit while the engine is busy
  start    from the start of a C program to its first decision, with the engine cached
  threads  calls per second by number of threads, and --calls calls from 32 threads, half of them on one inspector
  soak     open, inspect, submit, close, for --soak seconds (an hour: --soak 3600)

Exit code: 0 done, also where a figure was missed; 1 an error, or a call failed or gave a wrong answer; 130 Ctrl-C or
SIGTERM (the record holds what was measured until then, and says so).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DETAILS
    parser.add_argument("bundle", metavar="NAME.ndp", type=Path, help="the bundle")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="append to this (default: NAME-capi.jsonl)")
    parser.add_argument("--only", type=split_words, default=(), metavar="PART,...", help="these parts alone, see below")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="for each case and process (default: %(default)s)"
    )
    parser.add_argument(
        "--calls", type=int, default=100_000, metavar="N", help="of 32 threads in all (default: %(default)s)"
    )
    parser.add_argument("--soak", type=float, metavar="S", help="add the soak, for so many seconds")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table and append the record."""
    from ndp_rt.bench.capi.figures import print_figures
    from ndp_rt.bench.capi.run import CapiBench, CapiRequest

    request = CapiRequest(
        bundle=args.bundle, seconds=args.seconds, call_count=args.calls, soak_s=args.soak, only=args.only
    )
    out, command = args.out or Path(f"{args.bundle.resolve().stem}-capi.jsonl"), shlex.join(["ndp-rt", *sys.argv[1:]])
    bench, code = run_bench(out, lambda say: CapiBench(request, command, say), CapiBench.measure, print_figures)
    return code or (EXIT_FAILED if bench.failures else 0)
