"""Gives up what a client has asked for when it has gone."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from ndp_rt.serve.refusals import Refusal

Answer = TypeVar("Answer")


async def answer_while_there(request: Request, asking: Awaitable[Answer]) -> Answer:
    """Return an answer, or cancel it when the client is gone.

    Raises:
        Refusal: the client is gone.
    """
    task, is_gone = asyncio.current_task(), False
    assert task is not None

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await asking  # in this task: in another one it would begin later
    except asyncio.CancelledError:
        if is_gone:
            raise Refusal("cancelled", "the client has gone.") from None
        raise
    finally:
        watching.cancel()
