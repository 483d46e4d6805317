"""An executor and a decision: what an inspector holds, until it is closed or the device fails."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.bundle.programs import list_tensors
from ndp_rt.decide.counting import Counting
from ndp_rt.decide.decision import is_defective
from ndp_rt.decide.regions import Defect, list_defects
from ndp_rt.decide.score import score_counted
from ndp_rt.errors import DeviceError, EngineError, InputError, MissingExtraError
from ndp_rt.images.checks import Image
from ndp_rt.images.opencv import cv2
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.options import Options, find_threshold, warn_unreachable, warn_without_map_threshold
from ndp_rt.program.program import MAP, Program
from ndp_rt.result import Result
from ndp_rt.runtime.executor import Batch, Executor
from ndp_rt.runtime.open import open_executor

RECONSTRUCTION = "reconstruction"

log = logging.getLogger("ndp_rt")


class Session:
    """Inspects images through an executor and decides by one threshold; the caller holds a lock."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        """Open a bundle's engines on the device of `options`.

        Raises:
            InputError, EngineError, DeviceError, MissingExtraError: as `Inspector.open`.
        """
        self.threshold = find_threshold(bundle, options)
        self.options = options
        self.bundle = bundle
        self.has_own_score = bundle.manifest.decision.score == "output"
        warn_unreachable(bundle.manifest, self.threshold)
        warn_without_map_threshold(bundle, options.precision, self.threshold)
        self.selection = options.make_selection()
        if self.selection is not None and self.has_own_score:
            raise InputError(
                f"{bundle.path.name}: expected neither an ignore mask nor a smallest area, because its model gives the "
                "score itself, got one. Leave it out, or import the model with --score max."
            )
        self.executor: Executor = open_executor(bundle, options)
        self.batch: Batch = self.executor.make_batch()  # for the calls that hold the lock
        self._map_size = 0, 0
        if self.selection is not None:
            program = self._find_program()
            map_shape = list_tensors(bundle.manifest, program.steps)[program.outputs[MAP]].with_batch(1)
            self._map_size = map_shape[2], map_shape[3]

    def set_threshold(self, threshold: float) -> None:
        """Decide by another threshold from now on.

        Raises:
            InputError: NaN.
        """
        self.options = replace(self.options, threshold=threshold)
        self.threshold = threshold
        warn_unreachable(self.bundle.manifest, threshold)
        warn_without_map_threshold(self.bundle, self.options.precision, threshold)

    @property
    def map_threshold(self) -> float:
        """What the map reaches in defects: the threshold, or one of its own where the model gives its score itself."""
        own = self.bundle.threshold(self.options.precision).map_value
        return self.threshold if own is None else own

    def check_outputs(self, keep_reconstruction: bool) -> tuple[str, ...]:
        """Return the outputs to ask for beside the map.

        Raises:
            InputError: the model has no reconstruction.
        """
        if not keep_reconstruction:
            return ()
        if RECONSTRUCTION not in self._find_program().outputs:
            name = self.bundle.path.name
            raise InputError(f"keep_reconstruction: expected a model with a reconstruction, got {name} without.")
        return (RECONSTRUCTION,)

    def check_image(self, image: Any) -> tuple[int, int]:
        """Return the height and width in pixels of an image that can be inspected, from any thread.

        Raises:
            InputError: it cannot; the message says which are expected.
        """
        size_px = self.executor.check_image(image)
        self.find_counting(size_px)
        return size_px

    def find_counting(self, size_px: tuple[int, int], *, is_tiled: bool = False) -> Counting | None:
        """Return what counts of the map of an image of this size, which tiles make as large; None: everything.

        Raises:
            InputError: the image's size is not the mask's.
        """
        return None if self.selection is None else self.selection.fit(size_px, size_px if is_tiled else self._map_size)

    def inspect(
        self, images: Sequence[Image], maps_out: Sequence[FloatArray | None], outputs: Sequence[str] = ()
    ) -> list[Result]:
        """Inspect as many of the images, from the first, as one batch takes."""
        sizes_px, executor, batch = [], self.executor, self.batch
        sizes = executor.batch_sizes
        size = sizes[0] if len(sizes) == 1 else choose_batch_size(sizes, len(images))
        wants_maps = self.selection is not None
        for image, map_out in zip(images[:size], maps_out, strict=False):
            sizes_px.append(self.check_image(image))
            if map_out is not None:
                check_map_out(map_out, *sizes_px[-1])
            wants_maps = wants_maps or map_out is None or map_out.size > 0
        executor.start(batch, images[:size], size, outputs=outputs, wants_maps=wants_maps)
        executor.finish(batch)
        results = []
        for index, size_px in enumerate(sizes_px):
            results.append(self.make_result(batch, index, size_px, maps_out[index], outputs))
        return results

    def make_result(
        self,
        batch: Batch,
        index: int,
        size_px: tuple[int, int],
        map_out: FloatArray | None = None,
        outputs: Sequence[str] = (),
    ) -> Result:
        """Return the result of one image of a finished batch.

        Args:
            batch: finished.
            index: of the image in it.
            size_px: rows and columns of the caller's image.
            map_out: float32 [h, w] of that size, to write the map to; empty: none is made; None: a new array.
            outputs: what was asked for at `start`.
        """
        start = time.perf_counter()
        score, times = self.find_score(batch, index, counting := self.find_counting(size_px)), batch.times[index]
        is_defect = is_defective(score, self.threshold)
        anomaly_map = np.empty(size_px, np.float32) if map_out is None else map_out
        defects: tuple[Defect, ...] = ()
        large: BoolArray | None = None
        if is_defect or anomaly_map.size:
            smoothed = batch.read_map(index)
            if anomaly_map.shape == smoothed.shape:
                np.copyto(anomaly_map, smoothed)
            elif anomaly_map.size:
                cv2.resize(smoothed, size_px[::-1], dst=anomaly_map, interpolation=cv2.INTER_LINEAR)
            if is_defect:
                defects = self.list_defects(smoothed, size_px, counting)
                large = None if counting is None else counting.mark_regions(smoothed, self.threshold)
        if self.selection is not None and anomaly_map.size:
            self.selection.blank(anomaly_map, self.threshold)
        times.postprocess_ms = (time.perf_counter() - start) * 1e3
        times.total_ms = times.preprocess_ms + times.engine_ms + times.postprocess_ms
        return Result(
            score=score,
            threshold=self.threshold,
            map_threshold=self.map_threshold,
            is_defect=is_defect,
            anomaly_map=anomaly_map,
            defects=defects,
            large=large,
            timings_ms=times.to_mapping(),
            reconstruction=batch.copy_output(RECONSTRUCTION, index) if outputs else None,
        )

    def find_score(self, batch: Batch, index: int, counting: Counting | None) -> float:
        """Return the score of what counts of one image of a finished batch."""
        score = batch.score(index)
        if counting is None:
            return score
        return score_counted(batch.read_map(index), self.bundle.manifest.decision, counting)

    def list_defects(
        self, smoothed: FloatArray, size_px: tuple[int, int], counting: Counting | None
    ) -> tuple[Defect, ...]:
        """List the defects of an image of this size, whose map is `smoothed`."""
        return list_defects(
            smoothed,
            self.map_threshold,
            *size_px,
            self.options.mm_per_pixel,
            pixels=None if counting is None else counting.pixels,
            least_area=1 if counting is None else counting.least_area,
            with_contours=self.options.contours,
        )

    def score_picture(self, picture: Image, counting: Counting | None) -> float:
        """Inspect an image of any size for its score alone, as one of which `counting` counts."""
        self.executor.check_image(picture)
        wants_map = counting is not None or self.has_own_score
        self.executor.start(self.batch, (picture,), self.executor.batch_sizes[0], wants_maps=wants_map)
        self.executor.finish(self.batch)
        return self.find_score(self.batch, 0, counting)

    def find_peak(self) -> float:
        """Return the largest value of the map of what `score_picture` scored last; for a model with its own score."""
        return float(self.batch.read_map(0).max())

    def warm_up(self, images: Sequence[Image]) -> None:
        """Run images of any size, as many as fill the largest batch size that they do, and drop what is found."""
        size = choose_batch_size(self.executor.batch_sizes, len(images))
        self.executor.start(self.batch, images[:size], size)
        self.executor.finish(self.batch)
        for index in range(size):
            self.batch.score(index)
            self.batch.read_map(index)

    def profile(self) -> dict[str, float]:
        """Return the milliseconds of each step of the program; none where it is one engine, whose backend tells more.

        Other calls wait meanwhile.
        """
        return self.executor.profile()

    def close(self) -> None:
        """Free engines and memory; twice is allowed."""
        self.executor.close()

    def _find_program(self) -> Program:
        kind = "cpu" if self.options.device == "cpu" else "cuda"
        return self.bundle.manifest.find_program(kind, self.options.plan)[1]


def open_session(options: Options) -> tuple[Bundle, Session]:
    """Open a bundle and a session, on the CPU where the device fails and the caller asked for that.

    Raises:
        BundleError: the bundle cannot be used.
        InputError, EngineError, DeviceError, MissingExtraError: as `Inspector.open`.
    """
    bundle = open_bundle(options.bundle, require_signature=options.require_signature)
    Preprocessor(bundle.manifest.input, channels=options.channels)  # refuses before engines are built
    try:
        return bundle, Session(bundle, options)
    except (DeviceError, EngineError, MissingExtraError) as error:
        if not options.can_fall_back:
            raise
        log.warning("going on with the CPU: %s", error)
        return bundle, Session(bundle, options.on_cpu())


def choose_batch_size(batch_sizes: Sequence[int], left_count: int) -> int:
    """Return the largest built size that is filled by the images left, or the smallest where none is."""
    chosen = batch_sizes[0]
    for size in batch_sizes:  # ascending
        if size <= left_count:
            chosen = size
    return chosen


def check_map_out(map_out: FloatArray | None, height_px: int, width_px: int) -> None:
    """Check an array that an image's map is to be written to.

    Raises:
        InputError: it is neither None, nor empty, nor float32 [h, w] with dense rows that may be written.
    """
    if map_out is None:
        return
    if not isinstance(map_out, np.ndarray):
        raise InputError(f"map_out: expected a NumPy array or None, got {type(map_out).__name__}.")
    if map_out.size == 0:
        return
    row_bytes = map_out.strides[0]
    expected = f"map_out: expected float32 [{height_px}, {width_px}] with dense rows, or an empty array"
    if map_out.dtype != np.float32 or map_out.shape != (height_px, width_px):
        raise InputError(f"{expected}, got {map_out.dtype} {list(map_out.shape)}.")
    if map_out.strides[1] != 4 or row_bytes < width_px * 4 or row_bytes % 4 or not map_out.flags.writeable:
        raise InputError(f"{expected}, got strides {map_out.strides} or a read-only array.")
