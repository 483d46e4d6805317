"""Regions of a map as pixels of the caller's image: their shape, and its outer boundary."""

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray
from ndp_rt.images.opencv import cv2

Size = tuple[int, int]  # rows and columns
Box = tuple[int, int, int, int]  # first row, first column, rows, columns


def find_spanning(inside: BoolArray) -> BoolArray:
    """Return the one connected region (8 neighbours) that touches all four sides of a box, bool [h, w].

    There is no second: it would have to cross the first.
    """
    _, labels, found, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
    spans = (found[:, cv2.CC_STAT_HEIGHT] == inside.shape[0]) & (found[:, cv2.CC_STAT_WIDTH] == inside.shape[1])
    spans[0] = False  # what is in no region
    return np.asarray(labels == int(np.argmax(spans)))


def project_region(region: BoolArray, first: Size, map_size: Size, box: Box, image_size: Size) -> BoolArray:
    """Return which pixels of a box of the image a region covers, even in part: bool [h, w], the box's size.

    Args:
        region: bool [h, w], a part of the map.
        first: its row and column there.
        map_size: of the whole map.
        box: in the image.
        image_size: of the whole image.
    """
    if map_size == image_size:
        return region
    top, left, height, width = box
    rows = _find_cover(np.arange(top, top + height), image_size[0], map_size[0], first[0], region.shape[0])
    columns = _find_cover(np.arange(left, left + width), image_size[1], map_size[1], first[1], region.shape[1])
    sums = cv2.integral(region.view(np.uint8))
    bands = sums[rows[1]] - sums[rows[0]]
    return np.asarray(np.take(bands, columns[1], axis=1) > np.take(bands, columns[0], axis=1))


def trace_region(region: BoolArray, box: Box) -> NDArray[np.int32]:
    """Return the outer boundary of a region [h, w] in its box: int32 [n, 2], x and y in the image where it turns."""
    outlines, _ = cv2.findContours(
        region.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(box[1], box[0])
    )
    return np.asarray(outlines[0].reshape(-1, 2), np.int32)


def _find_cover(
    places: NDArray[np.int64], image_length: int, map_length: int, first: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return from where to where on the map, counted from `first`, pixels of the image lie; ends are excluded."""
    starts = places * map_length // image_length - first
    ends = -(-(places + 1) * map_length // image_length) - first
    return starts.clip(0, length), ends.clip(0, length)
