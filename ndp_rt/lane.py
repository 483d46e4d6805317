"""One way through a device: a runner, a slot of its own, and the threshold that goes with its precision."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.image_checks import Image
from ndp_rt.inspector_options import Options, find_threshold
from ndp_rt.plan.open_runner import open_runner
from ndp_rt.plan.runner import Runner, Slot
from ndp_rt.postprocess import Judge, Judgement
from ndp_rt.result import Result
from ndp_rt.times import Times

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lane:
    """What an inspector runs its calls through, until it is closed or the device fails."""

    options: Options
    runner: Runner
    slot: Slot  # for the calls that hold the inspector's lock
    judge: Judge
    threshold: float


def open_lane(bundle: Bundle, options: Options) -> Lane:
    """Open a bundle's engines on the device of `options`.

    Raises:
        InputError, EngineError, DeviceError, MissingExtraError: as `Inspector.open`.
    """
    threshold = find_threshold(bundle, options)
    runner = open_runner(bundle, options)
    return Lane(
        options=options,
        runner=runner,
        slot=runner.make_slot(),
        judge=Judge(threshold, options.mm_per_pixel),
        threshold=threshold,
    )


@dataclass(eq=False)
class StreamSlot:
    """A slot of a stream; `kept` is a copy of its frame where the device may fail without loss."""

    inner: Slot
    kept: Image | None = None
    is_started: bool = False


def make_result(lane: Lane, slot: Slot, index: int, height_px: int, width_px: int, keep_reconstruction: bool) -> Result:
    """Make the result of one image of a finished batch."""
    start = time.perf_counter()
    judgement = lane.judge.judge(slot.smooth(index), height_px, width_px)
    kept = slot.copy_reconstruction(index) if keep_reconstruction else None
    times = slot.times[index]
    times.postprocess_ms = (time.perf_counter() - start) * 1e3
    times.total_ms = times.preprocess_ms + times.engine_ms + times.postprocess_ms
    return pack_result(lane, judgement, times, kept)


def pack_result(lane: Lane, judgement: Judgement, times: Times, reconstruction: FloatArray | None) -> Result:
    return Result(
        score=judgement.score,
        threshold=lane.threshold,
        is_defect=judgement.is_defect,
        anomaly_map=judgement.anomaly_map,
        defects=judgement.defects,
        timings_ms=times.to_mapping(),
        reconstruction=reconstruction,
    )
