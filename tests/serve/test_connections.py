"""Connections that keep others out: they are closed in time, and one address has no more than its share."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ndp_rt.serve import connections
from ndp_rt.serve.connections import BoundedProtocol

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def run(check: Callable[[int], Awaitable[None]]) -> None:
    """Call `check` with the port of a server of these connections."""

    async def main() -> None:
        config = uvicorn.Config(
            application, http=BoundedProtocol, lifespan="off", log_config=None, timeout_keep_alive=600
        )
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
        async with server:
            await asyncio.wait_for(check(server.sockets[0].getsockname()[1]), 120)
        while BoundedProtocol.peers:  # until all are closed
            await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("sent", [b"", b"GET", HEAD, HEAD + b"\r\n" + HEAD])
def test_a_connection_without_a_whole_head_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)

    async def check(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = await reader.read()  # until it is closed
        assert answer.count(b"HTTP/1.1 200") in ((0, 1) if b"\r\n\r\n" in sent else (0,))
        writer.close()

    run(check)


def test_one_address_has_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PEER_COUNT", 3)
    monkeypatch.setattr(connections, "HEAD_S", 600)

    async def check(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in held:
            writer.write(HEAD + b"\r\n")
        for reader, _ in held:
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        writer.close()
        for _, writer in held:
            writer.close()
        while BoundedProtocol.peers:
            await asyncio.sleep(0)
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(check)
