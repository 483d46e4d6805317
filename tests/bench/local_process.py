"""What is timed in this process, where the fake GPU is, in place of one of its own."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from ndp_rt.bench.timed.service import Service, answer
from ndp_rt.bench.timed.spec import TimedSpec, Turn


class LocalProcess:
    """As `TimedProcess`, with a service that lies here."""

    def __init__(self, spec: TimedSpec, paths: Sequence[str]) -> None:
        self.service = Service()
        self.spec, self.name, self.process_id = spec, spec.name, os.getpid()
        self.opened = self.ask("open", spec, paths)

    def warm_up(self, turn: Turn, limit_s: float) -> Any:
        return self.ask("warm_up", turn, limit_s)

    def run_turn(self, turn: Turn, again_count: int) -> Any:
        return self.ask("run_turn", turn, again_count)

    def ask(self, name: str, *values: Any) -> Any:
        kind, value = answer(self.service, name, values)
        if kind == "error":
            raise value
        return value

    def kill(self) -> None:
        """It closes like any other."""

    def close(self) -> None:
        self.service.close()


def open_locally(spec: TimedSpec, paths: Sequence[str], tell: Callable[[str], None]) -> LocalProcess:
    """As `open_process`."""
    tell(f"opening {spec.name}")
    return LocalProcess(spec, paths)
