"""A rival as it is timed: opened and checked for each batch size."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ndp_rt.bench.rivals import find_rival
from ndp_rt.bench.rivals.base import Check, OpenRival, open_checked, to_image
from ndp_rt.bench.timed.spec import FloatArray, Image, Opened, Timed, TimedSpec, choose_threshold
from ndp_rt.bundle.open import open_bundle
from ndp_rt.decide.decision import is_defective
from ndp_rt.images.opencv import cv2
from ndp_rt.images.preprocess import Preprocessor


class TimedRival(Timed):
    """See `Timed`."""

    def __init__(self, spec: TimedSpec) -> None:
        """Open a rival for every batch size; each is checked before anything is timed.

        Raises:
            NdpRtError: as `open_checked`.
        """
        bundle = open_bundle(spec.bundle)
        fit = None if spec.fit is None else Path(spec.fit)
        rival = find_rival(spec.word, spec.device.split(":")[0], models_on=spec.models_on, fit=fit)
        self._threshold = choose_threshold(bundle, spec.precision)
        self._contract = bundle.manifest.input
        self._rivals: dict[int, OpenRival] = {}
        self._elapsed_ms, self._image_count = 0.0, 0
        checks: dict[int, Check] = {}
        try:
            for batch in spec.batches:
                self._rivals[batch], checks[batch] = open_checked(
                    rival, bundle, spec.precision, batch, threads=spec.threads
                )
        except BaseException:
            self.close()
            raise
        facts = self._rivals[spec.batches[0]].facts
        backend, notes = str(facts.get("runtime", spec.word)), tuple(facts.get("notes", ()))
        self.opened = Opened(backend=backend, checks=checks, notes=notes, facts=facts)

    def decide(self, images: Sequence[Image], batch: int) -> None:
        start = time.perf_counter()
        opened, rest = self._rivals[batch], iter(images)
        while part := list(islice(rest, batch)):
            filled = part + [part[-1]] * (batch - len(part))  # a rival takes whole batches
            _, scores = opened.run(filled)
            for score in scores[: len(part)]:
                is_defective(float(score), self._threshold)
        self._elapsed_ms += (time.perf_counter() - start) * 1e3
        self._image_count += len(images)

    def decide_all(self, images: Iterable[Image], batch: int) -> None:
        self.decide(list(images), batch)

    def take_parts(self) -> Mapping[str, float]:
        count, elapsed_ms = self._image_count, self._elapsed_ms
        self._image_count, self._elapsed_ms = 0, 0.0
        return {"engine": elapsed_ms / count} if count else {}

    def judge(self, image: Image) -> tuple[FloatArray, float]:
        height_px, width_px = image.shape[:2]
        values = np.empty((3, self._contract.height_px, self._contract.width_px), np.float32)
        Preprocessor(self._contract)(image, values)
        batch = min(self._rivals)
        maps, scores = self._rivals[batch].run([to_image(values)] * batch)
        resized = cv2.resize(maps[0, 0], (width_px, height_px), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.float32), float(scores[0])

    def close(self) -> None:
        while self._rivals:
            self._rivals.popitem()[1].close()
