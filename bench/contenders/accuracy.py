"""What a contender finds on labelled images, measured like `ndp-rt evaluate`."""

from pathlib import Path
from typing import Any, NamedTuple

from ndp_rt.bench.contenders.base import Contender, FloatArray
from ndp_rt.errors import DataError
from ndp_rt.evaluate.dataset import list_samples
from ndp_rt.evaluate.metrics import require_extras
from ndp_rt.evaluate.run import score_samples, summarise


class Judged(NamedTuple):
    """What a contender finds in an image; areas need no decision."""

    anomaly_map: FloatArray
    score: float
    is_defect: bool = False


def measure_accuracy(contender: Contender, data: Path) -> dict[str, Any]:
    """Return image and pixel ROCAUC and AUPRO over all defects of a folder in MVTec AD's layout, and what was left out.

    Raises:
        DataError: the folder has another layout, or none of its images can be used.
        MissingExtraError: scikit-learn or SciPy is not installed.
    """
    require_extras()
    scored, exclusions = score_samples(lambda image: Judged(*contender.judge(image)), list_samples(data), lambda: None)
    left_out = [one.reason for one in exclusions]
    if not scored:
        raise DataError(f"none of the images in {data / 'test'} can be used: {left_out[0]}")
    overall = summarise(scored, (), None).overall
    return {
        "image_rocauc": overall.image_rocauc,
        "pixel_rocauc": overall.pixel_rocauc,
        "aupro": overall.aupro,
        "source": f"measured: {data.resolve().name}",
        "image_count": len(scored),
        "left_out": left_out,
    }
