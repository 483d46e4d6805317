"""Answers that a gRPC client does not read take bounded memory, and keep no other client out."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from ndp_rt.serve.grpc_face import GrpcFace
from ndp_rt.serve.held_bytes import HELD_BODIES, HeldBytes
from ndp_rt.serve.messages import CLASSES, SERVICE
from ndp_rt.serve.protocol import InferAnswer, OutputTensor
from ndp_rt.serve.refusals import Refusal

BODY_BYTES = 2**14
LARGE = np.zeros((1, 300, 300), np.float32)
ROOM_BYTES = HELD_BODIES * BODY_BYTES


class Answering:
    """Stands for a service whose answers are large, of the model "large"."""

    models: Any = None
    asked_count = 0

    def check_token(self, words: str | None) -> None:
        pass

    async def infer(self, model: str, version: str, parse: Callable[[], Any], **_: Any) -> InferAnswer:
        self.asked_count += 1
        values = LARGE if model == "large" else LARGE[:, :2, :2]
        one = OutputTensor(name="map", datatype="FP32", shape=values.shape, values=values)
        return InferAnswer(model=model, version=version, id="", outputs=[one])


def ask_without_reading(port: int, call_count: int) -> socket.socket:
    """Send calls over HTTP/2 by hand, and never a WINDOW_UPDATE: no more than 64 KiB come back."""

    def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
        return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content

    headers = {":method": "POST", ":scheme": "http", ":path": f"/{SERVICE}/ModelInfer", ":authority": "x"}
    headers |= {"te": "trailers", "content-type": "application/grpc"}
    head = b"".join(b"\0" + b"".join(bytes((len(text),)) + text.encode() for text in pair) for pair in headers.items())
    message = CLASSES["ModelInferRequest"](model_name="large").SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    one = socket.create_connection(("127.0.0.1", port), timeout=60)
    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
    for number in range(call_count):
        one.sendall(frame(1, 4, 2 * number + 1, head) + frame(0, 1, 2 * number + 1, body))
    return one


def test_unread_answers_are_bounded_and_others_are_answered() -> None:
    async def main() -> None:
        service: Any = Answering()
        face = GrpcFace(service, BODY_BYTES)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((face.handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary(
                f"/{SERVICE}/ModelInfer",
                request_serializer=CLASSES["ModelInferRequest"].SerializeToString,
                response_deserializer=CLASSES["ModelInferResponse"].FromString,
            )

            async def ask(model: str) -> int:
                answer = await infer(CLASSES["ModelInferRequest"](model_name=model))
                return len(answer.raw_output_contents[0])

            assert await ask("large") == LARGE.nbytes
            with ask_without_reading(port, 50):
                while service.asked_count < 51:
                    await asyncio.sleep(0)
                assert await ask("small") == 16
                assert 0 < face.held.count <= ROOM_BYTES // 2 + LARGE.nbytes
                with pytest.raises(grpc.aio.AioRpcError, match="not read yet") as found:
                    await ask("large")
                assert found.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            while face.held.count:  # until the client is seen to have gone
                await asyncio.sleep(0)
            assert await ask("large") == LARGE.nbytes
        await server.stop(0)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_one_address_has_half_of_the_room() -> None:
    held = HeldBytes(1)
    held.hold_answer(9, "a")
    with pytest.raises(Refusal, match="not read yet"):
        held.hold_answer(1, "a")
    held.hold_answer(8, "b")
    with pytest.raises(Refusal, match="not read yet"):
        held.hold_answer(1, "c")
    held.release(9, "a")
    held.hold_answer(1, "a")
    held.release(8, "b")
    held.release(1, "a")
    assert held.count == 0 and not held._of_peers
