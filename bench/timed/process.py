"""Processes that answer over pipes, and the one in which something is timed."""

import pickle
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

from ndp_rt.bench.timed.spec import Opened, TimedSpec, Turn, TurnTimes, WarmUp
from ndp_rt.config import child_command, child_environment
from ndp_rt.errors import EngineError

SERVICE = "ndp_rt.bench.timed.service"
CLOSE_WAIT_S = 10.0
Self = TypeVar("Self", bound="ChildProcess")


class ChildProcess:
    """A process with pipes to its input and output; what it says on stderr is kept for the case that it dies.

    Subclasses set `is_answer_due` while they wait for an answer.
    """

    def __init__(
        self, command: Sequence[str], *, title: str = "", encoding: str | None = None, close_wait_s: float
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            title: what it is called in messages; empty: whoever passes them on says it.
            encoding: of its pipes; None: bytes.
            close_wait_s: how long `close` lets it end by itself.
        """
        self.title = title
        self.is_answer_due = False
        self._close_wait_s = close_wait_s
        self._complaints = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 closed by close()
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=child_environment(),
            encoding=encoding,
            start_new_session=True,  # a terminal's Ctrl-C reaches the benchmark alone, which ends its processes
        )

    @property
    def process_id(self) -> int:
        return self._child.pid

    def ask(self, name: str, *values: Any) -> Any:
        """Return the answer to a request."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, by force if it does not go or is still at work; twice is allowed."""
        if self.is_answer_due:
            self.kill()
        if self._child.stdin is not None and not self._child.stdin.closed:
            try:
                self._child.stdin.close()
                self._child.wait(self._close_wait_s)
            except (OSError, subprocess.TimeoutExpired):
                self.kill()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._complaints.close()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._child.kill()
        self._child.wait()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.close()

    def explain_death(self) -> EngineError:
        """End it and return an error that says how it ended and what it said last."""
        self._child.kill()  # it may be alive and talk nonsense
        code = self._child.wait()
        self._complaints.seek(0)
        last = " | ".join(self._complaints.read().strip().splitlines()[-3:]) or "it said nothing"
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as when memory runs out, or after an answer that is none"
        prefix = f"{self.title}: " if self.title else ""
        return EngineError(f"{prefix}its process ended {how} ({last}).")


class ServiceProcess(ChildProcess):
    """A process of a module that calls `service.answer_requests`; `ask` raises what the service's methods raise.

    EngineError where the process died, with how: a crash of one ends no other.
    """

    def __init__(self, module: str) -> None:
        """Start it."""
        super().__init__(child_command(module), close_wait_s=CLOSE_WAIT_S)

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


class TimedProcess(ServiceProcess):
    """A process that runs `service.Service`."""

    spec: TimedSpec  # with `open`
    opened: Opened

    def __init__(self) -> None:
        """Start the process; `open` opens what is timed in it."""
        super().__init__(SERVICE)

    def open(self, spec: TimedSpec, image_paths: Sequence[str] = ()) -> Opened:
        """Open what a spec says, and return what it says of itself."""
        self.spec = spec
        self.opened = self.ask("open", spec, list(image_paths))
        return self.opened

    @property
    def name(self) -> str:
        return self.spec.name

    def warm_up(self, turn: Turn, limit_s: float) -> WarmUp:
        warm: WarmUp = self.ask("warm_up", turn, limit_s)
        return warm

    def run_turn(self, turn: Turn, again_count: int) -> TurnTimes:
        times: TurnTimes = self.ask("run_turn", turn, again_count)
        return times
