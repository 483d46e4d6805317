"""`ndp-rt export-triton`: writes a model repository that NVIDIA Triton serves."""

import argparse
from pathlib import Path

from ndp_rt.cli import EXIT_OK
from ndp_rt.cli.engine_arguments import ENGINE_ARGUMENTS, add_engine_arguments
from ndp_rt.cli.terminal import say
from ndp_rt.errors import InputError

DETAILS = """\
REPOSITORY gets a folder for each model: its config.pbtxt, and for each version the bundle and a model.py of Triton's
Python backend that imports ndp-rt, which has to be installed in the Python of that backend (or in --environment).
MODEL is PATH, NAME=PATH or NAME:VERSION=PATH; without a name it is the folder's, without a version 1.

Inputs and outputs are those of ndp-rt serve, but that 'image' is UINT8 [n, h, w, 1 or 3] and 'encoded' [n, 1], and
values for each image are [n, 1]: Triton's batches have an axis of their own.

docs/serve.md says how to start Triton with it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help="a bundle, as PATH, NAME=PATH or NAME:VERSION=PATH")
    add("-o", "--out", metavar="REPOSITORY", type=Path, required=True, help="the model repository")
    add("--instances", type=int, default=1, metavar="N", help="processes of a model (default: %(default)s)")
    add("--max-batch", type=int, default=32, metavar="N", help="images of a batch (default: %(default)s)")
    add("--queue", type=int, default=64, metavar="N", help="requests that may wait (default: %(default)s)")
    add("--delay-us", type=int, default=0, metavar="N", help="wait so long for more to batch (default: %(default)s)")
    add("--timeout-ms", type=int, default=0, metavar="N", help="refuse what has waited so long (default: never)")
    add("--environment", metavar="PATH", help="a packed Python environment for Triton (EXECUTION_ENV_PATH)")
    add_engine_arguments(parser, may_fall_back=False)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ndp_rt.engines.registry import parse_device
    from ndp_rt.serve.sources import read_source
    from ndp_rt.serve.triton_repository import TritonOptions, write_repository

    kind, _ = parse_device(args.device)
    if args.device not in ("cpu", "cuda"):
        raise InputError(f"--device: expected cpu or cuda, which is every GPU that Triton has, got {args.device}.")
    engine = {name: str(getattr(args, name)) for name in ENGINE_ARGUMENTS if getattr(args, name) is not None}
    del engine["device"]  # of each instance, as Triton says
    options = TritonOptions(
        engine=engine,
        is_gpu=kind == "cuda",
        instance_count=args.instances,
        batch_count=args.max_batch,
        queue_count=args.queue,
        delay_us=args.delay_us,
        timeout_ms=args.timeout_ms,
        environment=args.environment,
    )
    for folder in write_repository([read_source(text) for text in args.models], args.out, options):
        say(f"wrote {folder}")
    say(f"tritonserver --model-repository {args.out.resolve()}")
    return EXIT_OK
