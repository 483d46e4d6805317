"""Our own inspector as it is timed: the production path, `Inspector.inspect` and its like."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, cast

import numpy as np

from ndp_rt.bench.rivals.base import Answer, check_golden
from ndp_rt.bench.timed.spec import FloatArray, Image, Opened, Timed, TimedSpec, choose_threshold
from ndp_rt.bundle.open import open_bundle
from ndp_rt.images.opencv import HAS_OPENCV
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result

if TYPE_CHECKING:
    from ndp_rt.runtime.cuda import CudaExecutor


NO_BOXES = "boxes of defects: OpenCV is not installed, so nothing is taken for a defect"


class TimedInspector(Timed):
    """See `Timed`."""

    def __init__(self, spec: TimedSpec) -> None:
        """Open an inspector, building engines that are missing, and compare it with the golden vectors.

        Raises:
            NdpRtError: as `Inspector.open`; EngineError also where the maps differ by more than is allowed.
        """
        bundle = open_bundle(spec.bundle)
        threshold = choose_threshold(bundle, spec.precision) if HAS_OPENCV else math.inf
        has_own = bundle.threshold(spec.precision).value is not None
        self._inspector = Inspector.open(
            spec.bundle,
            device=spec.device,
            backend=spec.backend,
            precision=spec.precision,
            plan=spec.plan,
            batches=spec.batches,
            threads=spec.threads,
            threshold=threshold,
        )
        self._parts: list[Mapping[str, float]] = []
        try:
            self.opened = Opened(
                backend=spec.backend or "",
                plan=spec.plan,
                checks={
                    batch: check_golden(bundle, self._make_call(batch), spec.precision, batch) for batch in spec.batches
                },
                notes=() if has_own else (f"decided by {threshold}: no threshold for {spec.precision}",),
                facts={
                    "engine_hash": self._inspector.engine_hash,
                    "threshold": self._inspector.threshold,
                    "stage_names": list(self._inspector.stage_names),
                    **({} if HAS_OPENCV else {"threshold": None, "left out": NO_BOXES}),
                },
            )
        except BaseException:
            self._inspector.close()
            raise

    def _make_call(self, batch: int) -> Callable[[Sequence[Image]], Answer]:
        """Return what takes images, filled up to a batch, to maps and scores."""

        def call(images: Sequence[Image]) -> Answer:
            results = self._inspector.inspect_batch(list(islice(cycle(images), batch)))
            maps = np.stack([result.anomaly_map for result in results])[:, None]
            return maps, np.array([result.score for result in results], np.float32)

        return call

    def decide(self, images: Sequence[Image], batch: int) -> None:
        if batch == 1:
            self._parts += [self._inspector.inspect(image).timings_ms for image in images]
        else:
            start = time.perf_counter()
            parts = [result.timings_ms for result in self._inspector.inspect_batch(images)]
            self._parts += share_out(parts, (time.perf_counter() - start) * 1e3)

    def decide_all(self, images: Iterable[Image], batch: int) -> None:
        start = time.perf_counter()
        results: Iterable[Result]
        results = self._inspector.stream(images) if batch == 1 else self._inspector.inspect_batch(list(images))
        parts = [result.timings_ms for result in results]
        self._parts += share_out(parts, (time.perf_counter() - start) * 1e3)

    def decide_large(self, images: Sequence[Image], batch: int) -> None:
        self._parts += [self._inspector.inspect_large(image).timings_ms for image in images]

    def take_parts(self) -> Mapping[str, float]:
        parts, self._parts = self._parts, []
        names = parts[0].keys() if parts else ()
        return {name: float(np.mean([part[name] for part in parts])) for name in names}

    def judge(self, image: Image) -> tuple[FloatArray, float]:
        result = self._inspector.inspect(image)
        return result.anomaly_map, result.score

    @property
    def runner(self) -> "CudaExecutor":
        """What runs on the GPU, for `ndp_rt.bench.gpu_cost`."""
        return cast("CudaExecutor", self._inspector.session.executor)

    def close(self) -> None:
        self._inspector.close()


def share_out(parts: Sequence[Mapping[str, float]], elapsed_ms: float) -> list[dict[str, float]]:
    """Return images' times, made smaller where the images were inspected beside each other, so that they add up.

    Args:
        parts: of each image of a query, as `Result.timings_ms` has them.
        elapsed_ms: what the query took; where the sum of the times is less, they stay as they are.
    """
    total_ms = sum(part["total"] for part in parts)
    share = min(1.0, elapsed_ms / total_ms) if total_ms else 1.0
    return [{name: value * share for name, value in part.items()} for part in parts]
