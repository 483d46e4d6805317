"""The models of a service: bundles by name and version, loaded, warmed up, replaced and unloaded while others run."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.images.checks import Image
from ndp_rt.inspector import Inspector
from ndp_rt.pipeline.overlays import Picture
from ndp_rt.serve.drift import Drift
from ndp_rt.serve.metrics import Metrics, ModelMeter
from ndp_rt.serve.monitor import LEAST_SPREAD, ModelWatch, Monitor
from ndp_rt.serve.nearest_good import list_good
from ndp_rt.serve.pictures import measure_brightness
from ndp_rt.serve.queue import InspectionQueue
from ndp_rt.serve.refusals import Refusal
from ndp_rt.serve.sources import ModelSource

log = logging.getLogger("ndp_rt")

READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"
WARM_UP_COUNT = 3
BATCHES_AT_ONCE = 2  # images that go in together, for each that is computed beside others

Opener = Callable[[Path], Inspector]


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """How a model stands: one of READY, LOADING, UNLOADING, UNAVAILABLE, and why."""

    name: str
    version: str
    state: str
    reason: str = ""


class LoadedModel:
    """An inspector that is warm, with its queue."""

    def __init__(
        self, source: ModelSource, inspector: Inspector, limit: int, metrics: Metrics, monitor: Monitor
    ) -> None:
        """Warm the inspector up on its bundle's calibration images, which also says how they score."""
        self.source, self.inspector = source, inspector
        inspector.warm_up(count=WARM_UP_COUNT)
        images = list_calibration_images(inspector)
        scores = Drift([inspector.inspect(image).score for image in images])
        brightness = Drift([measure_brightness(image, 0) for image in images], least_spread=LEAST_SPREAD)
        history = monitor.find_history(source.name, source.version)
        watch = ModelWatch(monitor, history, inspector, brightness)
        self.meter = ModelMeter(metrics, source.name, source.version, inspector.threshold, scores, history, watch)
        beside = getattr(inspector.session.executor, "parallel_count", 0)
        batch_count = max(*inspector.batch_sizes, BATCHES_AT_ONCE * beside, 1)
        self.queue = InspectionQueue(inspector, limit, self.meter, batch_count)

    def begin(self) -> None:
        """Be what metrics and page show."""
        self.meter.begin(self.queue)

    @cached_property
    def good_pictures(self) -> tuple[str, list[Picture]]:
        """What `list_good` gives, read at the first question; called by one thread."""
        return list_good(self.inspector.bundle)

    def close(self) -> None:
        """Finish what was accepted, then free the engines."""
        self.queue.close()
        self.inspector.close()


def list_calibration_images(inspector: Inspector) -> list[Image]:
    """Return the calibration images that a bundle carries, uint8 [h, w, 3]."""
    images = inspector.bundle.calibration_images()
    return [] if images is None else [np.ascontiguousarray(one.transpose(1, 2, 0)) for one in images]


