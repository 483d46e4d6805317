"""Finds what a bundle's good images show that looks most like the place of a defect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.regions import Defect
from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.opencv import cv2
from ndp_rt.images.read import decode_image
from ndp_rt.pipeline.overlays import Picture, to_picture

LONGEST_PX = 256  # the longer side of the pictures that are compared
LEAST_SHARE, MOST_SHARE = 0.16, 0.6  # of a patch's side in the picture's
GROWTH = 1.6  # of a defect's box, so that what is around it shows too
MOST_IMAGES = 32  # good images that are looked through


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """A place of an image, and the good patch that is most like it.

    Attributes:
        here: the place in the image.
        good: the patch, of the same size.
        good_index: of the good image that has it.
        x: of its left edge, as a share of the good image's width.
        y: of its upper edge, likewise.
        difference: root of the mean squared difference of their values, 0 to 255.
    """

    here: Picture
    good: Picture
    good_index: int
    x: float
    y: float
    difference: float


def list_good(bundle: Bundle) -> tuple[str, list[Picture]]:
    """Return a bundle's good images, shrunk, and what they are: "reference" or "calibration"; "" where it has none.

    Raises:
        BundleError: the bundle was replaced since it was opened.
    """
    with bundle.held():
        for asset in bundle.manifest.assets.values():
            if asset.picture is not None and asset.picture in bundle.manifest.files:
                try:
                    image = decode_image((bundle.path / asset.picture).read_bytes(), name=asset.picture)
                except (ImageFileError, InputError):
                    continue  # it is for people alone, and nothing has looked at it
                return "reference", [_shrink(to_picture(image))]
        images = bundle.calibration_images()
    if images is None:
        return "", []
    return "calibration", [_shrink(to_picture(one.transpose(1, 2, 0))) for one in images[:MOST_IMAGES]]


def find_nearest(image: Picture, size_px: tuple[int, int], defect: Defect, good: Sequence[Picture]) -> Nearest:
    """Return the patch of good images that is most like the place of a defect.

    Args:
        image: a picture of the image.
        size_px: rows and columns of the image itself, which the defect's box is given in.
        defect: of that image.
        good: at least one picture, all of one size, none longer than LONGEST_PX.
    """
    height, width = good[0].shape[:2]
    here = _resize(image, height, width)
    left, right = _choose_span(defect.x_px / size_px[1], defect.width_px / size_px[1], width)
    top, bottom = _choose_span(defect.y_px / size_px[0], defect.height_px / size_px[0], height)
    patch = here[top:bottom, left:right]
    found = []
    for index, one in enumerate(good):
        distance, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(one, patch, cv2.TM_SQDIFF))
        found.append((distance, index, x, y))
    distance, index, x, y = min(found)
    return Nearest(
        here=patch,
        good=good[index][y : y + patch.shape[0], x : x + patch.shape[1]],
        good_index=index,
        x=x / width,
        y=y / height,
        difference=float(np.sqrt(max(distance, 0.0) / patch.size)),
    )


def _shrink(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    share = min(1.0, LONGEST_PX / max(height, width))
    return _resize(picture, max(1, round(height * share)), max(1, round(width * share)))


def _resize(picture: Picture, height: int, width: int) -> NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _choose_span(start: float, length: float, side: int) -> tuple[int, int]:
    """Return where a patch around a box begins and ends along a side of so many pixels."""
    size = max(1, round(side * min(max(length * GROWTH, LEAST_SHARE), MOST_SHARE)))
    first = round((start + length / 2) * side - size / 2)
    first = min(max(first, 0), side - size)
    return first, first + size
