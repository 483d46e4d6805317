"""HTTP connections: those whose client does not send or read are closed, and one address has no more than its share."""

import socket
from asyncio import BaseTransport, TimerHandle
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION_COUNT = 1024  # at once
PEER_COUNT = CONNECTION_COUNT // 2  # of one address, so that it cannot keep all others out
HEAD_S = 10.0  # for a request's head, from the connection's start or the last answer's end
WRITE_S = 60.0  # that a client may take to read what waits for it
REFUSAL = b'{"error": "expected fewer connections from one address at once. Close some."}'
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
    + str(len(REFUSAL)).encode()
    + b"\r\n\r\n"
    + REFUSAL
)


class CountedSocket(socket.socket):
    """A connection that counts for its address until it is closed."""

    holders: ClassVar[Counter[str]] = Counter()  # connections by address
    address: str | None = None

    def hold(self, address: str) -> None:
        """Count it."""
        self.address = address
        self.holders[address] += 1

    def close(self) -> None:
        """Close it, and count it no more."""
        address, self.address = self.address, None
        if address is not None:
            self.holders[address] -= 1
            if not self.holders[address]:
                del self.holders[address]
        super().close()


class BoundedListener(socket.socket):
    """A listening socket that gives one address no more than its share, before any TLS handshake.

    On Windows asyncio does not call `accept`: there they count from their handshake on, by `BoundedProtocol`.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            ConnectionAbortedError: its address has too many already; asyncio goes on.
        """
        plain, address = super().accept()
        if CountedSocket.holders[address[0]] >= PEER_COUNT:
            plain.close()
            raise ConnectionAbortedError
        one = CountedSocket(fileno=plain.detach())
        one.hold(address[0])
        return one, address


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with limits of time; uvicorn itself closes those that are silent between requests.

    One timer runs, for the client's turn: to read while an answer waits for it, else to send a head.
    """

    peers: ClassVar[Counter[str]] = Counter()  # connections by address

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See uvicorn."""
        super().__init__(*arguments, **options)
        self._timer: TimerHandle | None = None
        self._peer = ""

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin, if the address has not too many already."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._peer = self.client[0] if self.client else ""
        self.peers[self._peer] += 1
        if self.peers[self._peer] > PEER_COUNT:
            self.transport.write(REFUSED)
            self.transport.close()
        self._wait(HEAD_S)

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
        if self._timer is None:
            self._wait(HEAD_S)

    def on_headers_complete(self) -> None:
        """Leave the body to the application, which has its own limit."""
        if not self.flow.write_paused:
            self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next head, whatever comes before it: uvicorn's own timer ends with the next byte."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.flow.write_paused:  # no other request waits
            self._wait(HEAD_S)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._wait(WRITE_S)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._stop_waiting()
        if self.cycle is None or self.cycle.response_complete:
            self._wait(HEAD_S)

    def _wait(self, time_s: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(time_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
