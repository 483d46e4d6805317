"""The arguments of every command that runs an engine."""

import argparse
import logging
import sys
from typing import Any

from ndp_rt.cli.terminal import SafeFormatter

ENGINE_ARGUMENTS = ("device", "backend", "precision", "plan", "threads")


def add_engine_arguments(parser: argparse.ArgumentParser, *, may_fall_back: bool = True) -> None:
    """Add --device, --backend, --precision, --plan, --threads and --fallback; their values are checked on opening.

    Args:
        parser: of the command.
        may_fall_back: whether the command has --fallback.
    """
    group = parser.add_argument_group("engine")
    group.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument(
        "--backend",
        metavar="NAME",
        help="what runs the network; ndp-rt doctor lists what there is (default: the device's first that is installed)",
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
    if may_fall_back:
        group.add_argument(
            "--fallback", action="store_true", help="go on with the CPU where the GPU fails or is missing"
        )


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return these arguments as keywords of `Inspector.open`."""
    return {name: getattr(args, name) for name in (*ENGINE_ARGUMENTS, "fallback")}


def describe_engine(args: argparse.Namespace) -> list[str]:
    """Return these arguments as words of a command, without those that were left to the defaults."""
    words = []
    for name in ENGINE_ARGUMENTS:
        value = getattr(args, name)
        words += [] if value is None or (name, value) == ("device", "cpu") else [f"--{name}", str(value)]
    return words + (["--fallback"] if getattr(args, "fallback", False) else [])


def log_to_stderr() -> None:
    """Show what the library logs (that an engine is being built, for instance) as plain lines on stderr."""
    log = logging.getLogger("ndp_rt")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(SafeFormatter("ndp-rt: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
