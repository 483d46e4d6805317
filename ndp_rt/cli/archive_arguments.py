"""The arguments of commands that several workers can share: --workers and --ray."""

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ndp_rt.cli.terminal import complain
from ndp_rt.errors import InputError

if TYPE_CHECKING:
    from ndp_rt.archive.crew import Seat, Task


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --workers, --ray, --worker-cpus and --worker-gpus."""
    group = parser.add_argument_group("several workers")
    group.add_argument("--workers", metavar="N", type=int, help="inspect in N processes")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help="inspect on a Ray cluster: HOST:PORT, auto (the one that runs here), or no ADDRESS: one of this machine; "
        "needs the extra [ray]. --workers: actors (default: as many as there is room for)",
    )
    group.add_argument("--worker-cpus", metavar="X", type=float, help="cores of each worker on Ray (default: 1)")
    group.add_argument(
        "--worker-gpus",
        metavar="X",
        type=float,
        help="GPUs of each, or a fraction of one (default on a GPU: 1)",
    )


def wants_workers(args: argparse.Namespace) -> bool:
    """Tell whether several workers are wanted, and check the arguments.

    Raises:
        InputError: they do not fit together.
    """
    for name in ("workers", "worker_cpus", "worker_gpus"):
        value = getattr(args, name)
        if value is not None and not (value > 0 and value < math.inf):
            raise InputError(f"--{name.replace('_', '-')}: expected a number above 0, got {value:g}.")
    if args.ray is None and (args.worker_cpus is not None or args.worker_gpus is not None):
        raise InputError("--worker-cpus, --worker-gpus: expected --ray with them, got none. Leave them out.")
    if args.ray is not None and ":" in args.device:
        raise InputError(f"--device: expected cpu or cuda with --ray, which chooses the GPU, got {args.device}.")
    if args.workers is None and args.ray is None:
        return False
    if args.fallback:
        raise InputError(
            "--fallback: expected none with several workers, which all have one engine to the end. Leave it out, and "
            "run it again with --device cpu where the GPU fails."
        )
    return True


@contextlib.contextmanager
def find_workers(args: argparse.Namespace) -> "Iterator[tuple[int, Callable[[Task[Any]], list[Seat]]]]":
    """Give the threads of each worker's engine, and what starts workers for a task.

    Raises:
        HostError: no cluster answers, or it has no room.
        MissingExtraError: Ray is not installed.
    """
    from ndp_rt.devices.core_limit import count_usable_cores

    if args.ray is None:
        from ndp_rt.archive.processes import ProcessSeat, check_processes

        check_processes()
        threads = args.threads or max(1, count_usable_cores() // args.workers)
        yield threads, lambda task: [ProcessSeat(task) for _ in range(args.workers)]
        return
    from ndp_rt.archive.cluster import Cluster, Share

    cpus = 1.0 if args.worker_cpus is None else args.worker_cpus
    gpus = args.worker_gpus if args.worker_gpus is not None else float(args.device != "cpu")
    with Cluster(args.ray, Share(cpus=cpus, gpus=gpus), args.workers) as cluster:
        count = cluster.worker_count
        yield args.threads or max(1, int(cpus)), lambda task: [cluster.seat(task) for _ in range(count)]


def tell_worker(line: str) -> None:
    """Say on stderr what became of a worker."""
    complain(f"ndp-rt: {line}")
