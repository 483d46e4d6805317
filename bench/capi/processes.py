"""A process that answers requests by lines: words joined by tabs in, one JSON object a line out."""

import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ndp_rt.bench.measure import Tell
from ndp_rt.config import child_environment
from ndp_rt.errors import EngineError

CLOSE_WAIT_S = 30.0


class LineProcess:
    """A process and its answers; EngineError where it reports a failure or dies."""

    def __init__(self, name: str, command: Sequence[str], tell: Tell) -> None:
        """Start it.

        Args:
            name: what it is called in messages.
            command: program and arguments.
            tell: gets what it says of its progress in a request.
        """
        self.name = name
        self._tell = tell
        self._is_answer_due = False
        self._complaints = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 closed by close()
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=child_environment(),
            text=True,
            encoding="utf-8",
            start_new_session=True,  # a terminal's Ctrl-C reaches the benchmark alone, which ends its processes
        )

    @property
    def process_id(self) -> int:
        return self._child.pid

    def ask(self, request: str, *words: object) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            EngineError: it failed, a result was wrong, or the process died; the message says which.
        """
        assert self._child.stdin is not None and self._child.stdout is not None
        self._is_answer_due = True
        try:
            self._child.stdin.write("\t".join([request, *map(str, words)]) + "\n")
            self._child.stdin.flush()
            answer: dict[str, Any] = json.loads(self._child.stdout.readline())
            while "progress" in answer:
                self._tell(f"{request}: {answer['progress']}")
                answer = json.loads(self._child.stdout.readline())
        except (OSError, ValueError) as error:
            raise self._explain_death() from error
        self._is_answer_due = False
        if "error" in answer:
            raise EngineError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it, by force if it does not go or is still at work; twice is allowed."""
        if self._is_answer_due:
            self.kill()
        if self._child.stdin is not None and not self._child.stdin.closed:
            try:
                self._child.stdin.close()
                self._child.wait(CLOSE_WAIT_S)
            except (OSError, subprocess.TimeoutExpired):
                self.kill()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._complaints.close()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._child.kill()
        self._child.wait()

    def __enter__(self) -> "LineProcess":
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
            how += ", as when memory runs out, or after an answer that is none"
        return EngineError(f"{self.name}: its process ended {how} ({last}).")
