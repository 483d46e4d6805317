"""The area opening of a map: what is left of its values where only connected regions (8 neighbours) of some area count.

The opened value of a pixel is the highest level at which it lies in a region that is large enough (Vincent 1993). So a
map opened by an area reaches a threshold exactly where such a region does, whatever the threshold.
"""

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.decide.regions import STRIP_PX, find_regions, find_root, mark_regions
from ndp_rt.images.opencv import cv2

VALUE_BITS = 0x7FFFFFFF  # of a float32, all but the sign


def find_level(smoothed: FloatArray, pixels: BoolArray | None, least_area: int, wanted: int = 1) -> np.float32:
    """Return the highest level at which regions that count have `wanted` pixels together; they have at the lowest.

    It is one of the map's values: the number changes nowhere else. What is in no large region at one level is in none
    at a higher one, so every step looks at a smaller part of the map. A large map is labelled in strips.
    """
    low, high = (_to_key(end) for end in _find_ends(smoothed, pixels))
    while low < high:
        middle = low + (high - low + 1) // 2
        level = _from_key(middle)
        if smoothed.size > STRIP_PX:
            regions = find_regions(smoothed, float(level), pixels=pixels, least_area=least_area)
            is_reached = int(regions.areas.sum()) >= wanted
            if is_reached:
                (left, top), (right, bottom) = regions.boxes[:, :2].min(axis=0), regions.boxes[:, 2:].max(axis=0)
                part = (slice(top, bottom), slice(left, right))
                smoothed, pixels = smoothed[part], None if pixels is None else pixels[part]
        else:
            large = mark_regions(smoothed, level, pixels, least_area)
            is_reached = int(np.count_nonzero(large)) >= wanted
            if is_reached:
                left, top, width, height = cv2.boundingRect(large.view(np.uint8))
                part = (slice(top, top + height), slice(left, left + width))
                smoothed, pixels = smoothed[part], large[part]
        low, high = (middle, high) if is_reached else (low, middle - 1)
    return _from_key(low)


def list_opened(smoothed: FloatArray, pixels: BoolArray | None, least_area: int, count: int) -> FloatArray:
    """Return the `count` largest values of the opened map, falling; fewer where fewer pixels count.

    Pixels are added from the highest on, and regions that meet are united. Those of a region that becomes large enough
    get the value of the pixel that made it so, later ones their own.
    """
    lowest = _find_ends(smoothed, pixels)[0]
    wanted = min(count, int(np.count_nonzero(mark_regions(smoothed, lowest, pixels, least_area))))
    level = find_level(smoothed, pixels, least_area, wanted)
    rows, columns = np.nonzero(mark_regions(smoothed, level, pixels, least_area))
    values = smoothed[rows, columns]
    order = np.argsort(-values, kind="stable")
    index_of: dict[tuple[int, int], int] = {}
    parents, areas = list(range(len(values))), [1] * len(values)
    opened: list[np.float32] = []
    for index in order.tolist():
        row, column = int(rows[index]), int(columns[index])
        index_of[row, column] = index
        fresh = total = 1  # pixels of the united region without a value, and all
        for near in [(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)]:
            root = find_root(parents, index_of.get(near, index))
            if root != index:
                fresh += areas[root] if areas[root] < least_area else 0
                total += areas[root]
                parents[root] = index
        areas[index] = total
        if total >= least_area:
            opened += [values[index]] * fresh
        if len(opened) >= wanted:
            break
    return np.array(opened[:wanted], np.float32)


def _find_ends(smoothed: FloatArray, pixels: BoolArray | None) -> tuple[np.float32, np.float32]:
    """Return the lowest and the highest value that count."""
    where = True if pixels is None else pixels
    low: np.float32 = np.min(smoothed, where=where, initial=np.inf)
    high: np.float32 = np.max(smoothed, where=where, initial=-np.inf)
    return np.float32(low), np.float32(high)


def _to_key(value: np.float32) -> int:
    """Return an integer that orders like the float32."""
    bits = int(value.view(np.int32))
    return bits if bits >= 0 else bits ^ VALUE_BITS


def _from_key(key: int) -> np.float32:
    bits = np.int32(key if key >= 0 else key ^ VALUE_BITS)
    value: np.float32 = bits.view(np.float32)
    return value
