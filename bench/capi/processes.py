"""A process that answers requests by lines: words joined by tabs in, one JSON object a line out."""

import json
from collections.abc import Sequence
from typing import Any

from ndp_rt.bench.child_process import ChildProcess
from ndp_rt.bench.measure import Tell
from ndp_rt.errors import EngineError

CLOSE_WAIT_S = 30.0


class LineProcess(ChildProcess):
    """A process and its answers; EngineError where it reports a failure or dies."""

    def __init__(self, name: str, command: Sequence[str], tell: Tell) -> None:
        """Start it.

        Args:
            name: what it is called in messages.
            command: program and arguments.
            tell: gets what it says of its progress in a request.
        """
        super().__init__(command, name=name, encoding="utf-8", close_wait_s=CLOSE_WAIT_S)
        self._tell = tell

    def ask(self, request: str, *words: object) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            EngineError: it failed, a result was wrong, or the process died; the message says which.
        """
        assert self._child.stdin is not None and self._child.stdout is not None
        self.is_answer_due = True
        try:
            self._child.stdin.write("\t".join([request, *map(str, words)]) + "\n")
            self._child.stdin.flush()
            answer: dict[str, Any] = json.loads(self._child.stdout.readline())
            while "progress" in answer:
                self._tell(f"{request}: {answer['progress']}")
                answer = json.loads(self._child.stdout.readline())
        except (OSError, ValueError) as error:
            raise self.explain_death() from error
        self.is_answer_due = False
        if "error" in answer:
            raise EngineError(f"{self.name}: {answer['error']}")
        return answer
