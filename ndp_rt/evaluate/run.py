"""Measures the accuracy of a bundle on labelled images (`ndp-rt evaluate`)."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import DataError
from ndp_rt.evaluate.dataset import GOOD, Sample, list_labelled
from ndp_rt.evaluate.metrics import (
    Confusion,
    count_confusion,
    measure_aupro,
    measure_pixel_rocauc,
    measure_rocauc,
    require_extras,
)
from ndp_rt.evaluate.record import Record, start_record
from ndp_rt.evaluate.score_samples import Exclusion, Scored, score_samples
from ndp_rt.evaluate.shared import MakeSeats, score_shared
from ndp_rt.images.listing import LeftOut
from ndp_rt.images.masks import take_ignore_mask
from ndp_rt.inspector import Inspector
from ndp_rt.options import make_options

FORMAT = "ndp-rt evaluation"
FORMAT_VERSION = 1
ALL_DEFECTS = "all defects"
UNREACHABLE = math.inf  # for a bundle without a threshold: areas need none, and decisions are left out


@dataclass(frozen=True, kw_only=True)
class KindFigures:
    """Figures of one kind of defect, or of all, against all good images.

    An area is None where a class has no usable image, `flagged_count` where the bundle has no threshold.
    """

    kind: str
    image_count: int
    mask_count: int
    flagged_count: int | None
    image_rocauc: float | None
    pixel_rocauc: float | None
    aupro: float | None

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The figures of all defects, of each kind of defect, and every image's score."""

    threshold: float | None
    scored: Sequence[Scored]
    exclusions: Sequence[Exclusion]
    overall: KindFigures
    kinds: Sequence[KindFigures]
    confusion: Confusion | None
    left_out: Sequence[LeftOut] = ()
    map_threshold: float | None = None  # that defects reach in the map; None: `threshold`

    def scores_of(self, kind: str) -> NDArray[np.float64]:
        """Return the scores of the images of `kind`, in order of path."""
        return np.array([one.score for one in self.scored if one.sample.kind == kind], dtype=np.float64)

    def to_json(self, data: Path) -> dict[str, Any]:
        """Return the figures as JSON values; paths are relative to `data`."""
        return {
            "threshold": self.threshold,
            "overall": self.overall.to_json(),
            "confusion": None if self.confusion is None else self.confusion.to_json(),
            "good_image_count": int(self.scores_of(GOOD).size),
            "kinds": [figures.to_json() for figures in self.kinds],
            "images": [
                {
                    "path": one.sample.path.relative_to(data).as_posix(),
                    "kind": one.sample.kind,
                    "score": one.score,
                    "is_defect": None if self.threshold is None else one.is_defect,
                    "has_mask": one.mask is not None,
                }
                for one in self.scored
            ],
            "excluded": [
                {"path": one.path.relative_to(data).as_posix(), "what": one.what, "reason": one.reason}
                for one in self.exclusions
            ],
            "left_out": [
                {"path": one.path.relative_to(data).as_posix(), "reason": one.reason} for one in self.left_out
            ],
        }


def measure_kind(
    kind: str, good: Sequence[Scored], bad: Sequence[Scored], has_threshold: bool, ignored: BoolArray | None = None
) -> KindFigures:
    """Return the figures of the defective images `bad` against `good`."""
    image_rocauc = pixel_rocauc = aupro = None
    if good and bad:
        scores = np.array([one.score for one in (*good, *bad)])
        image_rocauc = measure_rocauc(scores, np.arange(scores.size) >= len(good))
    pairs = [(one.anomaly_map, one.mask) for one in (*good, *bad) if one.mask is not None]
    marked = sum(one.mask is not None for one in bad)
    counts = True if ignored is None else ~ignored
    if any((mask & counts).any() for _, mask in pairs) and any((~mask & counts).any() for _, mask in pairs):
        maps, masks = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        pixel_rocauc, aupro = measure_pixel_rocauc(maps, masks, ignored), measure_aupro(maps, masks, ignored=ignored)
    return KindFigures(
        kind=kind,
        image_count=len(bad),
        mask_count=marked,
        flagged_count=sum(one.is_defect for one in bad) if has_threshold else None,
        image_rocauc=image_rocauc,
        pixel_rocauc=pixel_rocauc,
        aupro=aupro,
    )


