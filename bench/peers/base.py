"""What a rival is, and the check that comes before every time."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.golden_report import GoldenReport, compare_golden, find_largest
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.kernels.smooth.definition import smooth

Image = NDArray[np.uint8]  # [h, w, 3], RGB, of the network's size
FloatArray = NDArray[np.float32]
Answer = tuple[FloatArray, FloatArray]  # maps [n, 1, h, w] and scores [n]

# Of the largest value of another network's map: the bundle's own bounds say nothing of it. Sums in another order move
# a map by some 1e-5 of that; a wrong layout, weight or precision by far more than this.
SHARE_ALLOWED = 1e-2


@dataclass(frozen=True, kw_only=True)
class Check:
    """How far a rival's maps are from what they are compared with."""

    map_max_abs_difference: float  # of the scores where the network gives no map; `against` says so
    allowed: float | None  # None: nothing else was there that it could be held to
    against: str
    image_count: int
    golden: GoldenReport | None = None  # where `against` is the golden vectors, all that was found


class PeerRunner(Protocol):
    """A rival with one bundle, precision and batch size; one call at a time, all from the thread that opened it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a record says of it: versions, sizes, and whether it uses a CUDA graph."""
        ...

    def run(self, images: Sequence[Image]) -> Answer:
        """Take images in the host's memory to maps and scores there.

        Args:
            images: as many as the batch, uint8 [h, w, 3], dense, of the bundle's size.

        Returns:
            Maps [n, 1, h, w] and scores [n], in memory that the next call may overwrite. The bundle's network's maps
            are smoothed (eq. 11), other networks' as their own method has them.
        """
        ...

    def close(self) -> None:
        """Free everything; twice is allowed."""
        ...


class Peer(Protocol):
    """A rival. Making one and asking for its name and precisions imports nothing of what it runs with."""

    @property
    def name(self) -> str: ...

    @property
    def precisions(self) -> tuple[str, ...]: ...

    def find(self) -> str | None:
        """Return why it cannot run here, with what to do about it; None: it can. Never raises."""
        ...

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> PeerRunner:
        """Prepare everything, up to the first runs.

        Args:
            bundle: its graph and size, as it was exported: with or without rewrites.
            precision: one of `precisions`.
            batch: images of a run.
            threads: on the CPU; None: as many as the library chooses. On a GPU it is not used.

        Raises:
            NdpRtError: it cannot; the message has the library's reason.
        """
        ...

    def check(self, bundle: Bundle, runner: PeerRunner, precision: str, batch: int) -> Check:
        """Compare what `open` returned with what it should compute, on the bundle's golden images.

        Raises:
            EngineError: it differs by more than is allowed; the message says by how much.
        """
        ...


class BundlePeer:
    """The check of every rival that runs the bundle's own network."""

    def check(self, bundle: Bundle, runner: PeerRunner, precision: str, batch: int) -> Check:
        """See `Peer`."""
        report = check_golden(bundle, runner, precision, batch)
        return Check(
            map_max_abs_difference=report.map_max_abs_difference,
            allowed=report.map_tolerance,
            against="PyTorch fp32 maps of the golden images",
            image_count=report.vector_count,
            golden=report,
        )


def open_checked(
    peer: Peer, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None
) -> tuple[PeerRunner, Check]:
    """Open a rival and check its answers, so that no time is taken of a wrong one.

    Raises:
        InputError: a precision that it has not, or threads below 1.
        MissingExtraError: it cannot run here.
        EngineError: its answers differ by more than is allowed.
    """
    if precision not in peer.precisions:
        raise InputError(f"precision is '{precision}'; {peer.name} takes {', '.join(peer.precisions)}.")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; 1 or more, or None for the library's choice, is taken.")
    reason = peer.find()
    if reason is not None:
        raise MissingExtraError(f"{peer.name} cannot run here: {reason}")
    runner = peer.open(bundle, precision, batch, threads=threads)
    try:
        return runner, peer.check(bundle, runner, precision, batch)
    except EngineError as error:
        runner.close()
        raise EngineError(f"{peer.name}: {error}") from error
    except BaseException:
        runner.close()
        raise


def check_golden(bundle: Bundle, runner: PeerRunner, precision: str, batch: int) -> GoldenReport:
    """Compare smoothed maps and scores with what the golden maps become.

    Raises:
        EngineError: they differ by more than `ndp_rt.engines.tolerances` allows; the message says by how much.
    """

    def run(images: FloatArray) -> Answer:
        return copy_answer(runner.run([to_image(values) for values in images]))

    golden = bundle.golden()
    smoothed = dataclasses.replace(golden, map=smooth(golden.map).astype(np.float32))
    return compare_golden(bundle, smoothed, run, precision=precision, batch=batch)


def list_golden_images(bundle: Bundle, batch: int) -> list[Image]:
    """Return as many golden images as a batch holds, from the first, over again where there are fewer."""
    images = bundle.golden().image
    return [to_image(images[index % len(images)]) for index in range(batch)]


def compare_answers(actual: Answer, expected: Answer, *, against: str, is_held: bool = True) -> Check:
    """Return how far maps are from another computation of the same network, or scores where that gives no map.

    Args:
        actual: of the rival.
        expected: of the other computation.
        against: names the other computation.
        is_held: whether SHARE_ALLOWED holds, for maps and scores alike; else the difference is recorded and no more.

    Raises:
        EngineError: they differ by more; the message says by how much.
    """
    has_map = bool(expected[0].any())
    found: dict[str, tuple[float, float]] = {}
    for what, one, other in zip(("maps", "scores"), actual, expected, strict=True):
        found[what] = find_largest(0.0, one, other), SHARE_ALLOWED * float(np.abs(other).max())
        difference, allowed = found[what]
        # Written so that NaN fails.
        if is_held and not difference <= allowed:
            raise EngineError(
                f"its {what} differ by {difference:.2e} from {against}; {allowed:.2e}, {SHARE_ALLOWED:.0%} of the "
                "largest value, is allowed. It is not timed. Leave it out, or report it."
            )
    difference, allowed = found["maps" if has_map else "scores"]
    return Check(
        map_max_abs_difference=difference,
        allowed=allowed if is_held else None,
        against=against if has_map else f"{against} (scores: it gives no map)",
        image_count=len(actual[0]),
    )


def copy_answer(answer: Answer) -> Answer:
    """Return maps and scores in memory of their own."""
    return answer[0].copy(), answer[1].copy()


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
