"""Workers as actors of a Ray cluster, by default one of this machine that ends with the run."""

import logging
import re
import socket
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ndp_rt.archive.crew import Job, Ready, Task, Worker, find_version
from ndp_rt.archive.starting import leaving_working_directory
from ndp_rt.config import child_environment, set_ray_defaults
from ndp_rt.errors import HostError, InputError, needs_extra

LOCAL, AUTO = "local", "auto"
CONNECT_S = 10.0
ANSWER_S = 30.0
STORE_BYTES = 80 * 2**20  # of a cluster of our own: only paths and counts go through it


@dataclass(frozen=True, kw_only=True)
class Share:
    """What of a machine one worker takes.

    Attributes:
        cpus: cores.
        gpus: GPUs, or a fraction of one. Ray only counts them: it does not divide the memory.
    """

    cpus: float = 1.0
    gpus: float = 0.0


class Cluster:
    """A connection to a cluster; use as a context manager."""

    def __init__(self, address: str, share: Share, worker_count: int | None) -> None:
        """Connect.

        Args:
            address: LOCAL: one of our own; AUTO: the one that runs on this machine; or HOST:PORT.
            share: of each worker.
            worker_count: None: as many as there is room for.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: the address is none.
            HostError: no cluster answers there, or it has no room for a worker.
        """
        check_address(address)
        set_ray_defaults()
        with needs_extra("--ray", "ray"):
            import ray
        self._ray, self._share = ray, share
        own: dict[str, Any] = {}
        if address == LOCAL:
            own = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        elif address != AUTO:
            check_answers(address)
        try:
            with leaving_working_directory():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:
            raise HostError(
                f"--ray {address}: expected a Ray cluster, got none: {shorten(error)}. Start "
                "one with 'ray start --head', or leave the address out."
            ) from error
        try:
            self.worker_count = self._find_worker_count(worker_count)
        except HostError:
            ray.shutdown()
            raise

    def _find_worker_count(self, wanted: int | None) -> int:
        have = self._ray.cluster_resources()
        room = [
            (name, have.get(name, 0.0), need)
            for name, need in (("CPU", self._share.cpus), ("GPU", self._share.gpus))
            if need
        ]
        for name, count, need in room:
            if count < need:
                raise HostError(
                    f"--ray: expected a cluster with {need:g} {name}s for a worker, got one with {count:g}. Let a "
                    "worker take less (--worker-cpus, --worker-gpus), or start more nodes."
                )
        return wanted or int(min((count / need for _, count, need in room), default=1))

    def seat(self, task: Task[Any]) -> "ActorSeat":
        """Return a place for a worker."""
        return ActorSeat(self._ray, self._share, self._ray.put(task))

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()


class ActorSeat:
    """An actor. Ray restarts none: jobs that workers die of are cut in two by the crew, which has to see each death."""

    def __init__(self, ray: Any, share: Share, task: Any) -> None:
        """Start the actor.

        Args:
            ray: the package, connected.
            share: of a machine.
            task: in Ray's store.
        """
        self._ray, self._arguments = ray, (task, find_version())
        self._kind = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, scheduling_strategy="SPREAD")(
            Worker
        )
        self.restart()

    def restart(self) -> None:
        """See `Seat`."""
        self._actor = self._kind.remote(*self._arguments)

    def open(self) -> "Future[Ready]":
        """See `Seat`."""
        future: Future[Ready] = self._actor.open.remote().future()
        return future

    def work(self, job: Job) -> "Future[Any]":
        """See `Seat`."""
        future: Future[Any] = self._actor.work.remote(job).future()
        return future

    def close(self) -> None:
        """See `Seat`."""
        self._ray.kill(self._actor)

    def is_death(self, error: BaseException) -> bool:
        """See `Seat`."""
        from ray import exceptions

        dead = (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError)
        return isinstance(error, (*dead, exceptions.OutOfMemoryError)) and find_import_error(error) is None

    def unwrap(self, error: BaseException) -> BaseException:
        """See `Seat`."""
        missing = find_import_error(error)
        if missing is not None:
            return HostError(
                f"a worker: expected ndp-rt {self._arguments[1]} in its Python, got: {missing}. Install the same on "
                "every node."
            )
        return getattr(error, "cause", None) or error


def check_address(address: str) -> None:
    """Check the form of an address.

    Raises:
        InputError: it is none.
    """
    if address not in (LOCAL, AUTO) and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^/:\s]+):[0-9]{1,5}", address):
        raise InputError(f"--ray: expected HOST:PORT of a cluster's head, auto or local, got {address!r}.")


def check_answers(address: str) -> None:
    """Check that a cluster answers at HOST:PORT: Ray itself waits for minutes, and then ends the process.

    Raises:
        HostError: none does.
    """
    host, _, port = address.rpartition(":")
    remedy = "Start one with 'ray start --head', or leave the address out."
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise HostError(f"--ray {address}: expected a Ray cluster, got no connection ({error}). {remedy}") from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        with leaving_working_directory():
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=ANSWER_S, env=child_environment(), check=False
            )
        if "AuthenticationError" in done.stderr:
            raise HostError(
                f"--ray {address}: expected the token of that cluster, got another or none. Set RAY_AUTH_MODE=token, "
                "and put the token into ~/.ray/auth_token or RAY_AUTH_TOKEN."
            )
        found = None if done.returncode == 0 else done.stderr.strip().splitlines()[-1:] or ["no answer"]
    except subprocess.TimeoutExpired:
        found = [f"no answer in {ANSWER_S:.0f} s"]
    if found is not None:
        raise HostError(f"--ray {address}: expected a Ray cluster, got something else ({found[0]:.200}). {remedy}")


def find_import_error(error: BaseException) -> str | None:
    """Return what a worker's Python lacks, if that is what an error says."""
    found = re.findall(r"^(?:\S+\.)?((?:ModuleNotFoundError|ImportError): .*ndp_rt.*)$", str(error), re.MULTILINE)
    return found[-1] if found else None


def shorten(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
