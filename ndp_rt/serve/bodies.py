"""Bodies of HTTP requests within limits of size, time and memory, and answers that are too large for one piece."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ndp_rt.serve.held_bytes import HeldBytes
from ndp_rt.serve.json_form import LONGEST_NUMBER
from ndp_rt.serve.refusals import Refusal

READ_S = 60.0  # that a client may take to send a body
PIECE_BYTES = 2**18  # of a large answer; what the system does not take at once is copied


@contextlib.asynccontextmanager
async def reading_body(request: Request, body_bytes: int, held: HeldBytes) -> AsyncIterator[bytes]:
    """Give the body of a request; its bytes count in `held` from their coming to the end of the block.

    Args:
        request: that has it.
        body_bytes: the largest size.
        held: of all clients.

    Raises:
        Refusal: it is too large, too slow, or compressed, or others take all the memory that there is for bodies.
    """
    held_count = 0

    def hold(byte_count: int) -> None:
        """Count what of so many bytes is not counted yet."""
        nonlocal held_count
        more = max(0, byte_count - held_count)
        held.hold_body(more)
        held_count += more

    try:
        yield await _read(request, body_bytes, hold)
    finally:
        held.release(held_count)


async def _read(request: Request, body_bytes: int, hold: Callable[[int], None]) -> bytes:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal("invalid", "expected a body that is not compressed. PNG images are, in the input 'encoded'.")
    words = f"expected a body of at most {body_bytes} bytes"
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < LONGEST_NUMBER):
        raise Refusal("too-large", f"{words}, got a length that is none.")
    if int(length) > body_bytes:
        raise Refusal("too-large", f"{words}, got {length}.")
    hold(int(length))
    task, is_late = asyncio.current_task(), False
    assert task is not None

    def end() -> None:
        nonlocal is_late
        is_late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(READ_S, end)  # asyncio.wait_for takes a task, and time
    parts, count = [], 0
    try:
        async for part in request.stream():
            count += len(part)
            if count > body_bytes:
                raise Refusal("too-large", f"{words}, got more.")
            hold(count)
            if part:
                parts.append(part)
    except asyncio.CancelledError:
        if is_late:
            raise Refusal("expired", f"the body took longer than {READ_S:.0f} s.") from None
        raise
    except ClientDisconnect as error:
        raise Refusal("cancelled", "the client has gone.") from error
    finally:
        timer.cancel()
    return b"".join(parts)  # one part is not copied


class LargeResponse(Response):
    """An answer that ends when its client has read it, or has gone."""

    def __init__(self, content: bytes, headers: Mapping[str, str], release: Callable[[int], None]) -> None:
        """Take the answer, and what is then called with the number of its bytes."""
        super().__init__(content, headers=headers)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; see Starlette."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(self.body), PIECE_BYTES):  # uvicorn waits until the one before has gone out
                piece = self.body[start : start + PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._release(len(self.body))
