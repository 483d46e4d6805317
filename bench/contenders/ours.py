"""Our own inspector as a contender: the production path, `Inspector.inspect` and its like."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from ndp_rt.bench.contenders.base import FloatArray, Image
from ndp_rt.bench.contenders.spec import ContenderSpec, DeviceCost
from ndp_rt.bench.peers.base import BundlePeer, Check
from ndp_rt.bench.threshold import choose_threshold
from ndp_rt.bundle.open import open_bundle
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result

STEP_COUNT = 50  # of times of which the median is a step's, or a launch's


class InspectorContender:
    """See `ndp_rt.bench.contenders.base.Contender`."""

    def __init__(self, spec: ContenderSpec) -> None:
        """Open an inspector, building engines that are missing, and compare it with the golden vectors.

        Raises:
            NdpRtError: as `Inspector.open`; EngineError also where the maps differ by more than is allowed.
        """
        bundle = open_bundle(spec.bundle)
        threshold = choose_threshold(bundle, spec.precision)
        has_own = bundle.threshold(spec.precision).value is not None
        self.notes = () if has_own else (f"decided by {threshold}: no threshold for {spec.precision}",)
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
            self.backend, self.plan = spec.backend or "", spec.plan
            self.checks: Mapping[int, Check] = {
                batch: BundlePeer().check(bundle, BatchRunner(self._inspector, batch), spec.precision, batch)
                for batch in spec.batches
            }
            self.facts: Mapping[str, Any] = {
                "engine_hash": self._inspector.engine_hash,
                "threshold": self._inspector.threshold,
                "stage_names": list(self._inspector.stage_names),
            }
        except BaseException:
            self._inspector.close()
            raise

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

    def measure_device_cost(self, batch: int) -> DeviceCost:
        """Return what a batch costs on a GPU.

        Reaches into the inspector: nobody but a benchmark runs a plan's steps one by one.
        """
        from functools import partial

        from ndp_rt.bench.gpu_split import split_gpu_stages
        from ndp_rt.bench.gpu_timing import time_launches
        from ndp_rt.engines.registry import find_device_backend
        from ndp_rt.runtime.cuda import CudaExecutor

        runner = self._inspector._last.executor
        assert isinstance(runner, CudaExecutor)
        capture = partial(find_device_backend(self.backend).capture, runner.program.device)
        contract = self._inspector.bundle.manifest.input
        stages_ms, source = split_gpu_stages(runner.program, contract, batch, capture, runner._kernels, STEP_COUNT)
        return DeviceCost(
            stages_ms=stages_ms,
            source=source,
            launch_ms=time_launches(runner.program, batch, STEP_COUNT) / 1e3,
            memory_bytes=runner.program.held_bytes + runner.program.buffer_bytes,
        )

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


class BatchRunner:
    """An inspector where a check takes a rival; see `ndp_rt.bench.peers.base.PeerRunner`."""

    def __init__(self, inspector: Inspector, batch: int) -> None:
        self.facts: Mapping[str, Any] = {}
        self._inspector = inspector
        self._batch = batch

    def run(self, images: Sequence[Image]) -> tuple[FloatArray, FloatArray]:
        results = self._inspector.inspect_batch(list(islice(cycle(images), self._batch)))
        maps = np.stack([result.anomaly_map for result in results])[:, None]
        return maps, np.array([result.score for result in results], np.float32)

    def close(self) -> None:
        """Nothing to do: the inspector is its opener's."""
