"""`ndp-rt build-engine`: compiles a bundle for this machine, or finds that it is compiled already."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ndp_rt.specs import PLAN_STAGES

if TYPE_CHECKING:
    from rich.console import Console

    from ndp_rt.engines.request import EngineRecord

# Layers that only hold or hand over data.
PASSIVE_LAYERS = frozenset({"Const", "Input", "Output", "Parameter", "Result"})


def parse_batches(text: str) -> tuple[int, ...]:
    """Read batch sizes such as "1,8"; ascending, each once."""
    try:
        batches = sorted({int(word) for word in text.split(",")})
    except ValueError:
        batches = []
    if not batches or batches[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of batch sizes; such as 1 or 1,8 is taken")
    return tuple(batches)


def parse_count(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is taken for a whole number from 1, and is none")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", help="the bundle to compile")
    parser.add_argument(
        "--backend", choices=("openvino", "onnxruntime", "tensorrt"), default="openvino", help="default: openvino"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16", "int8"), default="fp32", help="default: fp32")
    parser.add_argument(
        "--batch", type=parse_batches, default=(1,), metavar="1,8", help="batch sizes, one engine each; default: 1"
    )
    parser.add_argument(
        "--plan", choices=tuple(PLAN_STAGES), default="fused", help="one graph, or one engine a stage; default: fused"
    )
    parser.add_argument("--threads", type=parse_count, metavar="N", help="threads for the check; default: all cores")
    parser.add_argument("--rebuild", action="store_true", help="build anew, also what is there or damaged")


def run(args: argparse.Namespace) -> int:
    """Build or find the engines and print what they are."""
    from rich.console import Console

    from ndp_rt.bundle import open_bundle
    from ndp_rt.engines.build import build_engine

    console = Console(highlight=False, soft_wrap=True)
    bundle = open_bundle(args.bundle)
    record = build_engine(
        bundle,
        backend=args.backend,
        precision=args.precision,
        batches=args.batch,
        plan=args.plan,
        threads=args.threads,
        rebuild=args.rebuild,
        progress=lambda line: console.print(f"  {line}", style="dim", markup=False),
    )
    print_record(console, bundle.manifest.name, record)
    return 0


def print_record(console: "Console", name: str, record: "EngineRecord") -> None:
    """Print where the engines are, how they compute and how far they are from the golden vectors."""
    request = record.request
    took = f"{record.seconds * 1e3:.1f} ms" if record.seconds < 1 else f"{record.seconds:.1f} s"
    how = "cache hit" if record.was_cached else "built (cache miss)"
    version = record.entries[0].key.backend_version
    console.print(f"{name}: {how}, {took}; {request.backend} {version}, {request.precision}, plan {request.plan}")
    _print_precisions(console, record.precision_by_layer_type())
    for batch in request.batches:
        golden = next(entry.golden for entry in record.entries if entry.key.batch == batch)
        console.print(
            f"golden vectors, batch {batch}: {golden['vector_count']} agree; "
            f"map {golden['map_max_abs_difference']:.1e} (allowed {golden['map_tolerance']:.0e}), "
            f"score {golden['score_max_abs_difference']:.1e} (allowed {golden['score_tolerance']:.0e})"
        )
    for entry in record.entries:
        console.print(f"{entry.key.stage}, batch {entry.key.batch}: {entry.path}", markup=False)
    console.print(f"engine hash: {record.engine_hash[:16]}")


def _print_precisions(console: "Console", counts: Mapping[str, Mapping[str, int]]) -> None:
    from rich.table import Table

    active = {kind: found for kind, found in counts.items() if kind not in PASSIVE_LAYERS}
    precisions = sorted({precision for found in active.values() for precision in found})
    table = Table("layer type", *precisions, title="layers by effective precision", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, found in active.items():
        table.add_row(kind, *(str(found.get(precision, "")) for precision in precisions))
    console.print(table)
