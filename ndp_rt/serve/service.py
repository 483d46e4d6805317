"""What both faces of the service do with a request, from its parsed form to its answer."""

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import takewhile
from typing import Any

from ndp_rt import __version__
from ndp_rt.images.checks import Image
from ndp_rt.serve.decode import decode_images
from ndp_rt.serve.json_form import describe_tensors
from ndp_rt.serve.metrics import ModelMeter
from ndp_rt.serve.models import READY, LoadedModel, Models, describe_states
from ndp_rt.serve.protocol import INPUTS, OUTPUTS, InferAnswer, InferRequest, make_outputs
from ndp_rt.serve.refusals import Refusal, find_reason

EXTENSIONS = ("binary_tensor_data", "model_repository")


class Service:
    """The models and who may ask them."""

    def __init__(self, models: Models, token: str | None = None) -> None:
        """Take the models; until `is_started` is set the service is not ready.

        Args:
            models: of the service.
            token: that every request but those for health has to bring as `Bearer TOKEN`; None: none.
        """
        self.models = models
        self.is_started = self.is_stopping = False
        self._token = token
        self._decoders = ThreadPoolExecutor(thread_name_prefix="ndp-rt decoding")
        self._changes = ThreadPoolExecutor(1, "ndp-rt changes")  # loading takes long, and all cores

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered: after the warm-up of all models, and until the service is stopped."""
        return self.is_started and not self.is_stopping

    def check_token(self, words: str | None) -> None:
        """Check what a client says of itself, "Bearer TOKEN".

        Raises:
            Refusal: it is another one, or none.
        """
        if self._token is None:
            return
        if not hmac.compare_digest((words or "").encode(), f"Bearer {self._token}".encode()):
            raise Refusal("unauthorised", "expected the service's token as 'authorization: Bearer TOKEN'.")

    def describe_server(self) -> dict[str, Any]:
        """Return what this is, as the protocol has it."""
        return {"name": "ndp-rt", "version": __version__, "extensions": EXTENSIONS}

    def describe_model(self, name: str, version: str) -> dict[str, Any]:
        """Return a model's inputs and outputs, as the protocol has them.

        Raises:
            Refusal: there is no such model, or it is not ready.
        """
        self.models.find(name, version)
        return {
            "name": name,
            "versions": self.models.list_versions(name),
            "platform": "ndp_rt",
            "inputs": describe_tensors(INPUTS),
            "outputs": describe_tensors(OUTPUTS),
        }

    def describe_models(self, *, is_ready_only: bool) -> list[Mapping[str, str]]:
        """Return how all models stand, or those that are ready, as the repository's index has them."""
        return describe_states(one for one in self.models.list_states() if one.state == READY or not is_ready_only)

    async def change(self, what: Callable[[str], None], model: str) -> None:
        """Load or unload a model, after what others have asked for."""
        await asyncio.get_running_loop().run_in_executor(self._changes, what, model)

    async def infer(
        self, model: str, version: str, parse: Callable[[], InferRequest], *, is_quick: bool, time_left_s: float | None
    ) -> InferAnswer:
        """Return the answer to a request, and count what became of it; one cancelled before its turn costs nothing.

        Args:
            model: its name.
            version: "" for the newest.
            parse: returns the request; may raise InputError.
            is_quick: whether that takes microseconds.
            time_left_s: until nobody waits any more; None: as the request says.

        Raises:
            Refusal: for the reason that it has.
            NdpRtError: images that cannot be inspected, or an engine that fails.
        """
        arrived_s = time.monotonic()
        found = self.models.find(model, version)
        try:
            request = parse() if is_quick else await asyncio.to_thread(parse)
            limits = [limit for limit in (request.timeout_s, time_left_s) if limit is not None]
            deadline_s = arrived_s + min(limits) if limits else None
            found = self._reserve(model, version, len(request.images))
            answer = await self._infer(found, request, deadline_s)
        except BaseException as error:
            found.meter.count_request(find_reason(error))
            found.meter.count_results()  # also of those that nobody waits for
            raise
        asyncio.get_running_loop().call_soon(_count, found.meter)  # after the answer, before another question
        return answer

    def _reserve(self, name: str, version: str, image_count: int) -> LoadedModel:
        """Return a model in whose queue there is room for images now.

        Raises:
            Refusal: there is no room, or no such model.
        """
        while True:
            found = self.models.find(name, version)
            try:
                found.queue.reserve(image_count)
            except Refusal as refusal:
                if refusal.reason != "unavailable" or self.models.find(name, version) is found:
                    raise
                continue  # it was loaded again in between
            return found

    async def _infer(self, model: LoadedModel, request: InferRequest, deadline_s: float | None) -> InferAnswer:
        images = await self._decode(model, request)
        try:
            future = model.queue.submit(
                images, needs_map=request.needs_map, priority=request.priority, deadline_s=deadline_s
            )
        except BaseException:
            model.queue.release(len(images))
            raise
        waiting = asyncio.wrap_future(future)
        try:
            if deadline_s is not None:
                await asyncio.wait({waiting}, timeout=max(0.0, deadline_s - time.monotonic()))
                if future.cancel():  # its turn has not come
                    raise Refusal("expired", "the request's time was over before its turn.")
            results = await waiting
        except asyncio.CancelledError:
            future.cancel()
            raise
        make = partial(make_outputs, results, request.outputs)
        outputs = await asyncio.to_thread(make) if request.needs_map else make()
        return InferAnswer(model=model.source.name, version=model.source.version, id=request.id, outputs=outputs)

    async def _decode(self, model: LoadedModel, request: InferRequest) -> list[Image]:
        """Return a request's images, for which room is reserved; where none come, the room is given back.

        That of a request which is given up meanwhile is given back when the thread has left its images.
        """
        count, is_given_up = len(request.images), False
        images = takewhile(lambda _: not is_given_up, request.images)
        try:
            if not any(isinstance(image, bytes) for image in request.images):
                return decode_images(model.inspector, images)
            decoding = self._decoders.submit(decode_images, model.inspector, images)
        except BaseException:
            model.queue.release(count)
            raise
        try:
            return await asyncio.wrap_future(decoding)
        except BaseException:
            is_given_up = True
            decoding.cancel()
            decoding.add_done_callback(lambda _: model.queue.release(count))
            raise


def _count(meter: ModelMeter) -> None:
    meter.count_request("ok")
    meter.count_results()
