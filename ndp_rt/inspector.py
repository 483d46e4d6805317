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
from ndp_rt.config import ImageLimits
from ndp_rt.errors import ClosedError, InputError
from ndp_rt.imaging import Image, Preprocessor, check_image
from ndp_rt.inspector_options import Options, find_threshold
from ndp_rt.plan import open_plan
from ndp_rt.plan.base import Plan
from ndp_rt.plan.reference_image import make_reference_file, read_features, round_to_picture
from ndp_rt.postprocess import Judgement, Postprocessor
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

    def __init__(self, options: Options, bundle: Bundle, plan: Plan, threshold: float) -> None:
        """Use `Inspector.open`."""
        contract = bundle.manifest.input
        self.bundle = bundle
        self._threshold = threshold
        self._options = options
        self._plan: Plan | None = plan
        self._lock = threading.Lock()
        self._reference_lock = threading.Lock()
        self._limits = ImageLimits()
        self._tile_size_px = contract.height_px, contract.width_px
        self._preprocess = Preprocessor(contract, channels=options.channels)
        self._postprocess = Postprocessor(*self._tile_size_px, threshold, options.mm_per_pixel)
        shape = (plan.batch_sizes[-1], 3, *self._tile_size_px)
        self._batch = np.zeros(shape, np.float32)  # zeros: the unused end of a batch is computed too
        self._maps = np.empty((shape[0], 1, *shape[2:]), np.float32)
        self._reconstructions = np.empty(shape, np.float32)
        # Engines keep the arrays of the last call bound and know them by identity, so each size has its own views.
        self._outputs = {n: (self._maps[:n], self._reconstructions[:n]) for n in plan.batch_sizes}
        self._inputs = {n: self._batch[:n] for n in plan.batch_sizes}
        self._batch_sizes = plan.batch_sizes
        self._stage_names = plan.stage_names

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
        plan = open_plan(
            bundle,
            plan=options.plan or "fused",
            backend=options.backend,
            precision=options.precision,
            batches=options.batches,
            threads=options.threads,
            build=options.build,
        )
        return cls(options, bundle, plan, threshold)

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
            plan = self._open_plan()
            start = time.perf_counter()
            self._check_image(image)
            self._preprocess(image, self._batch[0])
            elapsed_ms = (time.perf_counter() - start) * 1e3
            times = self._run(plan, self._inputs[self._batch_sizes[0]])
            times.preprocess_ms = elapsed_ms
            return self._judge(0, image.shape[0], image.shape[1], times, keep_reconstruction)

    def inspect_batch(self, images: Sequence[Image], *, keep_reconstruction: bool = False) -> list[Result]:
        """Inspect several images, in the largest batches that were built; all are checked before the first runs.

        Each result's engine time is its share of its batch.

        Args:
            images: as for `inspect`; sizes may differ. None: an empty list comes back.
            keep_reconstruction: also return the network's reconstructions.
        """
        for index, image in enumerate(images):
            try:
                self._check_image(image)
            except InputError as error:
                raise InputError(f"image {index} of the batch: {error}") from error
        results: list[Result] = []
        with self._lock:
            plan = self._open_plan()
            while len(results) < len(images):
                size = choose_batch_size(plan.batch_sizes, len(images) - len(results))
                part = images[len(results) : len(results) + size]
                results += self._inspect_part(plan, part, size, keep_reconstruction)
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
        check_image(image, self._options.channels)
        height_px, width_px = image.shape[:2]
        tiles = list_tiles((height_px, width_px), self._tile_size_px, overlap_px)
        anomaly_map = np.full((height_px, width_px), -np.inf, np.float32)
        times = Times()
        with self._lock:
            plan = self._open_plan()
            while part := list(islice(tiles, plan.batch_sizes[-1])):
                self._inspect_tiles(plan, image, part, anomaly_map, times)
            joined = time.perf_counter()
            judgement = self._postprocess.decide(anomaly_map, anomaly_map)
        end = time.perf_counter()
        times.postprocess_ms += (end - joined) * 1e3
        times.total_ms = (end - start) * 1e3
        return self._make_result(judgement, times, None)

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
            self._open_plan()
        return self._stream(frames, keep_reconstruction)

    def _stream(self, frames: Iterable[Image], keep_reconstruction: bool) -> Iterator[Result]:
        preprocess = Preprocessor(self.bundle.manifest.input, channels=self._options.channels)

        def check_and_preprocess(image: Image, out: FloatArray) -> None:
            self._check_image(image)
            preprocess(image, out)

        reader = FrameReader(frames, check_and_preprocess, self._batch_sizes[0], *self._tile_size_px)
        try:
            for frame in reader:
                with self._lock:
                    plan = self._open_plan()
                    times = self._run(plan, frame.batch)
                    times.preprocess_ms = frame.preprocess_ms
                    result = self._judge(0, frame.height_px, frame.width_px, times, keep_reconstruction)
                reader.release(frame)
                yield result
        finally:
            reader.stop()

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
        prepared = np.empty((1, 3, *self._tile_size_px), np.float32)
        with self._reference_lock:
            with self._lock:
                plan = self._open_plan()
                self._check_image(image)
                self._preprocess(image, prepared[0])
                round_to_picture(prepared)
                features = plan.compute_features(prepared)
            reference = plan.make_reference(read_features(make_reference_file(self.bundle, features)))
            with self._lock:
                self._open_plan().use_reference(reference)

    def close(self) -> None:
        """Free engines and buffers after the call in progress; twice is allowed, other calls raise ClosedError."""
        with self._lock:
            plan, self._plan = self._plan, None
            if plan is not None:
                plan.close()
                del self._batch, self._maps, self._reconstructions
                del self._inputs, self._outputs, self._preprocess, self._postprocess

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
            return self._open_plan().engine_hash

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Inspector._open, (self._options,)

    def __repr__(self) -> str:
        state = "closed" if self._plan is None else f"threshold {self._threshold:.6g}"
        return f"<Inspector {self.bundle.path.name}: {self._options.backend} {self._options.precision}, {state}>"

    def _open_plan(self) -> Plan:
        if self._plan is None:
            raise ClosedError("the inspector is closed; open another with Inspector.open().")
        return self._plan

    def _check_image(self, image: Image) -> None:
        check_image(image, self._options.channels)
        height_px, width_px = image.shape[:2]
        limits = self._limits
        if max(height_px, width_px) > limits.max_side_px or height_px * width_px > limits.max_image_px:
            raise InputError(
                f"image is {height_px} x {width_px} pixels; up to {limits.max_side_px} a side and "
                f"{limits.max_image_px} in all are taken, for they are resized whole. Use inspect_large(), or cut it."
            )

    def _run(self, plan: Plan, batch: FloatArray) -> Times:
        """Run the plan on a batch of a built size; the outputs are in the inspector's buffers."""
        start = time.perf_counter()
        plan.run(batch, *self._outputs[len(batch)])
        return Times(engine_ms=(time.perf_counter() - start) * 1e3, stages_ms=dict(plan.stage_timings_ms))

    def _judge(self, index: int, height_px: int, width_px: int, times: Times, keep_reconstruction: bool) -> Result:
        """Make the result of one image of the batch that ran last."""
        start = time.perf_counter()
        judgement = self._postprocess.judge(self._maps[index, 0], height_px, width_px)
        kept = self._reconstructions[index].transpose(1, 2, 0).copy() if keep_reconstruction else None
        times.postprocess_ms = (time.perf_counter() - start) * 1e3
        times.total_ms = times.preprocess_ms + times.engine_ms + times.postprocess_ms
        return self._make_result(judgement, times, kept)

    def _make_result(self, judgement: Judgement, times: Times, reconstruction: FloatArray | None) -> Result:
        return Result(
            score=judgement.score,
            threshold=self._threshold,
            is_defect=judgement.is_defect,
            anomaly_map=judgement.anomaly_map,
            defects=judgement.defects,
            timings_ms=times.to_mapping(),
            reconstruction=reconstruction,
        )

    def _inspect_part(self, plan: Plan, images: Sequence[Image], size: int, keep_reconstruction: bool) -> list[Result]:
        """Inspect at most `size` images as one batch of that size."""
        preprocess_ms = []
        for image, out in zip(images, self._batch, strict=False):
            start = time.perf_counter()
            self._preprocess(image, out)
            preprocess_ms.append((time.perf_counter() - start) * 1e3)
        whole = self._run(plan, self._inputs[size])
        results = []
        for index, image in enumerate(images):
            times = whole.share(len(images))
            times.preprocess_ms = preprocess_ms[index]
            height_px, width_px = image.shape[:2]
            results.append(self._judge(index, height_px, width_px, times, keep_reconstruction))
        return results

    def _inspect_tiles(
        self, plan: Plan, image: Image, tiles: Sequence[Tile], anomaly_map: FloatArray, times: Times
    ) -> None:
        """Inspect tiles of `image` as one batch and raise `anomaly_map` to what they show."""
        size = choose_batch_size(plan.batch_sizes, len(tiles))
        if size < len(tiles):  # the last tiles fill no large batch
            self._inspect_tiles(plan, image, tiles[:size], anomaly_map, times)
            self._inspect_tiles(plan, image, tiles[size:], anomaly_map, times)
            return
        start = time.perf_counter()
        for tile, out in zip(tiles, self._batch, strict=False):
            self._preprocess(cut_tile(image, tile, self._tile_size_px), out)
        times.preprocess_ms += (time.perf_counter() - start) * 1e3
        times.add_run(self._run(plan, self._inputs[size]))
        start = time.perf_counter()
        for tile, raw_map in zip(tiles, self._maps[:, 0], strict=False):
            smoothed = self._postprocess.smooth(raw_map)[: tile.height_px, : tile.width_px]
            part = anomaly_map[tile.y_px : tile.y_px + tile.height_px, tile.x_px : tile.x_px + tile.width_px]
            np.maximum(part, smoothed, out=part)
        times.postprocess_ms += (time.perf_counter() - start) * 1e3


def choose_batch_size(batch_sizes: Sequence[int], left_count: int) -> int:
    """Return the largest built size that is filled by the images left, or the smallest where none is."""
    return max((size for size in batch_sizes if size <= left_count), default=min(batch_sizes))
