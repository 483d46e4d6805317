"""One way through a device: a runner, a slot of its own, and the threshold that goes with its precision."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.smooth import Judge, Judgement
from ndp_rt.errors import InputError
from ndp_rt.images.checks import Image
from ndp_rt.options import Options, find_threshold
from ndp_rt.result import Result
from ndp_rt.runtime.open_runner import open_runner
from ndp_rt.runtime.runner import Runner, Slot
from ndp_rt.runtime.times import Times

FloatArray = NDArray[np.float32]


@dataclass(kw_only=True, eq=False)
class Lane:
    """What an inspector runs its calls through, until it is closed or the device fails."""

    options: Options
    runner: Runner
    slot: Slot  # for the calls that hold the inspector's lock
    judge: Judge

    @property
    def threshold(self) -> float:
        return self.judge.threshold

    def set_threshold(self, threshold: float) -> None:
        """Decide by another threshold from now on; the caller holds the inspector's lock.

        Raises:
            InputError: NaN.
        """
        self.options = replace(self.options, threshold=threshold)
        self.judge.threshold = threshold


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
    )


@dataclass(eq=False)
class StreamSlot:
    """A slot of a stream; `kept` is a copy of its frame where the device may fail without loss."""

    inner: Slot
    kept: Image | None = None
    is_started: bool = False


def choose_batch_size(batch_sizes: Sequence[int], left_count: int) -> int:
    """Return the largest built size that is filled by the images left, or the smallest where none is."""
    return max((size for size in batch_sizes if size <= left_count), default=min(batch_sizes))


def check_map_out(map_out: FloatArray | None, height_px: int, width_px: int) -> None:
    """Check an array that an image's map is to be written to.

    Raises:
        InputError: it is neither None, nor empty, nor float32 [h, w] with dense rows that may be written.
    """
    if map_out is None:
        return
    if not isinstance(map_out, np.ndarray):
        raise InputError(f"map_out is {type(map_out).__name__}; a NumPy array or None is taken.")
    if map_out.size == 0:
        return
    row_bytes, taken = map_out.strides[0], f"float32 [{height_px}, {width_px}] with dense rows, or an empty array,"
    if map_out.dtype != np.float32 or map_out.shape != (height_px, width_px):
        raise InputError(f"map_out is {map_out.dtype} {list(map_out.shape)}; {taken} is taken.")
    if map_out.strides[1] != 4 or row_bytes < width_px * 4 or row_bytes % 4 or not map_out.flags.writeable:
        raise InputError(f"map_out has strides {map_out.strides} or is read-only; {taken} is taken.")


def make_result(
    lane: Lane,
    slot: Slot,
    index: int,
    size_px: tuple[int, int],
    keep_reconstruction: bool,
    map_out: FloatArray | None = None,
) -> Result:
    """Make the result of one image, of size_px rows and columns, of a finished batch."""
    start = time.perf_counter()
    judgement = lane.judge.judge(slot.smooth(index), *size_px, map_out)
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
