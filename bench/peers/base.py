"""What a rival is, and the check that comes before every time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.golden_report import GoldenReport, compare_golden
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.kernels.reference import smooth

Image = NDArray[np.uint8]  # [h, w, 3], RGB, of the network's size
FloatArray = NDArray[np.float32]


class PeerRunner(Protocol):
    """A rival with one bundle, precision and batch size; one call at a time, all from the thread that opened it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a record says of it: versions, and whether it uses a CUDA graph."""
        ...

    def run(self, images: Sequence[Image]) -> tuple[FloatArray, FloatArray]:
        """Take images in the host's memory to smoothed maps and scores there.

        Args:
            images: as many as the batch, uint8 [h, w, 3], dense, of the network's size: no rival resizes.

        Returns:
            Smoothed maps [n, 1, h, w] and scores [n], in memory that the next call overwrites.
        """
        ...

    def close(self) -> None:
        """Free everything; twice is allowed."""
        ...


class Peer(Protocol):
    """A rival."""

    @property
    def name(self) -> str: ...

    @property
    def precisions(self) -> tuple[str, ...]: ...

    def find(self) -> str | None:
        """Return why it cannot run here, with what to do about it; None: it can. Never raises."""
        ...

    def open(self, bundle: Bundle, precision: str, batch: int) -> PeerRunner:
        """Prepare everything, up to the first runs.

        Raises:
            NdpRtError: it cannot; the message has the library's reason.
        """
        ...


def open_checked(peer: Peer, bundle: Bundle, precision: str, batch: int) -> tuple[PeerRunner, GoldenReport]:
    """Open a rival and compare its answers with the golden vectors, so that no time is taken of a wrong one.

    Raises:
        InputError: a precision that it has not.
        MissingExtraError: it cannot run here.
        EngineError: its answers differ by more than `ndp_rt.tolerances` allows.
    """
    if precision not in peer.precisions:
        raise InputError(f"precision is '{precision}'; {peer.name} takes {', '.join(peer.precisions)}.")
    reason = peer.find()
    if reason is not None:
        raise MissingExtraError(f"{peer.name} cannot run here: {reason}")
    runner = peer.open(bundle, precision, batch)
    try:
        return runner, check_runner(bundle, runner, precision, batch)
    except EngineError as error:
        runner.close()
        raise EngineError(f"{peer.name}: {error}") from error
    except BaseException:
        runner.close()
        raise


def check_runner(bundle: Bundle, runner: PeerRunner, precision: str, batch: int) -> GoldenReport:
    """Compare smoothed maps and scores with what the golden maps become.

    Raises:
        EngineError: they differ by more than `ndp_rt.tolerances` allows; the message says by how much.
    """

    def run(images: FloatArray) -> tuple[FloatArray, FloatArray]:
        maps, scores = runner.run([to_image(values) for values in images])
        return maps.copy(), scores.copy()

    golden = bundle.golden()
    smoothed = dataclasses.replace(golden, map=smooth(golden.map).astype(np.float32))
    return compare_golden(bundle, smoothed, run, precision=precision, batch=batch)


def to_image(values: FloatArray) -> Image:
    """Return the uint8 image [h, w, 3] that a golden vector's input [3, h, w] was made of."""
    return np.ascontiguousarray(np.round(values.transpose(1, 2, 0) * 255).astype(np.uint8))


def check_images(images: Sequence[Image], shape: tuple[int, ...]) -> None:
    """Check a batch against [n, h, w, 3].

    Raises:
        InputError: another number, type or size.
    """
    wrong = [image for image in images if image.dtype != np.uint8 or image.shape != shape[1:]]
    if len(images) != shape[0] or wrong:
        came = f"{wrong[0].dtype} {list(wrong[0].shape)}" if wrong else f"{len(images)} images"
        raise InputError(f"a batch holds {came}; {shape[0]} images, uint8 {list(shape[1:])}, are taken.")
