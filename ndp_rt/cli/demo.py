"""`ndp-rt demo`: inspects the package's photographs with the package's bundle."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.terminal import say

if TYPE_CHECKING:
    from ndp_rt.cli.demo_page import Inspected

DETAILS = """\
Builds the CPU engine of the bundle in the package (once; it is cached), inspects the package's photographs, prints a
table and writes OUT/index.html, which needs no other file, and OUT/overlays/*.png. Files of an earlier demo in OUT are
replaced. Exit code: 0, whatever the decisions are.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, default=Path("demo-out"), help="default: %(default)s")
    parser.add_argument("--bundle", metavar="NAME.ndp", type=Path, help="another bundle (default: the package's)")
    parser.add_argument("--images", metavar="DIR", type=Path, help="other labelled images, in MVTec AD's layout")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: the backend's choice)")


def run(args: argparse.Namespace) -> int:
    """Run the demo and say where its pages are."""
    from ndp_rt.cli.demo_page import (
        BUNDLE,
        IMAGES,
        find_credit,
        inspect_images,
        write_overlays,
        write_page,
    )
    from ndp_rt.cli.engine_arguments import log_to_stderr
    from ndp_rt.devices.machine import find_cpu
    from ndp_rt.evaluate.dataset import list_samples
    from ndp_rt.inspector import Inspector

    start = time.perf_counter()
    log_to_stderr()
    folder = args.images or IMAGES
    samples, credit = list_samples(folder), find_credit(folder)
    with Inspector.open(args.bundle or BUNDLE, batches=(1,), threads=args.threads) as inspector:
        inspected = inspect_images(inspector, samples)
        engine = f"OpenVINO, fp32, fused plan, on {find_cpu().model_name}"
        write_overlays(inspected, args.out)
        page = write_page(inspected, inspector.bundle, engine, credit, args.out)
        print_decisions(inspected)
    right = sum(one.is_right for one in inspected)
    threshold = inspected[0].result.threshold
    say(f"Threshold {threshold:.4f}: {right} of {len(inspected)} decisions as they should be.")
    masked = [one for one in inspected if one.mask is not None and not one.sample.is_good]
    if masked:
        located = sum(one.is_located for one in masked)
        say(f"{located} of {len(masked)} anomaly maps peak inside of the labelled defect.")
    if credit:
        say(credit.splitlines()[0])
    say(f"Overlays: {args.out / 'overlays'}")
    say(f"Summary:  {page}   ({time.perf_counter() - start:.1f} s in all)")
    return 0


def print_decisions(inspected: "list[Inspected]") -> None:
    """Print image, kind, score, decision and milliseconds."""
    from ndp_rt.cli.table import paint, print_table

    rows = []
    for one in inspected:
        result = one.result
        decision = paint("defect", "red") if result.is_defect else paint("good", "green")
        rows.append(
            (
                one.sample.path.name,
                one.sample.kind,
                f"{result.score:.4f}",
                decision if one.is_right else f"{decision} {paint('(wrong)', 'bold')}",
                f"{result.timings_ms['total']:.1f}",
            )
        )
    print_table(("image", "kind", "score", "decision", "ms"), rows, right=("score", "ms"))
