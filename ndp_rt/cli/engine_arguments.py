"""The arguments of every command that runs an engine."""

import argparse
import logging
import sys
from typing import Any


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --backend, --precision, --plan and --threads."""
    group = parser.add_argument_group("engine")
    group.add_argument("--backend", default="openvino", help="openvino or onnxruntime (default: %(default)s)")
    group.add_argument("--precision", default="fp32", help="fp32 or bf16 (default: %(default)s)")
    group.add_argument("--plan", default="fused", help="fused or staged (default: %(default)s)")
    group.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: the backend's choice)")


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return these arguments as keywords of `Inspector.open`."""
    return {"backend": args.backend, "precision": args.precision, "plan": args.plan, "threads": args.threads}


def log_to_stderr() -> None:
    """Show what the library logs (that an engine is being built, for instance) as plain lines on stderr."""
    log = logging.getLogger("ndp_rt")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("ndp-rt: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
