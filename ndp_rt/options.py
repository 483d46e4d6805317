"""Options of opening an inspector."""

import dataclasses
import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from ndp_rt.arrays import Array, BoolArray
from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.counting import Selection
from ndp_rt.decide.regions import to_mm
from ndp_rt.engines.spec import CPU as CPU
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import InputError
from ndp_rt.images.masks import take_ignore_mask
from ndp_rt.program.manifest import INT8_PRECISIONS, BundleManifest

MOST_WHITE = 65535
MOST_AREA_PX = 2**31 - 1

log = logging.getLogger("ndp_rt")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments that an inspector was opened with; checked on creation, picklable."""

    bundle: str
    device: str = "cpu"
    backend: str | None = None
    precision: str = "fp32"
    plan: str | None = None
    batches: tuple[int, ...] | None = None
    threads: int | None = None
    threshold: float | None = None
    channels: str = "rgb"
    mm_per_pixel: float | None = None
    white_level: int | None = None
    ignore_mask: BoolArray | None = None
    smallest_area_px: int | None = None
    smallest_area_mm2: float | None = None
    contours: bool = False
    build: bool = True
    fallback: bool = False
    require_signature: str | None = None

    def __post_init__(self) -> None:
        _ = self.engine_spec  # refuses what no engine can be
        if self.threshold is not None and math.isnan(self.threshold):
            raise InputError("expected a threshold that is a number, or None for the bundle's own, got nan.")
        if self.mm_per_pixel is not None and not 0.0 < self.mm_per_pixel < math.inf:
            raise InputError(f"expected mm_per_pixel above 0, or None, got {self.mm_per_pixel}.")

        if self.white_level is not None and not (
            isinstance(self.white_level, Integral) and 1 <= self.white_level <= MOST_WHITE
        ):
            raise InputError(
                f"expected white_level from 1 to {MOST_WHITE}, or None for the bundle's, got {self.white_level!r:.80}. "
                "An array does not tell which value is white; of files 'ndp-rt inspect --white-level auto' reads it."
            )

        self._check_areas()

    def _check_areas(self) -> None:
        area_px, area_mm2 = self.smallest_area_px, self.smallest_area_mm2
        if area_px is not None and not (isinstance(area_px, Integral) and 1 <= area_px <= MOST_AREA_PX):
            raise InputError(f"smallest_area_px: expected a whole number from 1 to {MOST_AREA_PX}, got {area_px!r}.")
        if area_mm2 is None:
            return
        if area_px is not None:
            raise InputError("smallest area: expected smallest_area_px or smallest_area_mm2, got both.")
        if self.mm_per_pixel is None:
            raise InputError(
                "smallest_area_mm2: expected mm_per_pixel with it, got none. Give it, or an area in pixels."
            )
        if not 0.0 < area_mm2 <= to_mm(MOST_AREA_PX, self.mm_per_pixel**2):
            raise InputError(f"smallest_area_mm2: expected above 0, up to {MOST_AREA_PX} pixels, got {area_mm2}.")

    @property
    def least_area_px(self) -> int:
        """The area in pixels from which on a region counts; as few as have smallest_area_mm2 when listed in mm."""
        if self.smallest_area_mm2 is None or self.mm_per_pixel is None:
            return self.smallest_area_px or 1
        pixel_mm2 = self.mm_per_pixel**2
        least = max(1, math.floor(self.smallest_area_mm2 / pixel_mm2) - 1)
        while to_mm(least, pixel_mm2) < self.smallest_area_mm2:
            least += 1
        return least

    def make_selection(self) -> Selection | None:
        """Return what of images counts; None: everything."""
        if self.ignore_mask is None and self.least_area_px == 1:
            return None
        return Selection(ignored=self.ignore_mask, smallest_area_px=self.least_area_px)

    @property
    def engine_spec(self) -> EngineSpec:
        """The engines that are meant."""
        return EngineSpec(
            device=self.device,
            backend=self.backend,
            precision=self.precision,
            plan=self.plan,
            batches=None if self.batches is None else tuple(sorted(set(self.batches))),
            threads=self.threads,
        )

    @property
    def can_fall_back(self) -> bool:
        """Tell whether the CPU is to take over where a GPU fails."""
        return self.fallback and self.device != CPU

    def on_cpu(self) -> "Options":
        """Return the same on the CPU: its first backend and plan, in fp32, which runs on any."""
        return dataclasses.replace(self, device=CPU, backend=None, precision="fp32", plan=None, threads=None)


def make_options(
    *,
    bundle: str | Path,
    batches: Sequence[int] | None,
    ignore_mask: str | Path | Array | None,
    require_signature: str | Path | None,
    **others: Any,
) -> Options:
    """Return the options that the arguments of `Inspector.open` say.

    Raises:
        InputError: one of them is refused.
        ImageFileError: the mask's file cannot be read.
    """
    return Options(
        bundle=str(bundle),
        batches=None if batches is None else tuple(batches),
        ignore_mask=None if ignore_mask is None else take_ignore_mask(ignore_mask),
        require_signature=None if require_signature is None else str(require_signature),
        **others,
    )


def with_white_level(bundle: Bundle, white_level: int | None) -> Bundle:
    """Return the bundle with another white level for 16-bit images; None: as it is. Engines do not depend on it."""
    if white_level is None:
        return bundle
    contract = dataclasses.replace(bundle.manifest.input, white_level_16bit=white_level)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, input=contract))


def warn_unreachable(manifest: BundleManifest, threshold: float) -> None:
    """Log a threshold that no score of the bundle can reach, which lets every defect pass."""
    sentence = manifest.describe_unreachable(threshold)
    if sentence is not None:
        log.warning("%s", sentence)


def warn_without_map_threshold(bundle: Bundle, precision: str, threshold: float) -> None:
    """Log, once, that a bundle's model gives its score itself and no threshold is known for its map.

    Where the threshold is infinity no defects are listed.
    """
    has_own_score = bundle.manifest.decision.score == "output"
    if has_own_score and bundle.threshold(precision).map_value is None and threshold < math.inf:
        _warn_once(
            f"{bundle.path.name} has no threshold for its map in {precision}, whose values are others than its scores: "
            "defects are listed where it reaches the threshold of the score, which may be nowhere or everywhere. Store "
            f"one with: ndp-rt set-threshold {bundle.path} --precision {precision} --calibrate DIR"
        )


@functools.cache
def _warn_once(sentence: str) -> None:
    log.warning("%s", sentence)


def find_threshold(bundle: Bundle, options: Options) -> float:
    """Return the threshold to decide by: the one given, else the bundle's for the precision.

    Raises:
        InputError: there is none.
    """
    if options.threshold is not None:
        return options.threshold
    spec = bundle.threshold(options.precision)
    if spec.value is None:
        if options.precision in INT8_PRECISIONS and options.device == CPU and not bundle.int8_limits(options.precision):
            raise InputError(
                f"{bundle.path.name} has no layers chosen for {options.precision}. Choose them with: ndp-rt quantise "
                f"{bundle.path}"
            )
        have = ", ".join(name for name, one in bundle.manifest.thresholds.items() if one.value is not None)
        raise InputError(
            f"{bundle.path.name} has no threshold for {options.precision} (it has: {have or 'none'}). Give one with "
            f"threshold=, or store one: ndp-rt set-threshold {bundle.path} --precision {options.precision} "
            "--calibrate DIR, where DIR holds good images."
        )
    return spec.value
