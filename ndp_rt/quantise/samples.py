"""Provides the images that int8 is calibrated and measured on: good ones, and painted or real defects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.errors import DataError
from ndp_rt.evaluate.dataset import list_samples, read_mask
from ndp_rt.images.painting.defects import DefectSettings, paint_defect
from ndp_rt.images.preprocess import preprocess, read_image
from ndp_rt.images.textures import TextureImages
from ndp_rt.program.manifest import InputContract

FEWEST_PAINTED = 32
ATTEMPTS = 8  # of painting a defect that differs from the surface


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Labelled images, preprocessed."""

    images: FloatArray  # [k, 3, h, w]
    masks: BoolArray  # [k, h, w], nowhere True for a good image
    source: str  # in words

    @property
    def is_defective(self) -> BoolArray:
        """[k]: which images have a defect."""
        return np.asarray(self.masks.any(axis=(1, 2)), np.bool_)


def read_good(paths: Sequence[Path], contract: InputContract) -> FloatArray:
    """Read and preprocess images: float32 [k, 3, h, w].

    Raises:
        ImageFileError: one cannot be read.
    """
    images = np.empty((len(paths), 3, contract.height_px, contract.width_px), np.float32)
    for path, out in zip(paths, images, strict=True):
        preprocess(read_image(path), contract, out)
    return images


def paint_defects(good: FloatArray, seed: int) -> Samples:
    """Return the good images, and as many with artificial defects, at least FEWEST_PAINTED.

    The defects are those of training (eq. 1), filled from the good images themselves.

    Args:
        good: float32 [k, 3, h, w].
        seed: of the defects.

    Raises:
        DataError: no defect that was painted into an image can be told from it.
    """
    rng = np.random.default_rng(seed)
    textures = TextureImages([np.rint(_to_hwc(image) * 255.0).astype(np.uint8) for image in good], is_altered=True)
    settings = DefectSettings(defect_free_share=0.0)
    count = max(len(good), FEWEST_PAINTED)
    images = np.empty((len(good) + count, *good.shape[1:]), np.float32)
    masks = np.zeros((len(images), *good.shape[2:]), np.bool_)
    images[: len(good)] = good
    for index in range(count):
        whole = _to_hwc(good[index % len(good)])
        for _ in range(ATTEMPTS):
            painted, mask = paint_defect(rng, whole, textures, settings)
            if mask.any():
                break
        else:
            raise DataError(
                f"calibration: expected photographs of the good surface, got image {index % len(good) + 1} of "
                f"{len(good)}, which looks the same with {ATTEMPTS} defects painted in. Leave it out."
            )
        images[len(good) + index] = painted.transpose(2, 0, 1)
        masks[len(good) + index] = mask
    return Samples(images=images, masks=masks, source=f"{len(good)} good images, and {count} with painted defects")


def read_labelled(data: Path, contract: InputContract) -> Samples:
    """Read DATA/test with its masks, in MVTec AD's layout, resized to the network's input.

    Raises:
        DataError: another layout, or a defective image without a mask, or with one that marks nothing.
        ImageFileError: an image or a mask cannot be read.
    """
    listed = list_samples(data)
    images = np.empty((len(listed), 3, contract.height_px, contract.width_px), np.float32)
    masks = np.zeros((len(listed), contract.height_px, contract.width_px), np.bool_)
    for sample, image, mask in zip(listed, images, masks, strict=True):
        pixels = read_image(sample.path)
        preprocess(pixels, contract, image)
        if sample.is_good:
            continue
        if sample.mask_path is None:
            raise DataError(
                f"{sample.path}: expected a mask ground_truth/{sample.kind}/{sample.path.stem}_mask.png, got none. Add "
                "it, or remove the image."
            )
        whole = read_mask(sample.mask_path, *pixels.shape[:2])
        mask[:] = resize_mask(whole, contract.height_px, contract.width_px)
    return Samples(images=images, masks=masks, source=f"{len(images)} images of {data.name}")


def resize_mask(mask: BoolArray, height_px: int, width_px: int) -> BoolArray:
    """Return a mask of another size, True wherever a True pixel falls, so that no defect is lost."""
    rows, columns = np.nonzero(mask)
    resized = np.zeros((height_px, width_px), np.bool_)
    resized[rows * height_px // mask.shape[0], columns * width_px // mask.shape[1]] = True
    if height_px > mask.shape[0] or width_px > mask.shape[1]:
        rows, columns = (np.arange(size) * of // size for size, of in zip(resized.shape, mask.shape, strict=True))
        resized |= mask[np.ix_(rows, columns)]
    return resized


def _to_hwc(image: FloatArray) -> FloatArray:
    return np.ascontiguousarray(image.transpose(1, 2, 0))
