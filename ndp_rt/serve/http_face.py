"""The service over HTTP: the Open Inference Protocol, Triton's repository extension, Prometheus' metrics."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ndp_rt.errors import InputError
from ndp_rt.serve.bodies import LargeResponse, reading_body
from ndp_rt.serve.clients import answer_while_there
from ndp_rt.serve.held_bytes import LARGE_ANSWER_BYTES, HeldBytes
from ndp_rt.serve.json_form import (
    HEADER,
    find_json_bytes,
    parse_request,
    read_object,
    write_answer,
)
from ndp_rt.serve.metrics import Metrics
from ndp_rt.serve.origins import check_site
from ndp_rt.serve.page import Page
from ndp_rt.serve.protocol import OF_A_MAP, InferRequest
from ndp_rt.serve.refusals import REASONS, explain
from ndp_rt.serve.service import Service

QUICK_JSON_BYTES = 2**14  # more of it is parsed in another thread
RETRY = {"full": "1", "unavailable": "5"}  # seconds

Handler = Callable[[Request], Awaitable[Response]]


class HttpFace:
    """Answers HTTP requests; `app` is the ASGI application."""

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        body_bytes: int,
        *,
        has_page: bool = True,
        check_host: Callable[[str | None], None] | None = None,
    ) -> None:
        """Make the application.

        Args:
            service: that answers.
            metrics: that /metrics shows.
            body_bytes: of a request at most.
            has_page: whether the page for people is there.
            check_host: refuses what the header `Host` says; None: anything goes.
        """
        self._service, self._metrics, self._body_bytes = service, metrics, body_bytes
        self._check_host = check_host
        self._held = HeldBytes(body_bytes)
        model = "/v2/models/{model}"
        paths = (model, f"{model}/versions/{{version}}")
        routes = [Route(f"{path}/infer", self._guarded(self._infer), methods=["POST"]) for path in paths]  # asked most
        routes += [
            Route("/v2", self._guarded(self._describe_server)),
            Route("/v2/health/live", self._guarded(self._tell_live, is_open=True)),
            Route("/v2/health/ready", self._guarded(self._tell_ready, is_open=True)),
            Route("/v2/repository/index", self._guarded(self._list_models), methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self._guarded(self._load), methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self._guarded(self._unload), methods=["POST"]),
            Route("/metrics", self._guarded(self._show_metrics)),
        ]
        for path in paths:
            routes += [
                Route(path, self._guarded(self._describe_model)),
                Route(f"{path}/ready", self._guarded(self._tell_model_ready)),
            ]
        if has_page:
            routes += Page(service.models, self._guarded).routes
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _tell_http_error})

    def _guarded(self, handler: Handler, *, is_open: bool = False) -> Handler:
        """Return a handler that answers every error in the protocol's form."""

        async def answer(request: Request) -> Response:
            try:
                if not is_open:
                    if self._check_host is not None:
                        self._check_host(request.headers.get("host"))
                    if request.method == "POST":
                        check_site(request.headers)
                    self._service.check_token(request.headers.get("authorization"))
                return await handler(request)
            except Exception as error:
                return make_error(error)

        return answer

    async def _describe_server(self, request: Request) -> Response:
        return respond(self._service.describe_server())

    async def _tell_live(self, request: Request) -> Response:
        return respond({"live": True})

    async def _tell_ready(self, request: Request) -> Response:
        is_ready = self._service.is_ready
        return respond({"ready": is_ready}, 200 if is_ready else 503)

    async def _describe_model(self, request: Request) -> Response:
        return respond(self._service.describe_model(*_find_names(request)))

    async def _tell_model_ready(self, request: Request) -> Response:
        name, version = _find_names(request)
        self._service.models.find(name, version)
        return respond({"name": name, "ready": True})

    async def _list_models(self, request: Request) -> Response:
        async with reading_body(request, self._body_bytes, self._held) as body:
            is_ready_only = read_object(body).get("ready", False) if body else False
        if not isinstance(is_ready_only, bool):
            raise InputError(f"ready: expected true or false, got {type(is_ready_only).__name__}.")
        return respond(self._service.describe_models(is_ready_only=is_ready_only))

    async def _load(self, request: Request) -> Response:
        await self._service.change(self._service.models.load, request.path_params["model"])
        return respond({})

    async def _unload(self, request: Request) -> Response:
        await self._service.change(self._service.models.unload, request.path_params["model"])
        return respond({})

    async def _show_metrics(self, request: Request) -> Response:
        self._service.models.count_results()
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _infer(self, request: Request) -> Response:
        name, version = _find_names(request)
        header = request.headers.get(HEADER)
        async with reading_body(request, self._body_bytes, self._held) as body:
            return await self._answer(request, name, version, header, body)

    async def _answer(self, request: Request, name: str, version: str, header: str | None, body: bytes) -> Response:
        binary: set[str] = set()

        def parse() -> InferRequest:
            parsed, names = parse_request(body, header)
            binary.update(names)
            return parsed

        text = memoryview(body)[: find_json_bytes(body, header)]
        is_quick = len(text) <= QUICK_JSON_BYTES and b"BYTES" not in bytes(text)
        asking = self._service.infer(name, version, parse, is_quick=is_quick, time_left_s=None)
        answer = await answer_while_there(request, asking)
        if any(one.name in OF_A_MAP for one in answer.outputs):  # as JSON a map takes a second
            content, json_bytes = await asyncio.to_thread(write_answer, answer, binary)
        else:
            content, json_bytes = write_answer(answer, binary)
        headers = {"content-type": "application/json"}
        if json_bytes is not None:
            headers = {HEADER: str(json_bytes), "content-type": "application/octet-stream"}
        if len(content) <= LARGE_ANSWER_BYTES:
            return Response(content, headers=headers)
        self._held.hold_answer(len(content))
        return LargeResponse(content, headers, self._held.release)


def _find_names(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def respond(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as JSON, in ASCII: names may hold what is no text."""
    return Response(json.dumps(document), status, headers, media_type="application/json")


def make_error(error: Exception) -> Response:
    """Return an error as the protocol has it."""
    reason, words = explain(error)
    headers = {"retry-after": RETRY[reason]} if reason in RETRY else {}
    if reason == "unauthorised":
        headers["www-authenticate"] = "Bearer"
    return respond({"error": words}, REASONS[reason].http, headers)


async def _tell_http_error(request: Request, error: Any) -> Response:
    words = {404: f"there is nothing at {request.url.path}.", 405: f"{request.method} does not go with this path."}
    text = words.get(error.status_code, str(error.detail))
    return respond({"error": text}, error.status_code, error.headers)
