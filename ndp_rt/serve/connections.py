"""HTTP connections: those that send nothing, or half a head, are closed, and one address has no more than its share."""

from asyncio import BaseTransport, TimerHandle
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION_COUNT = 1024  # at once
PEER_COUNT = CONNECTION_COUNT // 2  # of one address, so that it cannot keep all others out
HEAD_S = 10.0  # for a request's head, and for the first one to come
REFUSAL = b'{"error": "expected fewer connections from one address at once. Close some."}'
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
    + str(len(REFUSAL)).encode()
    + b"\r\n\r\n"
    + REFUSAL
)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, which waits for a head HEAD_S at most; uvicorn itself closes those between requests."""

    peers: ClassVar[Counter[str]] = Counter()  # connections by address

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See uvicorn."""
        super().__init__(*arguments, **options)
        self._head_timer: TimerHandle | None = None
        self._peer = ""

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin, if the address has not too many already."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._peer = self.client[0] if self.client else ""
        self.peers[self._peer] += 1
        if self.peers[self._peer] > PEER_COUNT:
            self.transport.write(REFUSED)
            self.transport.close()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.peers[self._peer] -= 1
        if not self.peers[self._peer]:
            del self.peers[self._peer]
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Leave the body to the application, which has its own limit."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
