"""The Python face: what a program holds to inspect images."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ndp_rt.arrays import Array, FloatArray
from ndp_rt.bundle.open import Bundle
from ndp_rt.bundle.settled import read_settled
from ndp_rt.errors import DeviceError, InputError
from ndp_rt.images.checks import Image, check_image
from ndp_rt.options import Options, make_options, with_white_level
from ndp_rt.pipeline.large_image import inspect_tiles
from ndp_rt.pipeline.overlapped_batch import inspect_overlapped
from ndp_rt.pipeline.stream import FrameStream
from ndp_rt.result import Result
from ndp_rt.runtime.executor import closed, forked
from ndp_rt.runtime.lifetime import EXIT_WAIT_S, keep_for_ever, track
from ndp_rt.runtime.session import Session, check_map_out, open_session

Value = TypeVar("Value")

log = logging.getLogger("ndp_rt")


class Inspector:
    """Inspects images with one bundle on one device.

    Any thread may call any method. Calls wait for each other, except that each `stream` reads its source in a thread of
    its own. `open` allocates engines and buffers, `close` frees them; between them a call keeps no memory but that of
    the result which it returns. The buffers for images that compute beside each other are allocated by the first call
    that needs them.

    When the interpreter ends, a call in progress is waited for, and those in daemon threads raise ClosedError. So does
    every call in the child of a fork: open an inspector in each process.

    Pickling stores the arguments of `open`, and the copy opens itself again. It has the bundle's reference, not one
    that was set by `set_reference`.

    Examples:
        >>> from ndp_rt import Inspector, read_image
        >>> with Inspector.open("tiles.ndp") as inspector:
        ...     result = inspector.inspect(read_image("new/piece.png"))
        >>> result.is_defect
        True
    """

    def __init__(self, options: Options, bundle: Bundle, session: Session) -> None:
        """Use `Inspector.open`."""
        contract = bundle.manifest.input
        self.bundle = with_white_level(bundle, options.white_level)
        self._options = options
        self._current: Session | None = session
        self._last = session  # what properties tell of after close()
        self._lock = threading.Lock()
        self._reference_lock = threading.Lock()
        self._tile_size_px = contract.height_px, contract.width_px
        self._is_forked = False
        track(self)

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        device: str = "cpu",
        backend: str | None = None,
        precision: str = "fp32",
        plan: str | None = None,
        batches: Sequence[int] | None = None,
        threads: int | None = None,
        threshold: float | None = None,
        channels: str = "rgb",
        mm_per_pixel: float | None = None,
        white_level: int | None = None,
        ignore_mask: str | Path | Array | None = None,
        smallest_area_px: int | None = None,
        smallest_area_mm2: float | None = None,
        contours: bool = False,
        build: bool = True,
        fallback: bool = False,
        require_signature: str | Path | None = None,
    ) -> "Inspector":
        """Open a bundle for inspection.

        Args:
            bundle: the folder NAME.ndp.
            device: "cpu", "cuda" (the first GPU) or "cuda:N".
            backend: "openvino", "onnxruntime"; on a GPU "tensorrt", "torch-cuda"; None: the first (installed) one.
            precision: "fp32", "bf16"; on a CPU also "int8" and "mixed", on a GPU "tf32", "fp16", "int8".
            plan: "fused" (one graph), "staged" (swaps the reference), on a GPU "unmerged"; None: "fused", or "staged".
            batches: batch sizes to have engines for; None: those that are built already, else 1.
            threads: of the engine; None: the backend chooses.
            threshold: decision threshold; None: the bundle's for this precision.
            channels: order of the arrays' channels: "rgb", "bgr", or "drop-alpha" (RGBA).
            mm_per_pixel: size of an image's pixel, for defects in mm; None: pixels only.
            white_level: the value of uint16 images that is white (4095 for 12 bits); None: the bundle's, of training.
            ignore_mask: a file, or integers or bool [h, w], of the images' size: 0 counts, one other value does not.
            smallest_area_px: regions with fewer pixels of the image are no defects, and do not raise the score.
            smallest_area_mm2: likewise, with mm_per_pixel.
            contours: give each defect its outline.
            build: build engines that are missing (seconds to a minute, on a GPU minutes); False: refuse.
            fallback: where the GPU fails, go on with the CPU in fp32, at its threshold, and log it. False: raise.
            require_signature: a public key's file; the bundle has to be signed with it ('ndp-rt sign'). None: any.

        Raises:
            BundleError: the bundle is missing, damaged, newer, or not signed as required.
            DeviceError: there is no such device, or it fails.
            EngineError: an engine cannot be built, or is missing and `build` is False.
            MissingExtraError: a package that the backend needs is not installed.
            InputError: an argument is none of the above, or the bundle has no threshold for this precision.
            ImageFileError: the mask's file cannot be read.
        """
        arguments = {name: value for name, value in locals().items() if name != "cls"}
        return cls._open(make_options(**arguments))

    @classmethod
    def _open(cls, options: Options) -> "Inspector":
        return read_settled(Path(options.bundle).absolute(), lambda: cls(options, *open_session(options)), cls.close)

    def inspect(self, image: Image, *, keep_reconstruction: bool = False, map_out: FloatArray | None = None) -> Result:
        """Inspect one image.

        Args:
            image: uint8 or uint16, [h, w], [h, w, 1] or [h, w, 3] of any size, any strides; only read. On a GPU also an
                array there, of CuPy, PyTorch, PyCUDA or what else has `__dlpack__` or `__cuda_array_interface__`: it is
                read where it is, after what its producer has put on its stream.
            keep_reconstruction: also return the network's reconstruction.
            map_out: float32 [h, w] of the image's size, its rows dense, on the host: the map is written there and is
                the result's. An empty array: no map is made, which spares the time of scaling it. None: a new array.

        Raises:
            InputError: an image or an array of another form; the message says which forms are expected.
            ClosedError: after close().
        """
        with self._lock:
            outputs = self._need_session().check_outputs(True) if keep_reconstruction else ()
            return self._guard(Session.inspect, (image,), (map_out,), outputs)[0]

    def inspect_batch(
        self,
        images: Sequence[Image],
        *,
        keep_reconstruction: bool = False,
        maps_out: Sequence[FloatArray | None] | None = None,
    ) -> list[Result]:
        """Inspect several images; all are checked before the first runs.

        On a CPU (OpenVINO, fused plan, two threads or more) they compute beside each other, a thread for each, in parts
        of the smallest size that was built; the engine time is then from a batch's start until its maps are there. Else
        they go through in the largest batches that were built. A batch's engine time is shared out among its images.

        Args:
            images: as for `inspect`; sizes may differ. An empty list gives one.
            keep_reconstruction: also return the network's reconstructions.
            maps_out: one for each image, as for `inspect`.
        """
        if not hasattr(images, "__len__"):
            raise InputError(f"images: expected a list, got {type(images).__name__}. stream() takes iterators.")
        maps_out = [None] * len(images) if maps_out is None else maps_out
        if len(maps_out) != len(images):
            raise InputError(f"maps_out: expected one for each of {len(images)} images, got {len(maps_out)}.")
        with self._lock:
            session = self._need_session()
            outputs = session.check_outputs(keep_reconstruction)
            for index, (image, map_out) in enumerate(zip(images, maps_out, strict=True)):
                try:
                    check_map_out(map_out, *session.check_image(image))
                except InputError as error:
                    raise InputError(f"image {index} of the batch: {error}") from error
            results = inspect_overlapped(session, images, maps_out, outputs)
            while (done := len(results)) < len(images):
                results += self._guard(Session.inspect, images[done:], maps_out[done:], outputs)
        return results

    def inspect_large(self, image: Image, *, overlap_px: int = 32, map_out: FloatArray | None = None) -> Result:
        """Inspect an image larger than the network's input in overlapping tiles of that size, without resizing.

        The image should show the surface at the scale of the training images after their resizing. Where tiles
        overlap the map is their maximum, so that what one tile sees is never averaged away; the score is the largest
        of all tiles. An image with more tiles has more chances of a false alarm than the threshold was calibrated
        for. An axis shorter than a tile is mirrored at its end. Beside the result's own map, an ignore mask and,
        with a smallest area, a mask of the regions, memory does not grow with the image (a memory-mapped array is read
        tile by tile). Regions of the list are as large as they are on the whole map, in however many tiles they lie;
        so are those of the score, with the rule `max`.

        Args:
            image: as for `inspect`.
            overlap_px: what neighbouring tiles share at least; 0 to half a tile.
            map_out: as for `inspect`, but the map is made in any case: the score comes from it.
        """
        check_image(image, self._options.channels)  # of any size, because only tiles are resized
        check_map_out(map_out, *image.shape[:2])
        with self._lock:
            return self._guard(inspect_tiles, image, self._tile_size_px, overlap_px, map_out)

    def stream(self, frames: Iterable[Image], *, keep_reconstruction: bool = False) -> Iterator[Result]:
        """Inspect frames as they come; others are read, preprocessed and judged while some are in the engine.

        On a CPU a frame that finds the engine idle gets all its threads; frames that come faster share them, a thread
        for each, which gives more frames a second. Results come in the order of the frames. The source is iterated in a
        thread of its own, at most as many frames ahead as the engine has threads (8 at most) and one, and may reuse one
        buffer for all. What it raises is raised here, after the results of the frames before. Closing the iterator (or
        leaving the loop and dropping it) stops the reading, waiting at most a second for a frame that is on its way;
        frames that were read ahead are lost. In `timings_ms` the total is the sum of the parts, some of which ran
        beside those of other frames; `engine` is from where a frame is handed to the engine until its map is there.

        Args:
            frames: images as for `inspect`. One buffer may serve for all on the host; an array on a GPU has to stay as
                it is until its result comes. The source's thread goes on with the streams of CuPy and PyTorch that are
                current where this is called.
            keep_reconstruction: also return the network's reconstructions.
        """
        with self._lock:
            session = self._need_session()
            outputs = session.check_outputs(keep_reconstruction)
            use_streams = session.executor.share_streams()
        return self._stream(session, frames, outputs, use_streams)

    def _stream(
        self, session: Session, frames: Iterable[Image], outputs: Sequence[str], use_streams: Callable[[], None]
    ) -> Iterator[Result]:
        stream = FrameStream(session, frames, outputs, use_streams)
        try:
            for frame in stream:
                with self._lock:
                    result = stream.finish(frame, is_current=self._need_session() is session)
                    if result is None:  # the device failed, and this frame was kept
                        assert frame.kept is not None
                        result = self._guard(Session.inspect, (frame.kept,), (None,), outputs)[0]
                stream.release(frame)
                yield result
        finally:
            stream.close()

    def set_reference(self, image: Image) -> None:
        """Use another defect-free image as the reference from the next inspection on.

        The staged plan swaps at once; the fused one compiles its graph anew (seconds), while inspections go on with
        the old reference but for one pause, in which the new features are computed. The threshold stays: it was
        calibrated with the old one, so check it. The bundle on disk does not change ('ndp-rt set-reference' does that).

        Args:
            image: as for `inspect`.

        Raises:
            InputError: an image of another form.
            EngineError: the changed model cannot be compiled; the old reference stays in use.
        """
        with self._reference_lock:
            executor = self._need_session().executor
            executor.check_image(image)
            executor.set_asset(image)

    def set_threshold(self, threshold: float) -> None:
        """Decide by another threshold from the next inspection on.

        The bundle on disk does not change ('ndp-rt set-threshold' does that); a pickled copy takes the threshold along.

        Args:
            threshold: a number; infinity lets everything pass.

        Raises:
            InputError: NaN.
            ClosedError: after close().
        """
        with self._lock:
            self._need_session().set_threshold(float(threshold))
            self._options = replace(self._options, threshold=float(threshold))

    def warm_up(self, *, count: int = 3) -> None:
        """Run every built batch size `count` times on a grey image, so that the first real image is as fast as others.

        What computes images beside each other is still loaded by the first batch or stream that needs it.

        Raises:
            InputError: `count` is below 1.
        """
        if count < 1:
            raise InputError(f"count: expected 1 or more, got {count}.")
        grey = np.full(self._tile_size_px, 128, np.uint8)
        for size in self.batch_sizes:
            images = [grey] * size
            for _ in range(count):
                with self._lock:
                    self._guard(Session.warm_up, images)

    def close(self) -> None:
        """Free engines and buffers after the call in progress; twice is allowed, other calls raise ClosedError."""
        with self._lock:
            session, self._current = self._current, None
            if session is not None:
                session.close()

    def end(self) -> None:
        """See `ndp_rt.runtime.lifetime.Tracked`."""
        for lock in (self._reference_lock, self._lock):
            if not lock.acquire(timeout=EXIT_WAIT_S):
                return
            lock.release()
        self.close()

    def abandon(self) -> None:
        """See `ndp_rt.runtime.lifetime.Tracked`."""
        keep_for_ever(self._last)
        self._lock, self._reference_lock = threading.Lock(), threading.Lock()  # a thread of the parent may hold them
        self._current, self._is_forked = None, True

    @property
    def threshold(self) -> float:
        """The threshold that decides."""
        return self._last.threshold

    @property
    def device(self) -> str:
        """The device of inspections now: what was asked for at `open`, or "cpu" after a fall-back."""
        return self._last.options.device

    @property
    def session(self) -> Session:
        """The session of inspections now, or until close(): for measuring (`Session.profile`)."""
        return self._last

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that engines were built for, ascending."""
        return self._last.executor.batch_sizes

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that `Result.timings_ms` tells apart; none for the fused plan."""
        return self._last.executor.stage_names

    @property
    def engine_hash(self) -> str:
        """Names the engines, and the reference, that results come from."""
        with self._lock:
            return self._need_session().executor.engine_hash

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Inspector._open, (self._options,)

    def __repr__(self) -> str:
        state = "closed" if self._current is None else f"threshold {self.threshold:.6g}"
        options = self._last.options
        return f"<Inspector {self.bundle.path.name}: {options.device} {options.precision}, {state}>"

    def _need_session(self) -> Session:
        if self._current is None:
            raise forked() if self._is_forked else closed()
        return self._current

    def _guard(self, call: Callable[..., Value], *arguments: Any) -> Value:
        """Call with the session and, where the device fails and the caller asked for it, once more on the CPU."""
        session = self._need_session()
        try:
            return call(session, *arguments)
        except DeviceError as error:
            if not session.options.can_fall_back:
                raise
            log.warning("going on with the CPU: %s", error)
            session.close()
            self._current = self._last = Session(self.bundle, session.options.on_cpu())
        return call(self._current, *arguments)
