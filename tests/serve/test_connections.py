"""Connections that keep others out: they are closed in time, and one address has no more than its share."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from ndp_rt.serve import connections
from ndp_rt.serve.connections import BoundedProtocol
from ndp_rt.serve.http_face import HttpFace
from ndp_rt.serve.metrics import Metrics
from ndp_rt.serve.protocol import InferAnswer, OutputTensor

LARGE_BYTES = 2**25  # more than the system keeps for a connection
ZEROS = np.zeros(LARGE_BYTES // 4, np.float32)
HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def run(check: Callable[[int], Awaitable[None]], app: Any = application) -> None:
    """Call `check` with the port of a server of these connections."""

    async def main() -> None:
        config = uvicorn.Config(app, http=BoundedProtocol, lifespan="off", log_config=None, timeout_keep_alive=600)
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


@pytest.mark.parametrize(("head", "rest"), [(b"", b""), (b"", b"\r\n"), (b"content-length: 9\r\n", b"x"), (b"", HEAD)])
def test_a_connection_that_sends_no_other_head_is_closed(
    head: bytes, rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 600)

    async def check(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            await reader.readuntil(b"ok")
        monkeypatch.setattr(connections, "HEAD_S", 0.05)
        writer.write(HEAD + head + b"\r\n")
        await reader.readuntil(b"ok")
        writer.write(rest)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    run(check)


@pytest.mark.parametrize("keep", [b"", b"connection: close\r\n"])
def test_a_connection_whose_answer_is_not_read_is_closed(keep: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_S", 0.05)
    monkeypatch.setattr(connections, "HEAD_S", 600)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE_BYTES)]}
        )
        await send({"type": "http.response.body", "body": bytes(LARGE_BYTES)})

    async def check(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            one.sendall(HEAD + keep + b"\r\n")
            while not BoundedProtocol.peers:
                await asyncio.sleep(0)
            while BoundedProtocol.peers:
                await asyncio.sleep(0)

    run(check, answer)


class Answering:
    """Stands for a service whose answers are large."""

    models: Any = None

    def check_token(self, words: str | None) -> None:
        pass

    async def infer(self, model: str, version: str, parse: Callable[[], Any], **_: Any) -> InferAnswer:
        parse()
        one = OutputTensor(name="map", datatype="FP32", shape=(1, LARGE_BYTES // 4), values=ZEROS)
        return InferAnswer(model=model, version=version, id="", outputs=[one])


def test_answers_count_until_they_are_read() -> None:
    service: Any = Answering()
    face = HttpFace(service, Metrics(), 2**16, has_page=False)
    one = {"name": "image", "datatype": "UINT8", "shape": [1, 1], "data": [0]}
    outputs = [{"name": "map", "parameters": {"binary_data": True}}]
    body = json.dumps({"inputs": [one], "outputs": outputs}).encode()
    asked = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def check(port: int) -> None:
        async def ask() -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked)
            return await reader.readuntil(b"\r\n\r\n"), reader, writer

        for has_left in (False, True, False):
            head, reader, writer = await ask()
            assert head.startswith(b"HTTP/1.1 200")
            second = await ask()
            assert second[0].startswith(b"HTTP/1.1 429")
            second[2].close()
            if has_left:
                writer.transport.abort()
            else:
                await reader.readexactly(int(re.findall(rb"\r\ncontent-length: (\d+)", head)[0]))
            while face._held.count:
                await asyncio.sleep(0)
            writer.close()

    run(check, face.app)


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
