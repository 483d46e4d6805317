"""The Python face: what a program holds to inspect images."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.errors import ClosedError, InputError
from ndp_rt.imaging import Image, Preprocessor, check_image
from ndp_rt.inspector_options import Options, find_threshold
from ndp_rt.plan.open_runner import open_runner
from ndp_rt.plan.runner import Runner, Slot
from ndp_rt.postprocess import Judge, Judgement
from ndp_rt.result import Result, Times
from ndp_rt.streaming import FrameReader
from ndp_rt.tiling import Tile, cut_tile, list_tiles

FloatArray = NDArray[np.float32]


class Inspector:
    """Inspects images with one bundle on one device.

    Threads: any thread may call any method; calls are serialised by a lock, so a second caller waits for the first.
    Each `stream` reads its source in a thread of its own. Engines and buffers are allocated by `open` and freed by
    `close`; a call allocates the result that it returns and nothing that stays.

    Pickling stores the arguments of `open`; the copy opens itself again. A reference that was set by `set_reference`
    does not travel with it.
    """

    def __init__(self, options: Options, bundle: Bundle, runner: Runner, threshold: float) -> None:
        """Use `Inspector.open`."""
        contract = bundle.manifest.input
        self.bundle = bundle
        self._threshold = threshold
        self._options = options
        self._runner: Runner | None = runner
        self._lock = threading.Lock()
        self._reference_lock = threading.Lock()
        self._tile_size_px = contract.height_px, contract.width_px
        self._judge = Judge(threshold, options.mm_per_pixel)
        self._slot = runner.make_slot()
        self._batch_sizes = runner.batch_sizes
        self._stage_names = runner.stage_names

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        device: str = "cpu",
        backend: str = "openvino",
        precision: str = "fp32",
        plan: str | None = None,
        batches: Sequence[int] | None = None,
        threads: int | None = None,
        threshold: float | None = None,
        channels: str = "rgb",
        mm_per_pixel: float | None = None,
        build: bool = True,
    ) -> "Inspector":
        """Open a bundle for inspection.

        Args:
            bundle: the folder NAME.ndp.
            device: "cpu".
            backend: "openvino" or "onnxruntime".
            precision: "fp32", or "bf16" where the processor has it.
            plan: "fused" or "staged" (swaps the reference at once); None: "fused".
            batches: batch sizes to have engines for; None: those that are built already, else 1.
            threads: of the engine; None: the backend chooses.
            threshold: decision threshold; None: the bundle's for this precision.
            channels: order of the arrays' channels: "rgb", "bgr", or "drop-alpha" (RGBA).
            mm_per_pixel: size of an image's pixel, for defects in mm; None: pixels only.
            build: build engines that are missing (seconds to a minute); False: refuse.

        Raises:
            BundleError: the bundle is missing, damaged or newer.
            EngineError: an engine cannot be built, or is missing and `build` is False.
            InputError: an argument is none of the above, or the bundle has no threshold for this precision.
        """
        options = Options(
            bundle=str(bundle),
            device=device,
            backend=backend,
            precision=precision,
            plan=plan,
            batches=None if batches is None else tuple(batches),
            threads=threads,
            threshold=threshold,
            channels=channels,
            mm_per_pixel=mm_per_pixel,
            build=build,
        )
        return cls._open(options)

    @classmethod
    def _open(cls, options: Options) -> "Inspector":
        bundle = open_bundle(options.bundle)
        threshold = find_threshold(bundle, options)
        Preprocessor(bundle.manifest.input, channels=options.channels)  # refuses before engines are built
        return cls(options, bundle, open_runner(bundle, options), threshold)

    def inspect(self, image: Image, *, keep_reconstruction: bool = False) -> Result:
        """Inspect one image.

        Args:
            image: uint8 or uint16, [h, w], [h, w, 1] or [h, w, 3] of any size, any strides; only read.
            keep_reconstruction: also return the network's reconstruction.

        Raises:
            InputError: an image of another form; the message says which forms are taken.
            ClosedError: after close().
        """
        with self._lock:
            runner = self._open_runner()
            height_px, width_px = runner.check_image(image)
            runner.start(self._slot, (image,), self._batch_sizes[0], keep_reconstruction=keep_reconstruction)
            runner.finish(self._slot)
            return self._make_result(self._slot, 0, height_px, width_px, keep_reconstruction)

    def inspect_batch(self, images: Sequence[Image], *, keep_reconstruction: bool = False) -> list[Result]:
        """Inspect several images, in the largest batches that were built; all are checked before the first runs.

        Each result's engine time is its share of its batch.

        Args:
            images: as for `inspect`; sizes may differ. None: an empty list comes back.
            keep_reconstruction: also return the network's reconstructions.
        """
        with self._lock:
            runner = self._open_runner()
            sizes_px = [_check_in_batch(runner, index, image) for index, image in enumerate(images)]
            results: list[Result] = []
            while len(results) < len(images):
                done = len(results)
                size = choose_batch_size(self._batch_sizes, len(images) - done)
                part = images[done : done + size]
                runner.start(self._slot, part, size, keep_reconstruction=keep_reconstruction)
                runner.finish(self._slot)
                for index in range(len(part)):
                    results.append(self._make_result(self._slot, index, *sizes_px[done + index], keep_reconstruction))
        return results

    def inspect_large(self, image: Image, *, overlap_px: int = 32) -> Result:
        """Inspect an image larger than the network's input in overlapping tiles of that size, without resizing.

        The image should show the surface at the scale of the training images after their resizing. Where tiles
        overlap the map is their maximum, so that what one tile sees is never averaged away; the score is the largest
        of all tiles. An image with more tiles has more chances of a false alarm than the threshold was calibrated
        for. An axis shorter than a tile is mirrored at its end. Beside the result's own map, memory does not grow with
        the image (a memory-mapped array is read tile by tile).

        Args:
            image: as for `inspect`.
            overlap_px: what neighbouring tiles share at least; 0 to half a tile.
        """
        start = time.perf_counter()
        check_image(image, self._options.channels)  # not the runner's: only tiles are resized, so any size is taken
        height_px, width_px = image.shape[:2]
        tiles = list_tiles((height_px, width_px), self._tile_size_px, overlap_px)
        anomaly_map = np.full((height_px, width_px), -np.inf, np.float32)
        times = Times()
        with self._lock:
            runner = self._open_runner()
            while part := list(islice(tiles, self._batch_sizes[-1])):
                self._inspect_tiles(runner, image, part, anomaly_map, times)
            joined = time.perf_counter()
            judgement = self._judge.decide(anomaly_map, anomaly_map)
        end = time.perf_counter()
        times.postprocess_ms += (end - joined) * 1e3
        times.total_ms = (end - start) * 1e3
        return self._pack_result(judgement, times, None)

    def stream(self, frames: Iterable[Image], *, keep_reconstruction: bool = False) -> Iterator[Result]:
        """Inspect frames as they come, the next being read and preprocessed while the current one is in the engine.

        Results come in the order of the frames. The source is iterated in a thread of its own, at most two frames
        ahead, and may reuse one buffer for all frames. What it raises is raised here, after the results of the frames
        before. Closing the iterator (or leaving the loop and dropping it) stops the reading, waiting at most a second
        for a frame that is on its way; frames that were read ahead are lost. In `timings_ms` the total is the sum of
        the parts, some of which ran beside those of other frames.

        Args:
            frames: images as for `inspect`.
            keep_reconstruction: also return the network's reconstructions.
        """
        with self._lock:
            runner = self._open_runner()
        return self._stream(runner, frames, keep_reconstruction)

    def _stream(self, runner: Runner, frames: Iterable[Image], keep_reconstruction: bool) -> Iterator[Result]:
        def start(slot: Slot, image: Image) -> tuple[int, int]:
            height_px, width_px = runner.check_image(image)
            runner.start(slot, (image,), self._batch_sizes[0], keep_reconstruction=keep_reconstruction)
            return height_px, width_px

        slots = [runner.make_slot() for _ in range(runner.stream_slot_count)]
        reader = FrameReader(frames, start, slots)
        try:
            for frame in reader:
                with self._lock:
                    self._open_runner().finish(frame.slot)
                    result = self._make_result(frame.slot, 0, frame.height_px, frame.width_px, keep_reconstruction)
                reader.release(frame)
                yield result
        finally:
            if reader.stop():
                for slot in slots:
                    runner.release_slot(slot)

    def set_reference(self, image: Image) -> None:
        """Use another defect-free image as the reference from the next inspection on.

        The staged plan swaps at once; the fused one compiles its graph anew (seconds), while inspections go on with
        the old reference. The threshold stays: it was calibrated with the old one, so check it. The bundle on disk
        does not change ('ndp-rt set-reference' does that).

        Args:
            image: as for `inspect`.

        Raises:
            InputError: an image of another form.
            EngineError: the changed model cannot be compiled; the old reference stays in use.
        """
        with self._reference_lock:
            runner = self._open_runner()
            runner.check_image(image)
            runner.set_reference(image)

    def close(self) -> None:
        """Free engines and buffers after the call in progress; twice is allowed, other calls raise ClosedError."""
        with self._lock:
            runner, self._runner = self._runner, None
            if runner is not None:
                runner.close()
                del self._slot

    @property
    def threshold(self) -> float:
        """The threshold that decides."""
        return self._threshold

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that engines were built for, ascending."""
        return self._batch_sizes

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that `Result.timings_ms` tells apart; none for the fused plan."""
        return self._stage_names

    @property
    def engine_hash(self) -> str:
        """Names the engines, and the reference, that results come from."""
        with self._lock:
            return self._open_runner().engine_hash

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Inspector._open, (self._options,)

    def __repr__(self) -> str:
        state = "closed" if self._runner is None else f"threshold {self._threshold:.6g}"
        return f"<Inspector {self.bundle.path.name}: {self._options.backend} {self._options.precision}, {state}>"

    def _open_runner(self) -> Runner:
        if self._runner is None:
            raise ClosedError("the inspector is closed; open another with Inspector.open().")
        return self._runner

    def _make_result(self, slot: Slot, index: int, height_px: int, width_px: int, keep_reconstruction: bool) -> Result:
        """Make the result of one image of a finished batch."""
        start = time.perf_counter()
        judgement = self._judge.judge(slot.smooth(index), height_px, width_px)
        kept = slot.copy_reconstruction(index) if keep_reconstruction else None
        times = slot.times[index]
        times.postprocess_ms = (time.perf_counter() - start) * 1e3
        times.total_ms = times.preprocess_ms + times.engine_ms + times.postprocess_ms
        return self._pack_result(judgement, times, kept)

    def _pack_result(self, judgement: Judgement, times: Times, reconstruction: FloatArray | None) -> Result:
        return Result(
            score=judgement.score,
            threshold=self._threshold,
            is_defect=judgement.is_defect,
            anomaly_map=judgement.anomaly_map,
            defects=judgement.defects,
            timings_ms=times.to_mapping(),
            reconstruction=reconstruction,
        )

    def _inspect_tiles(
        self, runner: Runner, image: Image, tiles: Sequence[Tile], anomaly_map: FloatArray, times: Times
    ) -> None:
        """Inspect tiles of `image` as one batch and raise `anomaly_map` to what they show."""
        size = choose_batch_size(self._batch_sizes, len(tiles))
        if size < len(tiles):  # the last tiles fill no large batch
            self._inspect_tiles(runner, image, tiles[:size], anomaly_map, times)
            self._inspect_tiles(runner, image, tiles[size:], anomaly_map, times)
            return
        slot = self._slot
        runner.start(slot, [cut_tile(image, tile, self._tile_size_px) for tile in tiles], size)
        runner.finish(slot)
        start = time.perf_counter()
        for index, tile in enumerate(tiles):
            times.preprocess_ms += slot.times[index].preprocess_ms
            times.add_run(slot.times[index])
            smoothed = slot.smooth(index)[: tile.height_px, : tile.width_px]
            part = anomaly_map[tile.y_px : tile.y_px + tile.height_px, tile.x_px : tile.x_px + tile.width_px]
            np.maximum(part, smoothed, out=part)
        times.postprocess_ms += (time.perf_counter() - start) * 1e3


def _check_in_batch(runner: Runner, index: int, image: Image) -> tuple[int, int]:
    try:
        return runner.check_image(image)
    except InputError as error:
        raise InputError(f"image {index} of the batch: {error}") from error


def choose_batch_size(batch_sizes: Sequence[int], left_count: int) -> int:
    """Return the largest built size that is filled by the images left, or the smallest where none is."""
    return max((size for size in batch_sizes if size <= left_count), default=min(batch_sizes))
