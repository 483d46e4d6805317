"""A task without an engine, for workers in processes of their own."""

import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

from ndp_rt.archive.crew import Job
from ndp_rt.errors import HostError, StorageError


class Engine:
    engine_hash = "none"


@dataclass(frozen=True)
class Deadly:
    """Gives a job's items back; of some the process ends, or an error comes."""

    refuses: bool = False

    def open(self) -> Any:
        if self.refuses:
            raise HostError("here: expected a bundle, got none.")
        return Engine()

    def work(self, inspector: Any, job: Job) -> tuple[object, ...]:
        if not job.is_deadly and "deadly" in job.items:
            os.kill(os.getpid(), signal.SIGKILL)
        if "full" in job.items:
            raise StorageError("out: cannot be written (no space). Free some.")
        return job.items


class Stuck(Deadly):
    """Opens without end."""

    def open(self) -> Any:
        threading.Event().wait()
