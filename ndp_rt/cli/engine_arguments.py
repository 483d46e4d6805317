"""The arguments of every command that runs an engine."""

import argparse
import logging
import sys
from typing import Any


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --device, --backend, --precision, --plan, --threads and --fallback."""
    group = parser.add_argument_group("engine")
    group.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument(
        "--backend",
        metavar="NAME",
        help="openvino or onnxruntime on a CPU, tensorrt or torch-cuda on a GPU (default: the first that is installed)",
    )
    group.add_argument(
        "--precision",
        default="fp32",
        help="fp32, bf16, int8 or mixed (int8 and bf16), on a GPU also tf32 and fp16 (default: %(default)s)",
    )
    group.add_argument(
        "--plan", metavar="NAME", help="fused or staged, on a GPU also unmerged (default: fused on a CPU, else staged)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: the backend's choice)")
    group.add_argument("--fallback", action="store_true", help="go on with the CPU where the GPU fails or is missing")


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return these arguments as keywords of `Inspector.open`, a CPU's defaults by name, so that records have them."""
    on_cpu = args.device == "cpu"
    return {
        "device": args.device,
        "backend": args.backend or ("openvino" if on_cpu else None),
        "precision": args.precision,
        "plan": args.plan or ("fused" if on_cpu else None),
        "threads": args.threads,
        "fallback": args.fallback,
    }


def describe_engine(args: argparse.Namespace) -> list[str]:
    """Return these arguments as words of a command, without those that were left to the defaults."""
    words = ["--device", args.device] if args.device != "cpu" else []
    for name in ("backend", "precision", "plan", "threads"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name}", str(value)]
    return words + (["--fallback"] if args.fallback else [])


def log_to_stderr() -> None:
    """Show what the library logs (that an engine is being built, for instance) as plain lines on stderr."""
    log = logging.getLogger("ndp_rt")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("ndp-rt: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
