"""Questions of the page for good patches: few at once, none for a page that has gone, good images read once."""

import asyncio
import threading
from typing import Any

import pytest
from starlette.requests import Request

from ndp_rt import Inspector
from ndp_rt.cli.demo_page import BUNDLE
from ndp_rt.serve import page
from ndp_rt.serve.history import History
from ndp_rt.serve.metrics import Metrics
from ndp_rt.serve.models import LoadedModel
from ndp_rt.serve.monitor import Monitor
from ndp_rt.serve.page import Page
from ndp_rt.serve.pictures import Drawn
from ndp_rt.serve.refusals import REASONS, Refusal
from ndp_rt.serve.sources import ModelSource


class Asked:
    """Stands for the models and the one history of a service with one picture."""

    def __init__(self) -> None:
        facts = {"is_defect": False, "height_px": 4, "width_px": 4, "defects": []}
        self.monitor, self.history = self, History()
        self.history.add_picture(Drawn(number=1, picture=b"", heat=None, outlines=(), facts=facts))
        self.good_pictures = ("reference", [])

    def find(self, *_: str) -> Any:
        return self

    def list_versions(self, name: str) -> list[str]:
        return ["1"]

    def find_history(self, *_: str) -> History:
        return self.history


def test_questions_for_good_patches_are_few_and_end_with_their_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate, computed = threading.Semaphore(0), threading.Semaphore(0), []

    def describe(*values: Any) -> dict[str, Any]:
        computed.append(values)
        entered.release()
        assert gate.acquire(timeout=60)
        return {}

    monkeypatch.setattr(page, "describe_nearest", describe)
    models: Any = Asked()
    find = next(one.endpoint for one in Page(models, lambda handler: handler).routes if one.path == "/page/nearest")

    async def check() -> None:
        async def ask_one(has_gone: asyncio.Event) -> int:
            async def receive() -> dict[str, str]:
                await has_gone.wait()
                return {"type": "http.disconnect"}

            scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"model=m&version=1&number=1"}
            try:
                return int((await find(Request(scope, receive))).status_code)
            except Refusal as refusal:
                return REASONS[refusal.reason].http

        gone, there = asyncio.Event(), asyncio.Event()
        first = asyncio.ensure_future(ask_one(there))
        assert await asyncio.to_thread(entered.acquire, timeout=60)
        waiting = [asyncio.ensure_future(ask_one(gone)) for _ in range(page.ASKING_COUNT - 1)]
        await asyncio.sleep(0)
        assert await ask_one(there) == 429
        gone.set()
        assert await asyncio.gather(*waiting) == [499] * len(waiting)
        last = asyncio.ensure_future(ask_one(there))
        gate.release(2)
        assert await asyncio.gather(first, last) == [200, 200]

    asyncio.run(check())
    assert len(computed) == 2


def test_good_pictures_are_read_once() -> None:
    with Inspector.open(BUNDLE, threads=1) as inspector:
        model = LoadedModel(ModelSource(name="m", version="1", path=BUNDLE), inspector, 4, Metrics(), Monitor())
        assert model.good_pictures[0] == "calibration" and model.good_pictures is model.good_pictures
        model.close()
