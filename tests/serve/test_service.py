"""What becomes of a request that is given up while its images are decoded."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from ndp_rt.serve import service
from ndp_rt.serve.protocol import InferRequest
from ndp_rt.serve.queue import InspectionQueue
from ndp_rt.serve.refusals import Refusal
from ndp_rt.serve.service import Service
from tests.serve.test_queue import GatedInspector, Meter


class CountingMeter(Meter):
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def count_request(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def count_results(self) -> None:
        pass


class OneModel:
    """Stands for the models of a service and for the one that they hold."""

    def __init__(self) -> None:
        self.inspector, self.meter = GatedInspector(), CountingMeter()
        self.queue = InspectionQueue(self.inspector, 4, self.meter, 4)  # type: ignore[arg-type]

    def find(self, name: str, version: str = "") -> "OneModel":
        return self


def test_room_is_given_back_when_decoding_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = OneModel()
    entered, gate, decoded = threading.Event(), threading.Event(), []

    def decode(inspector: object, images: Iterable[bytes]) -> list[Any]:
        for image in images:
            entered.set()
            assert gate.wait(60)
            decoded.append(image)
        return [np.zeros((4, 4), np.uint8) for _ in decoded]

    monkeypatch.setattr(service, "decode_images", decode)

    async def check() -> None:
        one = Service(model)
        request = InferRequest(images=[b"1", b"2", b"3"])
        asking = asyncio.ensure_future(one.infer("m", "", lambda: request, is_quick=True, time_left_s=None))
        assert await asyncio.to_thread(entered.wait, 60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(Refusal, match="3 images wait"):
            model.queue.reserve(2)
        gate.set()
        while model.queue.waiting_count:
            await asyncio.sleep(0)

    asyncio.run(check())
    assert decoded == [b"1"] and model.meter.outcomes == ["cancelled"]
    model.queue.close()
