"""Finds the connected regions of a smoothed anomaly map that reach the threshold, and describes them as defects."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.decide.contours import find_spanning, project_region, trace_region
from ndp_rt.decide.decision import lowest_reaching
from ndp_rt.images.opencv import cv2

STRIP_PX = 2**22  # pixels labelled at once: bounds the labels to 16 MiB whatever the map's size


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One connected region (8 neighbours) whose anomaly reaches the threshold, in pixels of the caller's image.

    Attributes:
        x_px: the box's first column.
        y_px: the box's first row.
        width_px: of the box, which holds the whole region.
        height_px: of the box.
        area_px: how many pixels the region has.
        peak: the smoothed map's largest value inside.
        x_mm: this and the others in mm are None unless `mm_per_pixel` was given.
        contour: int32 [n, 2], x and y of the pixels at which the region's outer boundary turns, in order, all inside of
            the region; straight lines join them, the last one to the first. None unless `contours` was asked for.

    Examples:
        >>> from ndp_rt import Inspector, read_image
        >>> with Inspector.open("tiles.ndp", mm_per_pixel=0.5) as inspector:
        ...     worst = inspector.inspect(read_image("new/piece.png")).defects[0]
        >>> worst.width_mm == 0.5 * worst.width_px
        True
    """

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    area_px: int
    peak: float
    x_mm: float | None = None
    y_mm: float | None = None
    width_mm: float | None = None
    height_mm: float | None = None
    area_mm2: float | None = None
    contour: NDArray[np.int32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Connected regions of a map, one a row: boxes int64 [k, 4] (x0, y0, x1, y1; ends excluded), areas, peaks."""

    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    peaks: FloatArray


def _label(
    strip: FloatArray, limit: np.float32, row: int, pixels: BoolArray | None
) -> tuple[NDArray[np.int64], Regions]:
    """Find the regions of one strip whose first row is `row` of the map, among the pixels that count.

    Returns the numbers of the regions in its first and last row, [2, w], -1 where there is none, and the regions.
    """
    borders = np.full((2, strip.shape[1]), -1, np.int64)
    mask = np.greater_equal(strip, limit).view(np.uint8)
    if pixels is not None:
        mask &= pixels
        strip = np.where(mask, strip, np.float32(-np.inf))  # what lies between runs must not count as a peak
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        none = np.empty(0, np.int64)
        return borders, Regions(boxes=none.reshape(0, 4), areas=none, peaks=none.astype(np.float32))
    within = (slice(top, top + height), slice(left, left + width))
    flat = np.zeros(height * (width + 1) + 1, np.uint8)  # an empty pixel before each row and after the last
    padded = flat[:-1].reshape(height, width + 1)
    padded[:, 1:] = mask[within]
    count, labels = cv2.connectedComponents(padded, connectivity=8)
    if top == 0:
        borders[0, within[1]] = labels[0, 1:] - 1
    if top + height == len(strip):
        borders[1, within[1]] = labels[-1, 1:] - 1

    # Boxes, areas and peaks come from the runs of each row: OpenCV's own statistics cost eight times the labels.
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    region, (y, x) = labels.ravel()[starts] - 1, np.divmod(starts, width + 1)
    boxes = np.full((count - 1, 4), (np.iinfo(np.int64).max,) * 2 + (0, 0))
    np.minimum.at(boxes[:, 0], region, x - 1 + left)
    np.minimum.at(boxes[:, 1], region, y + top + row)
    np.maximum.at(boxes[:, 2], region, x - 1 + left + lengths)
    np.maximum.at(boxes[:, 3], region, y + top + row + 1)
    areas = np.zeros(count - 1, np.int64)
    np.add.at(areas, region, lengths)
    peaks = np.full(count - 1, -np.inf, np.float32)
    # From one run's start to the next one's: what lies between is below the limit.
    np.maximum.at(peaks, region, np.fmax.reduceat(strip[within].ravel(), y * width + x - 1))
    return borders, Regions(boxes=boxes, areas=areas, peaks=peaks)


def _merge(regions: Regions, parents: list[int]) -> Regions:
    """Unite the regions that `parents` (a forest over them) joins; the first of each tree keeps its place."""
    roots = np.array([find_root(parents, i) for i in range(len(parents))], np.int64)
    kept, position = np.unique(roots, return_inverse=True)
    boxes = regions.boxes[kept]
    np.minimum.at(boxes[:, :2], position, regions.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], position, regions.boxes[:, 2:])
    areas = np.zeros(len(kept), np.int64)
    np.add.at(areas, position, regions.areas)
    peaks = regions.peaks[kept]
    np.maximum.at(peaks, position, regions.peaks)
    return Regions(boxes=boxes, areas=areas, peaks=peaks)


def find_root(parents: list[int], index: int) -> int:
    """Return the root of a tree in a forest, after shortening the way there."""
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _join_rows(above: NDArray[np.int64], below: NDArray[np.int64], parents: list[int]) -> None:
    """Unite the regions that touch across two neighbouring rows of region numbers (-1: none)."""
    width = len(above)
    for shift in (-1, 0, 1):  # straight, and both diagonals
        a = above[max(0, shift) : width + min(0, shift)]
        b = below[max(0, -shift) : width + min(0, -shift)]
        touching = (a >= 0) & (b >= 0)
        for first, second in np.unique(np.stack([a[touching], b[touching]]), axis=1).T:
            roots = sorted((find_root(parents, int(first)), find_root(parents, int(second))))
            parents[roots[1]] = roots[0]


def find_regions(
    smoothed: FloatArray,
    threshold: float,
    *,
    pixels: BoolArray | None = None,
    least_area: int = 1,
    strip_px: int = STRIP_PX,
) -> Regions:
    """Find the connected regions of a map that reach the threshold, in strips so that memory stays bounded.

    Args:
        smoothed: float32 [h, w], dense.
        threshold: of the decision; compared exactly as `is_defective` does.
        pixels: bool [h, w], where the map counts; None: everywhere.
        least_area: pixels of a region that counts.
        strip_px: pixels labelled at once.
    """
    height, width = smoothed.shape
    rows = max(1, strip_px // width)
    limit = lowest_reaching(threshold)
    parts: list[Regions] = []
    parents: list[int] = []
    last: NDArray[np.int64] | None = None
    for row in range(0, height, rows):
        counting = None if pixels is None else pixels[row : row + rows]
        borders, regions = _label(smoothed[row : row + rows], limit, row, counting)
        borders[borders >= 0] += len(parents)
        parents.extend(range(len(parents), len(parents) + len(regions.areas)))
        if last is not None:
            _join_rows(last, borders[0], parents)
        last = borders[1]
        parts.append(regions)
    if len(parts) == 1:
        return _keep_large(parts[0], least_area)
    together = Regions(
        boxes=np.concatenate([part.boxes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        peaks=np.concatenate([part.peaks for part in parts]),
    )
    return _keep_large(_merge(together, parents), least_area)


def _keep_large(regions: Regions, least_area: int) -> Regions:
    if least_area == 1:
        return regions
    kept = regions.areas >= least_area
    return Regions(boxes=regions.boxes[kept], areas=regions.areas[kept], peaks=regions.peaks[kept])


def mark_regions(smoothed: FloatArray, limit: np.float32, pixels: BoolArray | None, least_area: int) -> BoolArray:
    """Return where a map [h, w] reaches a limit in regions that count, bool [h, w].

    Args:
        smoothed: float32 [h, w].
        limit: the lowest value that reaches it.
        pixels: bool [h, w], where it counts; None: everywhere.
        least_area: pixels of a region.
    """
    if smoothed.size > STRIP_PX and least_area > 1:
        marked = np.zeros(smoothed.shape, np.bool_)
        for box in find_regions(smoothed, float(limit), pixels=pixels, least_area=least_area).boxes:
            marked[box[1] : box[3], box[0] : box[2]] |= _cut_region(smoothed, limit, box, pixels)
        return marked
    mask = np.greater_equal(smoothed, limit)
    if pixels is not None:
        mask &= pixels
    if least_area == 1:
        return mask
    if np.count_nonzero(mask) < least_area:
        return np.zeros(mask.shape, np.bool_)
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    is_large = np.bincount(labels.ravel()) >= least_area
    is_large[0] = False
    return np.asarray(is_large[labels])


def _cut_region(smoothed: FloatArray, limit: np.float32, box: NDArray[np.int64], pixels: BoolArray | None) -> BoolArray:
    """Return the region that fills a box (x0, y0, x1, y1), bool of the box's size, without parts of others."""
    part = slice(box[1], box[3]), slice(box[0], box[2])
    inside = np.greater_equal(smoothed[part], limit)
    if pixels is not None:
        inside &= pixels[part]
    return find_spanning(inside)


def scale_area(area: int, image_size: tuple[int, int], map_size: tuple[int, int]) -> int:
    """Return a region's area in the image's pixels, 1 at least, from that in the map's; sizes are rows and columns."""
    return max(1, round(area * image_size[1] * image_size[0] / (map_size[0] * map_size[1])))


def list_defects(
    smoothed: FloatArray,
    threshold: float,
    height_px: int,
    width_px: int,
    mm_per_pixel: float | None = None,
    *,
    pixels: BoolArray | None = None,
    least_area: int = 1,
    with_contours: bool = False,
) -> tuple[Defect, ...]:
    """List the regions of a map that reach the threshold, highest peak first, in pixels of the caller's image.

    The regions are found at the map's own scale and then scaled, so there is one exactly when the map's maximum
    reaches the threshold, however small the image.

    Args:
        smoothed: float32 [h, w], dense; covers the whole image.
        threshold: of the decision.
        height_px: rows of the caller's image.
        width_px: columns of the caller's image.
        mm_per_pixel: of the caller's image; fills the *_mm fields.
        pixels: bool [h, w], where the map counts; None: everywhere.
        least_area: pixels of the map of a region that counts.
        with_contours: trace the regions' outer boundaries too.
    """
    regions = find_regions(smoothed, threshold, pixels=pixels, least_area=least_area)
    limit = lowest_reaching(threshold)
    rows, columns = smoothed.shape
    order = np.argsort(-regions.peaks, kind="stable")
    defects = []
    for index in order:
        x0, y0, x1, y1 = (int(v) for v in regions.boxes[index])
        left, top = x0 * width_px // columns, y0 * height_px // rows  # outwards, in whole pixels
        width = -(-x1 * width_px // columns) - left
        height = -(-y1 * height_px // rows) - top
        area = scale_area(int(regions.areas[index]), (height_px, width_px), (rows, columns))
        contour = None
        if with_contours:
            region = _cut_region(smoothed, limit, regions.boxes[index], pixels)
            box = (top, left, height, width)
            contour = trace_region(project_region(region, (y0, x0), smoothed.shape, box, (height_px, width_px)), box)
        defects.append(
            Defect(
                x_px=left,
                y_px=top,
                width_px=width,
                height_px=height,
                area_px=area,
                peak=float(regions.peaks[index]),
                x_mm=_to_mm(left, mm_per_pixel),
                y_mm=_to_mm(top, mm_per_pixel),
                width_mm=_to_mm(width, mm_per_pixel),
                height_mm=_to_mm(height, mm_per_pixel),
                area_mm2=_to_mm(area, None if mm_per_pixel is None else mm_per_pixel**2),
                contour=contour,
            )
        )
    return tuple(defects)


def to_mm(value_px: int, mm: float) -> float:
    """Return pixels in millimetres (or their squares) to nine digits, without the noise of binary fractions."""
    return float(f"{value_px * mm:.9g}")


def _to_mm(value_px: int, mm: float | None) -> float | None:
    return None if mm is None else to_mm(value_px, mm)