class Models:
    """All models of a service. Any thread may call any method."""

    def __init__(
        self, sources: Iterable[ModelSource], opener: Opener, limit: int, metrics: Metrics, monitor: Monitor
    ) -> None:
        """Take the sources; nothing is loaded yet.

        Args:
            sources: of all that may be loaded.
            opener: opens a bundle.
            limit: images that may wait for a model.
            metrics: that all are counted in.
            monitor: that watches their images.

        Raises:
            InputError: two sources have one name and version, or there is none.
        """
        self._sources: dict[tuple[str, str], ModelSource] = {}
        for source in sources:
            if (source.name, source.version) in self._sources:
                raise InputError(
                    f"models: expected each name and version once, got '{source.name}' {source.version} twice. Name "
                    "them: NAME:VERSION=PATH."
                )
            self._sources[source.name, source.version] = source
        if not self._sources:
            raise InputError("models: expected one at least, got none.")
        self._versions: dict[str, list[str]] = {name: [] for name, _ in self._sources}
        for name, version in sorted(self._sources, key=lambda one: _order(one[1])):
            self._versions[name].append(version)
        self._opener, self._limit, self._metrics, self.monitor = opener, limit, metrics, monitor
        self._loaded: dict[tuple[str, str], LoadedModel] = {}
        self._states = dict.fromkeys(self._sources, (UNAVAILABLE, "not loaded"))
        self._lock = threading.Lock()
        self._is_closing = False
        self._changing = threading.Lock()  # one load or unload at a time: engines take all cores to build

    def count_results(self) -> None:
        """Count what has been inspected and is not counted yet; called by one thread, as `ModelMeter.count_results`."""
        with self._lock:
            loaded = list(self._loaded.values())
        for model in loaded:
            model.meter.count_results()

    def list_states(self) -> list[ModelState]:
        """Return how every model stands."""
        with self._lock:
            return [
                ModelState(name=name, version=version, state=state, reason=reason)
                for (name, version), (state, reason) in self._states.items()
            ]

    def list_versions(self, name: str) -> list[str]:
        """Return the versions of a model, the oldest first.

        Raises:
            Refusal: there is no such model.
        """
        if name not in self._versions:
            names = ", ".join(sorted(self._versions))
            raise Refusal("unknown", f"expected one of the models {names}, got {name!r}.")
        return self._versions[name]

    def find(self, name: str, version: str = "") -> LoadedModel:
        """Return a model that is ready; of several versions the newest.

        Raises:
            Refusal: there is none of that name and version, or it is not loaded.
        """
        known = self.list_versions(name)
        if version and version not in known:
            raise Refusal(
                "unknown", f"model '{name}': expected one of the versions {', '.join(known)}, got {version!r}."
            )
        with self._lock:
            for one in [version] if version else reversed(known):
                if (name, one) in self._loaded:
                    return self._loaded[name, one]
            state, reason = self._states[name, version or known[-1]]
        raise Refusal("unavailable", f"model '{name}' is {state.lower()}{': ' if reason else ''}{reason}.")

    def load(self, name: str) -> None:
        """Load all versions of a model, or load them again from the disk; until then the former ones answer.

        Raises:
            Refusal: there is no such model.
            NdpRtError: one cannot be opened; a former one goes on.
        """
        versions = self.list_versions(name)
        with self._changing:
            for version in versions:
                if self._is_closing:
                    raise Refusal("unavailable", "the service is stopping.")
                self._load(self._sources[name, version])

    def _load(self, source: ModelSource) -> None:
        key = source.name, source.version
        with self._lock:
            before = self._loaded.get(key)
            if before is None:
                self._states[key] = LOADING, ""
        try:
            inspector = self._opener(source.path)
            try:
                model = LoadedModel(source, inspector, self._limit, self._metrics, self.monitor)
            except BaseException:
                inspector.close()
                raise
        except BaseException as error:
            with self._lock:
                self._states[key] = (READY if before else UNAVAILABLE), str(error)
            raise
        with self._lock:
            self._loaded[key], self._states[key] = model, (READY, "")
            model.begin()
        log.info("model '%s' %s is ready: %s", source.name, source.version, source.path)
        if before is not None:
            before.close()

    def unload(self, name: str) -> None:
        """Unload all versions of a model, after what they have accepted.

        Raises:
            Refusal: there is no such model.
        """
        versions = self.list_versions(name)
        with self._changing:
            for version in versions:
                self._unload((name, version))

    def _unload(self, key: tuple[str, str]) -> None:
        with self._lock:
            model = self._loaded.pop(key, None)
            if model is not None:
                self._states[key] = UNLOADING, ""
        if model is None:
            return
        model.close()
        with self._lock:
            self._states[key] = UNAVAILABLE, "unloaded"

    def load_all(self) -> None:
        """Load every model.

        Raises:
            NdpRtError: one cannot be opened; those before it are unloaded.
        """
        try:
            for name in self._versions:
                self.load(name)
        except NdpRtError:
            self.close()
            raise

    def close(self) -> None:
        """Unload every model, after what they have accepted; none is loaded any more."""
        self._is_closing = True
        for name in self._versions:
            self.unload(name)


def _order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)


def describe_states(states: Iterable[ModelState]) -> list[Mapping[str, str]]:
    """Return states as the repository's index has them."""
    return [{"name": one.name, "version": one.version, "state": one.state, "reason": one.reason} for one in states]
