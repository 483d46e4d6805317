"""The benchmark's end of a contender's process."""

import pickle
from collections.abc import Sequence
from typing import Any

from ndp_rt.bench.child_process import ChildProcess
from ndp_rt.bench.contenders.spec import ContenderSpec, Opened, Turn, TurnTimes, WarmUp
from ndp_rt.config import child_command
from ndp_rt.errors import EngineError

SERVICE = "ndp_rt.bench.contenders.service"
CLOSE_WAIT_S = 10.0


class ServiceProcess(ChildProcess):
    """A process that runs `service.Service`; its methods raise what the service's raise.

    EngineError where the process died, with how: a crash of one contender ends no other.
    """

    def __init__(self) -> None:
        """Start the process; `open` opens a contender in it."""
        super().__init__(child_command(SERVICE), close_wait_s=CLOSE_WAIT_S)

    def open(self, spec: ContenderSpec, image_paths: Sequence[str] = ()) -> Opened:
        opened: Opened = self.ask("open", spec, list(image_paths))
        return opened

    def warm_up(self, turn: Turn, limit_s: float) -> WarmUp:
        warm: WarmUp = self.ask("warm_up", turn, limit_s)
        return warm

    def run_turn(self, turn: Turn, again_count: int) -> TurnTimes:
        times: TurnTimes = self.ask("run_turn", turn, again_count)
        return times

    def ask(self, name: str, *values: Any) -> Any:
        """Return what the service's method of that name returns, or raise what it raises."""
        assert self._child.stdin is not None and self._child.stdout is not None
        if self.is_answer_due:  # what came now would answer the request that Ctrl-C cut short
            raise EngineError("its process was interrupted in a request.")
        self.is_answer_due = True
        try:
            pickle.dump((name, values), self._child.stdin)
            self._child.stdin.flush()
            kind, value = pickle.load(self._child.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self.is_answer_due = False
            raise self.explain_death() from error
        self.is_answer_due = False
        if kind == "error":
            raise value
        return value
