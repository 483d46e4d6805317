"""Inspects labelled images: scores and maps beside the masks that they are compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.errors import DataError, ImageFileError, InputError
from ndp_rt.evaluate.dataset import Sample, load_mask
from ndp_rt.images.checks import Image
from ndp_rt.images.opencv import lacks_memory
from ndp_rt.images.read import load_image


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One inspected image; `mask` is bool [h, w] like the map, None if the pixel figures leave the image out.

    `large` is that of `ndp_rt.result.Result`.
    """

    sample: Sample
    score: float
    is_defect: bool
    anomaly_map: FloatArray
    mask: BoolArray | None
    large: BoolArray | None = None


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A file that was left out: of all figures (`what` is "image"), or of the pixel figures ("mask")."""

    path: Path
    what: str
    reason: str


class Judged(Protocol):
    """The part of an inspection's result that is evaluated, such as of `ndp_rt.result.Result`."""

    @property
    def score(self) -> float: ...

    @property
    def is_defect(self) -> bool: ...

    @property
    def anomaly_map(self) -> FloatArray: ...


def score_samples(
    inspect: Callable[[Image], Judged],
    samples: Sequence[Sample],
    advance: Callable[[], None],
    *,
    white_level: int = 65535,
) -> tuple[list[Scored], list[Exclusion]]:
    """Inspect every sample and call `advance` after each; a file that cannot be used becomes an Exclusion."""
    scored: list[Scored] = []
    exclusions: list[Exclusion] = []
    for sample in samples:
        try:
            image = load_image(sample.path, white_level=white_level)
            result = inspect(image.pixels)
        except Exception as error:
            is_short = lacks_memory(error)
            if not is_short and not isinstance(error, ImageFileError | InputError):
                raise
            reason = "there was too little memory to inspect it" if is_short else str(error)
            exclusions.append(Exclusion(path=sample.path, what="image", reason=reason))
            advance()
            continue
        mask: BoolArray | None = None
        try:
            mask = load_mask(sample, *result.anomaly_map.shape, orientation=image.orientation)
        except (DataError, ImageFileError) as error:
            path = sample.mask_paths[0] if sample.mask_paths else sample.path
            exclusions.append(Exclusion(path=path, what="mask", reason=str(error)))
        scored.append(
            Scored(
                sample=sample,
                score=result.score,
                is_defect=result.is_defect,
                anomaly_map=result.anomaly_map,
                mask=mask,
                large=getattr(result, "large", None),  # of a stand-in for an inspector all regions are large enough
            )
        )
        advance()
    return scored, exclusions
