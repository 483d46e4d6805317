"""What a rival is, and the check that comes before every time."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.golden_report import compare_golden, find_largest
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.images.opencv import cv2
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.program.manifest import BundleManifest

Image = NDArray[np.uint8]  # [h, w, 3], RGB, of the network's size
FloatArray = NDArray[np.float32]
Answer = tuple[FloatArray, FloatArray]  # maps [n, 1, h, w] and scores [n]

# Of the largest value of another network's map: the bundle's own bounds say nothing of it. Sums in another order move
# a map by some 1e-5 of that; a wrong layout, weight or precision by far more than this.
SHARE_ALLOWED = 1e-2


@dataclass(frozen=True, kw_only=True)
class Check:
    """How far maps are from what they are compared with."""

    map_max_abs_difference: float  # of the scores where the network gives no map; `against` says so
    allowed: float | None  # None: nothing else was there that it could be held to
    against: str
    image_count: int


@dataclass(frozen=True)
class OpenRival:
    """A rival with one bundle, precision and batch size; one call at a time, all from the thread that opened it.

    Attributes:
        shape: [n, h, w, 3] of a batch.
        run: takes such images, in the host's memory, to maps and scores, in memory that the next call may overwrite.
            The maps of the bundle's network are smoothed (eq. 11), other networks' are as their own method has them.
        facts: what a record says of it: versions, sizes, and whether it uses a CUDA graph.
        close: frees everything; called once.
    """

    shape: tuple[int, ...]
    run: Callable[[Sequence[Image]], Answer]
    facts: Mapping[str, Any]
    close: Callable[[], None] = lambda: None


class Rival:
    """What one would use instead. Making one, and asking for its name and precisions, imports nothing that it needs."""

    name: str
    precisions: tuple[str, ...] = ("fp32",)
    is_same_network = True  # as the bundle
    is_fitted = False  # another network, whose weights come from images: its accuracy means something
    needs: Mapping[str, str] = {}

    def find(self) -> str | None:
        """Return why it cannot run here, with what to do about it; None: it can. Never raises."""
        for module, remedy in self.needs.items():
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: {remedy}."
        return None

    def find_misfit(self, manifest: BundleManifest) -> str | None:
        """Return why it cannot run a bundle's network, with what to do about it; None: it can. Never raises."""
        try:
            if self.is_same_network:
                manifest.find_single_stage()
        except InputError as error:
            return f"{error} Compare with other networks."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        """Prepare everything, up to the first runs.

        Args:
            bundle: its graph and size, as it was exported: with or without rewrites.
            precision: one of `precisions`.
            batch: images of a run.
            threads: on the CPU; None: as many as the library chooses. On a GPU it is not used.

        Raises:
            NdpRtError: it cannot; the message has the library's reason.
        """
        raise NotImplementedError

    def check(self, bundle: Bundle, opened: OpenRival, precision: str) -> Check:
        """Compare what `open` returned with what it should compute, on the bundle's golden images.

        Raises:
            EngineError: it differs by more than is allowed; the message says by how much.
        """
        return check_golden(bundle, opened.run, precision, opened.shape[0])


def open_checked(
    rival: Rival, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None
) -> tuple[OpenRival, Check]:
    """Open a rival and check its answers, so that no time is taken of a wrong one.

    Raises:
        InputError: a precision that it has not, a bundle that it cannot run, or threads below 1.
        MissingExtraError: it cannot run here.
        EngineError: its answers differ by more than is allowed.
    """
    if precision not in rival.precisions:
        raise InputError(
            f"{rival.name}: expected one of the precisions {', '.join(rival.precisions)}, got '{precision}'."
        )
    if threads is not None and threads < 1:
        raise InputError(f"expected 1 thread or more, or None for the library's choice, got {threads}.")
    reason, misfit = rival.find(), rival.find_misfit(bundle.manifest)
    if reason is not None:
        raise MissingExtraError(f"{rival.name} cannot run here: {reason}")
    if misfit is not None:
        raise InputError(f"{rival.name}: {misfit}")
    opened = rival.open(bundle, precision, batch, threads=threads)
    try:
        return opened, rival.check(bundle, opened, precision)
    except EngineError as error:
        opened.close()
        raise EngineError(f"{rival.name}: {error}") from error
    except BaseException:
        opened.close()
        raise


def check_golden(bundle: Bundle, run: Callable[[Sequence[Image]], Answer], precision: str, batch: int) -> Check:
    """Compare maps, smoothed by the bundle's rule, and scores with what the golden maps become.

    Raises:
        EngineError: they differ by more than `ndp_rt.engines.tolerances` allows; the message says by how much.
    """

    def run_values(images: FloatArray) -> Answer:
        return copy_answer(run([to_image(values) for values in images]))

    golden, rules = bundle.golden(), bundle.manifest.decision
    if rules.smooth != "none":
        golden = dataclasses.replace(golden, map=smooth(golden.map, rules.smooth_size_px).astype(np.float32))
    golden = dataclasses.replace(golden, map=enlarge(golden.map, golden.image.shape[2:]))
    report = compare_golden(bundle, golden, run_values, precision=precision, batch=batch)
    return Check(
        map_max_abs_difference=report.map_max_abs_difference,
        allowed=report.map_tolerance,
        against=f"{bundle.manifest.golden.get('made_by', 'PyTorch')} fp32 maps of the golden images",
        image_count=report.vector_count,
    )


def enlarge(maps: FloatArray, size_px: Sequence[int]) -> FloatArray:
    """Return maps [n, 1, h, w] as the inspector gives them: of the image's size."""
    if maps.shape[2:] == tuple(size_px):
        return maps
    resized = [cv2.resize(one, tuple(size_px)[::-1], interpolation=cv2.INTER_LINEAR) for one in maps[:, 0]]
    return np.stack(resized)[:, None]


def list_golden_images(bundle: Bundle, batch: int) -> list[Image]:
    """Return as many golden images as a batch holds, from the first, over again where there are fewer."""
    images = bundle.golden().image
    return [to_image(images[index % len(images)]) for index in range(batch)]


def compare_answers(actual: Answer, expected: Answer, *, against: str) -> Check:
    """Return how far maps are from another computation of the same network, or scores where that gives no map.

    Args:
        actual: of the rival.
        expected: of the other computation.
        against: names the other computation.

    Raises:
        EngineError: they differ by more than SHARE_ALLOWED; the message says by how much.
    """
    has_map = bool(expected[0].any())
    found: dict[str, tuple[float, float]] = {}
    for what, one, other in zip(("maps", "scores"), actual, expected, strict=True):
        found[what] = find_largest(0.0, one, other), SHARE_ALLOWED * float(np.abs(other).max())
        difference, allowed = found[what]
        # Written so that NaN fails.
        if not difference <= allowed:
            raise EngineError(
                f"its {what} differ by {difference:.2e} from {against}; {allowed:.2e}, {SHARE_ALLOWED:.0%} of the "
                "largest value, is allowed. It is not timed. Leave it out, or report it."
            )
    difference, allowed = found["maps" if has_map else "scores"]
    return Check(
        map_max_abs_difference=difference,
        allowed=allowed,
        against=against if has_map else f"{against} (scores: it gives no map)",
        image_count=len(actual[0]),
    )


def copy_answer(answer: Answer) -> Answer:
    """Return maps and scores in memory of their own."""
    return answer[0].copy(), answer[1].copy()


def to_image(values: FloatArray) -> Image:
    """Return the uint8 image [h, w, 3] that a golden vector's input [3, h, w] was made of."""
    return np.ascontiguousarray(np.round(values.transpose(1, 2, 0) * 255).astype(np.uint8))
