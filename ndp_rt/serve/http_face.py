"""The service over HTTP: the Open Inference Protocol, Triton's repository extension, Prometheus' metrics."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ndp_rt import __version__
from ndp_rt.errors import NdpRtError
from ndp_rt.serve.json_form import HEADER, describe_tensors, parse_request, write_answer
from ndp_rt.serve.metrics import Metrics
from ndp_rt.serve.models import describe_states
from ndp_rt.serve.protocol import INPUTS, OUTPUTS, InferAnswer, InferRequest
from ndp_rt.serve.refusals import REASONS, Refusal, describe, find_reason
from ndp_rt.serve.service import EXTENSIONS, Service

log = logging.getLogger("ndp_rt")

READ_S = 60.0  # that a client may take to send a body
QUICK_JSON_BYTES = 2**14  # more of it is parsed in another thread
RETRY = {"full": "1", "unavailable": "5"}  # seconds

Handler = Callable[[Request], Awaitable[Response]]


class HttpFace:
    """Answers HTTP requests; `app` is the ASGI application."""

    def __init__(self, service: Service, metrics: Metrics, body_bytes: int) -> None:
        """Make the application.

        Args:
            service: that answers.
            metrics: that /metrics shows.
            body_bytes: of a request at most.
        """
        self._service, self._metrics, self._body_bytes = service, metrics, body_bytes
        model = "/v2/models/{model}"
        routes = [
            Route("/v2", self._guarded(self._describe_server)),
            Route("/v2/health/live", self._guarded(self._tell_live, is_open=True)),
            Route("/v2/health/ready", self._guarded(self._tell_ready, is_open=True)),
            Route("/v2/repository/index", self._guarded(self._list_models), methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self._guarded(self._load), methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self._guarded(self._unload), methods=["POST"]),
            Route("/metrics", self._guarded(self._show_metrics)),
        ]
        for path in (model, f"{model}/versions/{{version}}"):
            routes += [
                Route(path, self._guarded(self._describe_model)),
                Route(f"{path}/ready", self._guarded(self._tell_model_ready)),
                Route(f"{path}/infer", self._guarded(self._infer), methods=["POST"]),
            ]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _tell_http_error})

    def _guarded(self, handler: Handler, *, is_open: bool = False) -> Handler:
        """Return a handler that answers every error in the protocol's form."""

        async def answer(request: Request) -> Response:
            try:
                if not is_open:
                    self._service.check_token(request.headers.get("authorization"))
                return await handler(request)
            except Exception as error:
                return make_error(error)

        return answer

    async def _describe_server(self, request: Request) -> Response:
        return JSONResponse({"name": "ndp-rt", "version": __version__, "extensions": EXTENSIONS})

    async def _tell_live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _tell_ready(self, request: Request) -> Response:
        is_ready = self._service.is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def _describe_model(self, request: Request) -> Response:
        name, version = _find_names(request)
        self._service.models.find(name, version)
        return JSONResponse(
            {
                "name": name,
                "versions": self._service.models.list_versions(name),
                "platform": "ndp_rt",
                "inputs": describe_tensors(INPUTS),
                "outputs": describe_tensors(OUTPUTS),
            }
        )

    async def _tell_model_ready(self, request: Request) -> Response:
        name, version = _find_names(request)
        self._service.models.find(name, version)
        return JSONResponse({"name": name, "ready": True})

    async def _list_models(self, request: Request) -> Response:
        return JSONResponse(describe_states(self._service.models.list_states()))

    async def _load(self, request: Request) -> Response:
        await asyncio.to_thread(self._service.models.load, request.path_params["model"])
        return JSONResponse({})

    async def _unload(self, request: Request) -> Response:
        await asyncio.to_thread(self._service.models.unload, request.path_params["model"])
        return JSONResponse({})

    async def _show_metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _infer(self, request: Request) -> Response:
        name, version = _find_names(request)
        header = request.headers.get(HEADER)
        body = await self._read_body(request)
        binary: set[str] = set()

        def parse() -> InferRequest:
            parsed, names = parse_request(body, header)
            binary.update(names)
            return parsed

        length = int(header) if header and header.isascii() and header.isdigit() else len(body)
        asking = self._service.infer(name, version, parse, is_quick=length <= QUICK_JSON_BYTES, time_left_s=None)
        answer = await _while_there(request, asking)
        content, json_bytes = write_answer(answer, binary)
        if json_bytes is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={HEADER: str(json_bytes)}, media_type="application/octet-stream")

    async def _read_body(self, request: Request) -> bytes:
        """Return the body.

        Raises:
            Refusal: it is too large, too slow, or compressed.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal("invalid", "expected a body that is not compressed. PNG images are, in the input 'encoded'.")
        words = f"expected a body of at most {self._body_bytes} bytes"
        length = request.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > self._body_bytes:
            raise Refusal("too-large", f"{words}, got {length}.")

        async def read() -> bytes:
            parts, count = [], 0
            async for part in request.stream():
                count += len(part)
                if count > self._body_bytes:
                    raise Refusal("too-large", f"{words}, got more.")
                parts.append(part)
            return b"".join(parts)

        try:
            return await asyncio.wait_for(read(), READ_S)
        except asyncio.TimeoutError as error:
            raise Refusal("expired", f"the body took longer than {READ_S:.0f} s.") from error
        except ClientDisconnect as error:
            raise Refusal("cancelled", "the client has gone.") from error


async def _while_there(request: Request, asking: Awaitable[InferAnswer]) -> InferAnswer:
    """Return an answer, or give it up when the client is gone."""
    task = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise Refusal("cancelled", "the client has gone.")
        return task.result()
    finally:
        gone.cancel()


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _find_names(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def make_error(error: Exception) -> Response:
    """Return an error as the protocol has it, and log what is a fault of the service."""
    reason = find_reason(error)
    if reason == "failed" and not isinstance(error, NdpRtError):
        log.error("a request failed", exc_info=error)
    headers = {"retry-after": RETRY[reason]} if reason in RETRY else {}
    if reason == "unauthorised":
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": describe(error)}, REASONS[reason].http, headers)


async def _tell_http_error(request: Request, error: Any) -> Response:
    words = {404: f"there is nothing at {request.url.path}.", 405: f"{request.method} does not go with this path."}
    text = words.get(error.status_code, str(error.detail))
    return JSONResponse({"error": text}, error.status_code, error.headers)