def summarise(
    scored: Sequence[Scored],
    exclusions: Iterable[Exclusion],
    threshold: float | None,
    left_out: Sequence[LeftOut] = (),
    ignored: BoolArray | None = None,
    map_threshold: float | None = None,
) -> Evaluation:
    """Work out every figure from the inspected images; pixels that are `ignored`, [h, w], are in none."""
    good = [one for one in scored if one.sample.is_good]
    bad = [one for one in scored if not one.sample.is_good]
    by_kind = {kind: [one for one in bad if one.sample.kind == kind] for kind in sorted({o.sample.kind for o in bad})}
    flagged = np.array([one.is_defect for one in scored], dtype=bool)
    labels = np.array([not one.sample.is_good for one in scored], dtype=bool)
    has_threshold = threshold is not None
    return Evaluation(
        threshold=threshold,
        scored=tuple(scored),
        exclusions=tuple(exclusions),
        overall=measure_kind(ALL_DEFECTS, good, bad, has_threshold, ignored),
        kinds=tuple(measure_kind(kind, good, part, has_threshold, ignored) for kind, part in by_kind.items()),
        confusion=count_confusion(flagged, labels) if has_threshold else None,
        left_out=tuple(left_out),
        map_threshold=map_threshold,
    )


def evaluate_bundle(
    bundle_path: Path,
    data: Path,
    spec: EngineSpec,
    *,
    fallback: bool = False,
    page: int | None = None,
    start_progress: Callable[[int], AbstractContextManager[Callable[..., None]]],
    command: str,
    ignore_mask: Path | None = None,
    smallest_area_px: int | None = None,
    make_seats: MakeSeats | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Evaluation, Record]:
    """Inspect DATA's test images with a bundle and return the figures and their record.

    Args:
        bundle_path: the folder NAME.ndp.
        data: a folder in MVTec's layout.
        spec: the engines; its precision also chooses the bundle's threshold.
        fallback: whether the CPU may take over.
        page: which one to take of images with several, counted from 1; None: such an image is left out.
        start_progress: given the number of images, returns the context of a function that counts one.
        command: for the record.
        ignore_mask: as for `Inspector.open`; what is ignored counts for no figure.
        smallest_area_px: likewise; pixel figures are of the map as it is.
        make_seats: starts workers that share the images; None: this process inspects.
        tell: shows a line about a worker.

    Raises:
        NdpRtError: DataError for the folder, BundleError or EngineError for the bundle, MissingExtraError.
    """
    require_extras()
    labelled = list_labelled(data, page)
    samples = labelled.samples
    bundle = open_bundle(bundle_path)
    threshold = bundle.threshold(spec.precision)
    if not (fallback and spec.is_on_gpu):  # where the CPU may take over, the GPU's backend may be missing
        spec = spec.resolve(bundle)
    engine: Record = {name: getattr(spec, name) for name in ("device", "backend", "precision", "plan", "threads")}
    ignored = None if ignore_mask is None else take_ignore_mask(ignore_mask)
    counting: Record = {"ignore_mask": ignored, "smallest_area_px": smallest_area_px}
    arguments = {"bundle": str(bundle_path.absolute()), "fallback": fallback, **counting, **engine}
    arguments["threshold"] = UNREACHABLE if threshold.value is None else None
    selection = make_options(batches=None, require_signature=None, **arguments).make_selection()
    with start_progress(len(samples)) as advance:
        score = score_alone if make_seats is None else partial(score_shared, make_seats=make_seats, tell=tell)
        scored, exclusions, engine["hash"] = score(samples, bundle, arguments, advance)
    if not scored:
        raise DataError(f"{data / 'test'}: none of its {len(samples)} images can be used: {exclusions[0].reason}")
    evaluation = summarise(scored, exclusions, threshold.value, labelled.left_out, ignored, threshold.map_value)
    record = start_record(FORMAT, FORMAT_VERSION, command)
    record["bundle"] = {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint}
    record |= {"engine": engine, "data": {"name": data.resolve().name, "image_count": len(samples)}}
    record["threshold"] = threshold.to_json()
    if selection is not None:
        share = None if ignored is None else float(ignored.mean())
        record["counting"] = {"ignored_share": share, "smallest_area_px": smallest_area_px}
    record["figures"] = evaluation.to_json(data)
    return evaluation, record


def score_alone(
    samples: Sequence[Sample], bundle: Bundle, arguments: Mapping[str, Any], advance: Callable[[], None]
) -> tuple[list[Scored], list[Exclusion], str]:
    """Return what `score_shared` does, by an inspector of this process."""
    level = bundle.manifest.input.white_level_16bit
    with Inspector.open(**arguments) as inspector:
        return *score_samples(inspector.inspect, samples, advance, white_level=level), inspector.engine_hash
