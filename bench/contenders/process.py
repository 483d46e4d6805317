"""The benchmark's end of a contender's process."""

import pickle
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ndp_rt.bench.contenders.spec import ContenderSpec, Opened, Turn, TurnTimes, WarmUp
from ndp_rt.config import child_command, child_environment
from ndp_rt.errors import EngineError

SERVICE = "ndp_rt.bench.contenders.service"
CLOSE_WAIT_S = 10.0


class ServiceProcess:
    """A process that runs `service.Service`; its methods raise what the service's raise.

    EngineError where the process died, with how: a crash of one contender ends no other.
    """

    def __init__(self) -> None:
        """Start the process; `open` opens a contender in it."""
        self._is_answer_due = False
        self._complaints = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 closed by close()
        self._child = subprocess.Popen(
            child_command(SERVICE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=child_environment(),
            start_new_session=True,  # a terminal's Ctrl-C reaches the benchmark alone, which ends its contenders
        )

    @property
    def process_id(self) -> int:
        return self._child.pid

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
        if self._is_answer_due:  # what came now would answer the request that Ctrl-C cut short
            raise EngineError("its process was interrupted in a request.")
        self._is_answer_due = True
        try:
            pickle.dump((name, values), self._child.stdin)
            self._child.stdin.flush()
            kind, value = pickle.load(self._child.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._is_answer_due = False
            raise self._explain_death() from error
        self._is_answer_due = False
        if kind == "error":
            raise value
        return value

    def close(self) -> None:
        """End the process, by force if it does not go or is still at work; twice is allowed."""
        if self._is_answer_due:
            self.kill()
        if self._child.stdin is not None and not self._child.stdin.closed:
            try:
                self._child.stdin.close()
                self._child.wait(CLOSE_WAIT_S)
            except (OSError, subprocess.TimeoutExpired):
                self.kill()
        self._complaints.close()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._child.kill()
        self._child.wait()

    def __enter__(self) -> "ServiceProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.close()

    def _explain_death(self) -> EngineError:
        self._child.kill()  # it may be alive and talk nonsense
        code = self._child.wait()
        self._complaints.seek(0)
        last = " | ".join(self._complaints.read().strip().splitlines()[-3:]) or "it said nothing"
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as when memory runs out"
        return EngineError(f"its process ended {how} ({last}).")
