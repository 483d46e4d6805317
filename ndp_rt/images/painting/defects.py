"""Paints artificial defects into good images, with the mask of what changed (eq. 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.images.painting import masks
from ndp_rt.images.painting.kinds import TRAINING, Kind, Surface, TextureSource, measure_contrast
from ndp_rt.images.painting.noise import clip_image, soften

ATTEMPTS = 4  # of drawing a defect that differs from the surface
SMALLEST_LABEL, LARGEST_LABEL = 0.0002, 0.6  # share of the image
VISIBLE = 0.35  # change that is labelled, in units of the surface's contrast
VISIBLE_AT_LEAST = 0.005  # in image units
TOUCHED = 0.004  # a pixel that changed by less did not change


@dataclass(frozen=True, kw_only=True)
class DefectSettings:
    """Settings of artificial defects: shares are probabilities, the others how often a kind comes, against the rest.

    Raises:
        ValueError: a number out of its range, or no kind left.
    """

    defect_free_share: float = 0.25  # images left whole, so that training sees good surfaces as they are
    smallest_opacity: float = 0.3
    texture: float = 0.2
    shade: float = 0.2
    piece: float = 0.15
    blur: float = 0.15
    smear: float = 0.05
    stain: float = 0.1
    scratch: float = 0.2
    hole: float = 0.1
    dent: float = 0.1
    speck: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"DefectSettings.{field.name}: expected 0 to 1, got {value}.")
        if not any(self.weights.values()):
            raise ValueError(f"DefectSettings: expected one of {', '.join(TRAINING)} above 0, got none.")

    @property
    def weights(self) -> dict[str, float]:
        """How often each kind of TRAINING comes, against the others."""
        return {name: getattr(self, name) for name in TRAINING}


ALWAYS = DefectSettings(defect_free_share=0.0)


def paint_defect(
    rng: np.random.Generator,
    image: FloatArray,
    textures: TextureSource,
    settings: DefectSettings,
    kinds: Mapping[str, Kind] = TRAINING,
) -> tuple[FloatArray, BoolArray]:
    """Return the image with an artificial defect, and the mask of the pixels that changed (eq. 1).

    Args:
        rng: the only source of chance.
        image: float32 [h, w, c], 0 to 1, c = 1 or 3; not written.
        textures: gives float32 [h, w, 3] of a texture for (rng, h, w).
        settings: shares and kinds.
        kinds: TRAINING, or UNSEEN, each of which comes as often.

    Returns:
        float32 [h, w, c] and bool [h, w]; for a share of the calls, and where no defect can be told from the
        surface, the image itself and an empty mask.
    """
    height, width = image.shape[:2]
    empty = np.zeros((height, width), np.bool_)
    if rng.random() < settings.defect_free_share:
        return image, empty
    surface = Surface(image, textures, measure_contrast(image))
    names = list(kinds)
    weights = np.array([settings.weights.get(name, 1.0) for name in names])
    for _ in range(ATTEMPTS):  # a fill may look like the surface; then another is drawn
        fill = kinds[names[int(rng.choice(len(names), p=weights / weights.sum()))]](rng, surface)
        opacity = rng.uniform(settings.smallest_opacity, 1.0) if rng.random() < 0.6 else 1.0
        painted = _blend(image, fill.image, fill.alpha, opacity)
        label = _find_label(image, painted, surface.contrast)
        if SMALLEST_LABEL * label.size <= label.sum() <= LARGEST_LABEL * label.size:
            return painted, label
    return image, empty


def paint_spots(
    rng: np.random.Generator, image: FloatArray, textures: TextureSource, settings: DefectSettings
) -> FloatArray:
    """Return the image [h, w, c] with harmless blots: what a surface shows when it is good all the same."""
    height, width = image.shape[:2]
    names = [name for name in ("texture", "shade", "stain") if settings.weights[name]] or ["shade"]
    for _ in range(1 + int(rng.integers(5))):
        surface = Surface(image, textures, measure_contrast(image))
        fill = TRAINING[names[int(rng.integers(len(names)))]](rng, surface)
        alpha = masks.area(rng, height, width, masks.SMALLEST_AREA_PX / (height * width), 0.1)
        soft = soften(rng, alpha, 0.5, 8.0) if rng.random() < 0.6 else alpha
        image = _blend(image, fill.image, soft, rng.uniform(0.3, 1.0))
    return image


def _blend(
    image: FloatArray, fill: npt.NDArray[np.floating], alpha: npt.NDArray[np.generic], opacity: float
) -> FloatArray:
    strength = (np.asarray(alpha, np.float32) * np.float32(opacity))[:, :, None]
    return clip_image(image + (fill - image) * strength)


def _find_label(image: FloatArray, painted: FloatArray, contrast: float) -> BoolArray:
    """Return the pixels whose neighbourhood changed enough to be seen against the surface's contrast."""
    change = np.abs(painted - image).max(axis=2)
    nearby = np.maximum(0.8 * cv2.blur(change, (3, 3)), cv2.GaussianBlur(change, (0, 0), 2.0))
    touched = cv2.dilate((change > TOUCHED).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    label: BoolArray = touched & (nearby > max(VISIBLE * contrast, VISIBLE_AT_LEAST))
    return label
