"""A rival as a contender: a `Peer` with one runner for each batch size."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np

from ndp_rt.bench.contenders.base import FloatArray, Image
from ndp_rt.bench.contenders.spec import ContenderSpec
from ndp_rt.bench.peers import find_peer
from ndp_rt.bench.peers.base import Check, PeerRunner, open_checked, to_image
from ndp_rt.bench.threshold import choose_threshold
from ndp_rt.bundle.open import open_bundle
from ndp_rt.decide.decision import is_defective
from ndp_rt.errors import InputError
from ndp_rt.images.preprocess import Preprocessor


class RivalContender:
    """See `ndp_rt.bench.contenders.base.Contender`."""

    plan = None

    def __init__(self, spec: ContenderSpec) -> None:
        """Open a rival for every batch size; each is checked before anything is timed.

        Raises:
            NdpRtError: as `open_checked`.
        """
        bundle = open_bundle(spec.bundle)
        peer = find_peer(spec.word, spec.device.split(":")[0], models_on=spec.models_on)
        self._threshold = choose_threshold(bundle, spec.precision)
        self._preprocess = Preprocessor(bundle.manifest.input)
        self._input = np.empty((3, bundle.manifest.input.height_px, bundle.manifest.input.width_px), np.float32)
        self._runners: dict[int, PeerRunner] = {}
        self._elapsed_ms = 0.0
        self._image_count = 0
        checks: dict[int, Check] = {}
        try:
            for batch in spec.batches:
                self._runners[batch], checks[batch] = open_checked(
                    peer, bundle, spec.precision, batch, threads=spec.threads
                )
        except BaseException:
            self.close()
            raise
        self.checks: Mapping[int, Check] = checks
        self.facts: Mapping[str, Any] = dict(self._runners[spec.batches[0]].facts)
        self.backend = str(self.facts.get("runtime", spec.word))
        self.notes: Sequence[str] = tuple(self.facts.get("notes", ()))

    def decide(self, images: Sequence[Image], batch: int) -> None:
        start = time.perf_counter()
        runner, rest = self._runners[batch], iter(images)
        while part := list(islice(rest, batch)):
            filled = part + [part[-1]] * (batch - len(part))  # a rival takes whole batches
            _, scores = runner.run(filled)
            for score in scores[: len(part)]:
                is_defective(float(score), self._threshold)
        self._elapsed_ms += (time.perf_counter() - start) * 1e3
        self._image_count += len(images)

    def decide_all(self, images: Iterable[Image], batch: int) -> None:
        self.decide(list(images), batch)

    def decide_large(self, images: Sequence[Image], batch: int) -> None:
        raise InputError("a rival takes images of the network's size. Large images are ours alone.")

    def take_parts(self) -> Mapping[str, float]:
        count, elapsed_ms = self._image_count, self._elapsed_ms
        self._image_count, self._elapsed_ms = 0, 0.0
        return {"engine": elapsed_ms / count} if count else {}

    def judge(self, image: Image) -> tuple[FloatArray, float]:
        height_px, width_px = image.shape[:2]
        self._preprocess(image, self._input)
        batch = min(self._runners)
        maps, scores = self._runners[batch].run([to_image(self._input)] * batch)
        resized = cv2.resize(maps[0, 0], (width_px, height_px), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.float32), float(scores[0])

    def close(self) -> None:
        for runner in self._runners.values():
            runner.close()
