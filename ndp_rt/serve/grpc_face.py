"""The service over gRPC: the Open Inference Protocol and Triton's repository extension."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from ndp_rt.errors import InputError
from ndp_rt.serve.held_bytes import LARGE_ANSWER_BYTES, HeldBytes
from ndp_rt.serve.json_form import pack
from ndp_rt.serve.messages import CLASSES, SERVICE
from ndp_rt.serve.models import READY
from ndp_rt.serve.protocol import BYTES, InferRequest, InputTensor, make_request
from ndp_rt.serve.refusals import REASONS, explain
from ndp_rt.serve.service import Service

OPEN_METHODS = ("ServerLive", "ServerReady")  # asked without the token
CONTENTS = {"UINT8": "uint_contents", "UINT16": "uint_contents", BYTES: "bytes_contents"}
NO_LIMIT_S = 1e9  # gRPC says so where a client has set no deadline


class GrpcFace:
    """Answers gRPC requests; `handler` is what a server is given."""

    def __init__(self, service: Service, body_bytes: int) -> None:
        """Make the handler of all methods; `body_bytes` is the largest size of a request."""
        self._service = service
        self.held = HeldBytes(body_bytes)  # of answers: gRPC keeps each until its client has read it
        # The messages of a method are those of its name, and Request or Response.
        methods: dict[str, Callable[[Any, Any], Awaitable[dict[str, Any]]]] = {
            "ServerLive": self._tell_live,
            "ServerReady": self._tell_ready,
            "ModelReady": self._tell_model_ready,
            "ServerMetadata": self._describe_server,
            "ModelMetadata": self._describe_model,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._list_models,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        self.handler = grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    partial(self._answer, name, method),
                    request_deserializer=CLASSES[f"{name}Request"].FromString,
                    response_serializer=CLASSES[f"{name}Response"].SerializeToString,
                )
                for name, method in methods.items()
            },
        )

    async def _answer(
        self, name: str, method: Callable[[Any, Any], Awaitable[dict[str, Any]]], request: Any, call: Any
    ) -> Any:
        """Answer one call, errors with a status and a sentence."""
        try:
            if name not in OPEN_METHODS:
                self._service.check_token(dict(call.invocation_metadata() or ()).get("authorization"))
            return CLASSES[f"{name}Response"](**await method(request, call))
        except Exception as error:
            reason, words = explain(error)
        return await call.abort(getattr(grpc.StatusCode, REASONS[reason].grpc), words)  # raises

    async def _tell_live(self, request: Any, call: Any) -> dict[str, Any]:
        return {"live": True}

    async def _tell_ready(self, request: Any, call: Any) -> dict[str, Any]:
        return {"ready": self._service.is_ready}

    async def _tell_model_ready(self, request: Any, call: Any) -> dict[str, Any]:
        states = self._service.models.list_states()
        is_ready = any(
            one.state == READY and one.name == request.name and request.version in ("", one.version) for one in states
        )
        return {"ready": is_ready}

    async def _describe_server(self, request: Any, call: Any) -> dict[str, Any]:
        return self._service.describe_server()

    async def _describe_model(self, request: Any, call: Any) -> dict[str, Any]:
        return self._service.describe_model(request.name, request.version)

    async def _list_models(self, request: Any, call: Any) -> dict[str, Any]:
        return {"models": self._service.describe_models(is_ready_only=request.ready)}

    async def _load(self, request: Any, call: Any) -> dict[str, Any]:
        await self._service.change(self._service.models.load, request.model_name)
        return {}

    async def _unload(self, request: Any, call: Any) -> dict[str, Any]:
        await self._service.change(self._service.models.unload, request.model_name)
        return {}

    async def _infer(self, request: Any, call: Any) -> dict[str, Any]:
        left_s = call.time_remaining()
        answer = await self._service.infer(
            request.model_name,
            request.model_version,
            partial(read_request, request),
            is_quick=bool(request.raw_input_contents) and all(one.datatype != BYTES for one in request.inputs),
            time_left_s=left_s if left_s is not None and left_s < NO_LIMIT_S else None,
        )
        contents = [pack(one) for one in answer.outputs]
        byte_count, peer = sum(map(len, contents)), call.peer().rpartition(":")[0]
        if byte_count > LARGE_ANSWER_BYTES:
            self.held.hold_answer(byte_count, peer)
            call.add_done_callback(lambda _: self.held.release(byte_count, peer))
        return {
            "model_name": answer.model,
            "model_version": answer.version,
            "id": answer.id,
            "outputs": [
                {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in answer.outputs
            ],
            "raw_output_contents": contents,
        }


def read_request(message: Any) -> InferRequest:
    """Return a message as a request.

    Raises:
        InputError: it has other contents than the protocol says.
    """
    raw, tensors = message.raw_input_contents, []
    if raw and len(raw) != len(message.inputs):
        raise InputError(f"raw_input_contents: expected one for each of {len(message.inputs)} inputs, got {len(raw)}.")
    for index, one in enumerate(message.inputs):
        data: Any = raw[index] if raw else list(getattr(one.contents, CONTENTS.get(one.datatype, "uint_contents")))
        tensors.append(InputTensor(name=one.name, datatype=one.datatype, shape=tuple(one.shape), data=data))
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in message.parameters.items()
    }
    return make_request(tensors, [one.name for one in message.outputs], parameters, message.id)
