"""`ndp-rt build-engine`: compiles a bundle for this machine, or finds that it is compiled already."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.cli.quantise import QUANTISE_ARGUMENTS, add_quantise_arguments, quantise
from ndp_rt.program.manifest import GPU_PLAN_STAGES, PLAN_STAGES, PRECISIONS

if TYPE_CHECKING:
    from ndp_rt.bundle import Bundle
    from ndp_rt.engines.request import EngineRecord, EngineRequest

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


def parse_size(text: str) -> int:
    """Read a number of bytes such as 4GiB, 512MiB, 2GB or 1048576."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", text.strip(), re.IGNORECASE)
    unit = (match.group(2) or "").upper() if match else ""
    scale = (1024 if unit.endswith("I") else 1000) ** " KMGT".index(unit[:1] or " ")
    size = int(float(match.group(1)) * scale) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; such as 4GiB, 512MiB or a number of bytes is taken")
    return size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", metavar="NAME.ndp", help="the bundle to compile")
    parser.add_argument(
        "--backend",
        choices=("openvino", "onnxruntime", "tensorrt", "torch-cuda"),
        default="openvino",
        help="default: openvino",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="default: fp32; mixed: int8 and, in between, bf16"
    )
    parser.add_argument(
        "--batch", type=parse_batches, default=(1,), metavar="1,8", help="batch sizes, one engine each; default: 1"
    )
    parser.add_argument(
        "--plan",
        choices=tuple(dict.fromkeys((*PLAN_STAGES, *GPU_PLAN_STAGES))),
        help="one graph, or one engine a stage; unmerged: smaller stages, on a GPU; default: fused (CPU), staged (GPU)",
    )
    parser.add_argument(
        "--threads",
        type=parse_count,
        metavar="N",
        help="threads for the check, and to choose int8 layers with; default: all cores",
    )
    parser.add_argument("--rebuild", action="store_true", help="build anew, also what is there or damaged")
    add_quantise_arguments(parser.add_argument_group("for int8 and mixed on a CPU (ndp-rt quantise says more)"))
    group = parser.add_argument_group("for a GPU")
    group.add_argument("--device", metavar="cuda:N", default="cuda", help="which GPU; default: the first")
    group.add_argument(
        "--workspace", type=parse_size, metavar="4GiB", help="scratch memory at most; default: what the GPU has"
    )
    group.add_argument("--timing-cache", metavar="FILE", help="kernels' times of earlier builds; default: in the cache")
    group.add_argument("--version-compatible", action="store_true", help="later versions of the backend load it too")
    group.add_argument("--hardware-compatible", action="store_true", help="other GPUs from Ampere on load it too")
    group.add_argument("--strip", action="store_true", help="leave the weights in --onnx-stages, read on loading")
    group.add_argument("--onnx-stages", metavar="DIR", help="what export-stages wrote; default: made for the build")


def run(args: argparse.Namespace) -> int:
    """Build or find the engines and print what they are."""
    from ndp_rt.bundle import open_bundle
    from ndp_rt.engines.build import build_requested
    from ndp_rt.runtime.gpu_check import CHECK

    bundle = open_bundle(args.bundle)
    request = make_request(args)
    if quantise_first(bundle, request, args):
        bundle = open_bundle(args.bundle)
    record = build_requested(
        bundle,
        request,
        check=CHECK if request.is_for_device else None,
        threads=args.threads,
        rebuild=args.rebuild,
        progress=lambda line: print(f"  {line}", flush=True),
    )
    print_record(bundle.manifest.name, record)
    return 0


def quantise_first(bundle: "Bundle", request: "EngineRequest", args: argparse.Namespace) -> bool:
    """Choose the layers that compute in int8, where they are needed and not chosen yet or asked for anew.

    Raises:
        InputError: arguments for int8 with another precision, or on a GPU.
        EngineError: the precision is not accepted.
    """
    from ndp_rt.errors import EngineError, InputError
    from ndp_rt.program.manifest import INT8_PRECISIONS

    given = [f"--{name.replace('_', '-')}" for name in QUANTISE_ARGUMENTS if getattr(args, name) is not None]
    if request.precision not in INT8_PRECISIONS or request.is_for_device:
        if given:
            raise InputError(
                f"{', '.join(given)} came with --precision {request.precision} for {request.backend}; int8 and mixed "
                "on a CPU take it. On a GPU int8 has the bundle's layers (ndp-rt quantise)."
            )
        return False
    if bundle.int8_limits(request.precision) and not given:
        return False
    found = quantise(bundle, args, None)
    if request.precision not in found.choices:
        raise EngineError(f"{request.precision}: not accepted: {found.refused[request.precision]}")
    return True


def make_request(args: argparse.Namespace) -> "EngineRequest":
    """Return which engines the arguments mean."""
    from ndp_rt.devices.cuda.driver import parse_device
    from ndp_rt.engines.base import BuildOptions
    from ndp_rt.engines.registry import DEVICE_BACKENDS
    from ndp_rt.engines.request import EngineRequest

    build = BuildOptions(
        workspace_bytes=args.workspace,
        timing_cache=None if args.timing_cache is None else str(Path(args.timing_cache).absolute()),
        version_compatible=args.version_compatible,
        hardware_compatible=args.hardware_compatible,
        strip=args.strip,
        onnx_stages=None if args.onnx_stages is None else str(Path(args.onnx_stages).absolute()),
    )
    return EngineRequest(
        backend=args.backend,
        precision=args.precision,
        batches=args.batch,
        plan=args.plan or ("staged" if args.backend in DEVICE_BACKENDS else "fused"),
        build=None if build == BuildOptions() else build,
        device_index=parse_device(args.device),
    )


def print_record(name: str, record: "EngineRecord") -> None:
    """Print where the engines are, how they compute and how far they are from the golden vectors."""
    request = record.request
    took = f"{record.seconds * 1e3:.1f} ms" if record.seconds < 1 else f"{record.seconds:.1f} s"
    how = "cache hit" if record.was_cached else "built (cache miss)"
    key = record.entries[0].key
    print(f"{name}: {how}, {took}; {request.backend} {key.backend_version}, {request.precision}, plan {request.plan}")
    if request.is_for_device:
        options = f"; {', '.join(key.build_options)}" if key.build_options else ""
        where = f"{key.device_model}, compute capability {key.compute_capability}, driver {key.driver_version}"
        print(f"for {where}{options}")
    _print_precisions(record.precision_by_layer_type())
    for batch in request.batches:
        golden = next(entry.golden for entry in record.entries if entry.key.batch == batch)
        print(
            f"golden vectors, batch {batch}: {golden['vector_count']} agree; "
            f"map {golden['map_max_abs_difference']:.1e} (allowed {golden['map_tolerance']:.0e}), "
            f"score {golden['score_max_abs_difference']:.1e} (allowed {golden['score_tolerance']:.0e})"
        )
    for entry in record.entries:
        log = entry.document["notes"].get("log")
        log_note = f" (how it was built: {log})" if log else ""
        print(f"{entry.key.stage}, batch {entry.key.batch}: {entry.path}{log_note}")
    print(f"engine hash: {record.engine_hash[:16]}")


def _print_precisions(counts: Mapping[str, Mapping[str, int]]) -> None:
    from ndp_rt.cli.table import print_table

    active = {kind: found for kind, found in counts.items() if kind not in PASSIVE_LAYERS}
    precisions = sorted({precision for found in active.values() for precision in found})
    rows = [(kind, *(str(found.get(precision, "")) for precision in precisions)) for kind, found in active.items()]
    print("layers by effective precision")
    print_table(("layer type", *precisions), rows, right=precisions)
