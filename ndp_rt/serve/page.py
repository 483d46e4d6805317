"""The page for people: its files, and what it asks for."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ndp_rt import __version__
from ndp_rt.decide.regions import Defect
from ndp_rt.errors import InputError
from ndp_rt.images.read import decode_image
from ndp_rt.pipeline.overlays import Picture, to_picture
from ndp_rt.serve.clients import answer_while_there
from ndp_rt.serve.history import History
from ndp_rt.serve.models import Models, describe_states
from ndp_rt.serve.monitor import lower_priority
from ndp_rt.serve.nearest_good import find_nearest
from ndp_rt.serve.pictures import Drawn, encode_jpeg
from ndp_rt.serve.refusals import Refusal

FILES = Path(__file__).parent.parent / "data" / "serve"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
# Nothing but the page's own files runs or is loaded, and no other page may frame it.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
SCRIPTS_AND_STYLE = ("page.js", "plot.js", "viewer.js", "page.css")
NEAREST_COUNT = 3  # defects that are shown beside a good patch
ASKING_COUNT = 4  # questions for good patches at once; one is computed, the others wait
LARGEST_NUMBER = 2**53

Handler = Callable[[Request], Awaitable[Response]]


class Page:
    """Answers what the page asks for; `routes` are its addresses."""

    def __init__(self, models: Models, guard: Callable[[Handler], Handler]) -> None:
        """Read the page's files.

        Args:
            models: that it tells of.
            guard: makes a handler ask for the token, and answer errors.
        """
        self._models = models
        self._finder = ThreadPoolExecutor(1, "ndp-rt nearest", lower_priority)
        self._asking_count = 0
        self.routes = [
            Route("/", _give_file(FILES / "page.html")),
            *(Route(f"/page/{name}", _give_file(FILES / name)) for name in SCRIPTS_AND_STYLE),
            Route("/page/models", guard(self._list_models)),
            Route("/page/data", guard(self._tell)),
            Route("/page/picture", guard(self._show_picture)),
            Route("/page/nearest", guard(self._find_nearest)),
        ]

    async def _list_models(self, request: Request) -> Response:
        return _respond({"models": describe_states(self._models.list_states()), "version": __version__})

    async def _tell(self, request: Request) -> Response:
        after, pictures_after = _read_number(request, "after"), _read_number(request, "pictures_after")
        self._models.monitor.note_page()
        self._models.count_results()
        return _respond(self._find_history(request).describe(after, pictures_after))

    async def _show_picture(self, request: Request) -> Response:
        drawn = self._find_picture(request)
        content = drawn.heat if request.query_params.get("kind") == "heat" else drawn.picture
        if content is None:
            raise Refusal("unknown", f"image {drawn.number}: has no anomaly map here.")
        return Response(content, headers=HEADERS, media_type="image/jpeg")

    async def _find_nearest(self, request: Request) -> Response:
        drawn = self._find_picture(request)
        name, version = _read_model(request)
        model = self._models.find(name, version)
        if self._asking_count >= ASKING_COUNT:
            raise Refusal("full", f"{ASKING_COUNT} others ask for good patches. Try again later.")
        self._asking_count += 1
        try:
            finding = self._finder.submit(lambda: describe_nearest(drawn, *model.good_pictures))
            found = await answer_while_there(request, asyncio.wrap_future(finding))
        finally:
            self._asking_count -= 1
        return _respond(found)

    def _find_history(self, request: Request) -> History:
        name, version = _read_model(request)
        if version not in self._models.list_versions(name):
            raise Refusal("unknown", f"model '{name}': there is no version {version!r}.")
        return self._models.monitor.find_history(name, version)

    def _find_picture(self, request: Request) -> Drawn:
        number, history = _read_number(request, "number"), self._find_history(request)
        drawn = history.find_picture(number)
        if drawn is None or request.query_params.get("id", history.id) != history.id:  # numbers that have begun again
            raise Refusal("unknown", f"image {number}: expected one of the last that were drawn, got another.")
        return drawn


def describe_nearest(drawn: Drawn, source: str, good: Sequence[Picture]) -> dict[str, Any]:
    """Return the places of an image's worst defects beside the good patches that are most like them.

    Args:
        drawn: the image.
        source: of the good pictures.
        good: as `list_good` gives them.
    """
    if not good:
        return {"source": "", "good_count": 0, "places": []}
    image = to_picture(decode_image(drawn.picture, name="picture"))
    size_px = drawn.facts["height_px"], drawn.facts["width_px"]
    places = []
    for values in drawn.facts["defects"][:NEAREST_COUNT]:
        found = find_nearest(image, size_px, Defect(**{**values, "contour": None}), good)
        places.append(
            {
                "here": _to_address(encode_jpeg(found.here)),
                "good": _to_address(encode_jpeg(found.good)),
                "good_number": found.good_index + 1,
                "x": round(found.x, 4),
                "y": round(found.y, 4),
                "difference": round(found.difference, 2),
            }
        )
    return {"source": source, "good_count": len(good), "places": places}


def _to_address(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _give_file(path: Path) -> Handler:
    content, kind = path.read_bytes(), KINDS[path.suffix]

    async def give(request: Request) -> Response:
        return Response(content, headers={**HEADERS, "cache-control": "no-cache"}, media_type=kind)

    return give


def _respond(document: Mapping[str, Any]) -> Response:
    return Response(json.dumps(document, allow_nan=False), headers=HEADERS, media_type="application/json")


def _read_model(request: Request) -> tuple[str, str]:
    return request.query_params.get("model", ""), request.query_params.get("version", "")


def _read_number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < LARGEST_NUMBER):
        raise InputError(f"{name}: expected a whole number from 0 on, got {text[:20]!r}.")
    return int(text)
