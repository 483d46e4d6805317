"""What a contender finds on labelled images, measured like `ndp-rt evaluate`."""

from pathlib import Path
from typing import Any

from ndp_rt.bench.contenders.base import Contender
from ndp_rt.bench.dataset import list_samples
from ndp_rt.bench.evaluate import Scored, load_mask, summarise
from ndp_rt.bench.metrics import require_extras
from ndp_rt.errors import DataError, ImageFileError, InputError
from ndp_rt.imaging import read_image


def measure_accuracy(contender: Contender, data: Path) -> dict[str, Any]:
    """Return image and pixel ROCAUC and AUPRO over all defects of a folder in MVTec AD's layout, and what was left out.

    Raises:
        DataError: the folder has another layout, or none of its images can be used.
        MissingExtraError: scikit-learn or SciPy is not installed.
    """
    require_extras()
    scored: list[Scored] = []
    left_out: list[str] = []
    for sample in list_samples(data):
        try:
            anomaly_map, score = contender.judge(read_image(sample.path))
        except (ImageFileError, InputError) as error:
            left_out.append(str(error))
            continue
        mask = None
        try:
            mask = load_mask(sample, *anomaly_map.shape)
        except (DataError, ImageFileError) as error:
            left_out.append(str(error))
        scored.append(Scored(sample=sample, score=score, is_defect=False, anomaly_map=anomaly_map, mask=mask))
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
