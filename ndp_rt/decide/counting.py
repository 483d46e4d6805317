"""What of an image counts: all but the pixels of an ignore mask, in regions of a smallest area."""

import threading
from dataclasses import dataclass, field

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.decide.decision import lowest_reaching
from ndp_rt.decide.regions import find_regions, mark_regions, scale_area
from ndp_rt.errors import InputError
from ndp_rt.images.opencv import cv2

Size = tuple[int, int]  # rows and columns
MAX_KEPT_SIZES = 16
FLOOR = np.float32(-np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Counting:
    """What of a map counts.

    Attributes:
        pixels: bool [h, w] like the map, True where it counts; None: everywhere.
        least_area: of a region, in the map's pixels; 1: every region counts.
    """

    pixels: BoolArray | None
    least_area: int

    def cut(self, part: tuple[slice, slice]) -> "Counting":
        """Return what counts of a part of the map by itself."""
        return Counting(pixels=None if self.pixels is None else self.pixels[part], least_area=self.least_area)

    def holds_any(self, map_size: Size) -> bool:
        """Tell whether a region of a map of this size could count."""
        even = np.broadcast_to(np.float32(0.0), map_size)
        return find_regions(even, 0.0, pixels=self.pixels, least_area=self.least_area).areas.size > 0

    def mark_regions(self, smoothed: FloatArray, threshold: float) -> BoolArray | None:
        """Return where a map [h, w] has regions that count, bool [h, w]; None: wherever it reaches the threshold."""
        if self.pixels is None and self.least_area == 1:
            return None
        return mark_regions(smoothed, lowest_reaching(threshold), self.pixels, self.least_area)


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What counts of images of one camera.

    Attributes:
        ignored: bool [h, w], True on the pixels of an image that do not count; None: all count.
        smallest_area_px: of a region, in an image's pixels.
    """

    ignored: BoolArray | None
    smallest_area_px: int
    _fitted: dict[tuple[Size, Size], Counting] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def fit(self, image_size: Size, map_size: Size) -> Counting:
        """Return what counts of the map of an image.

        A pixel of the map is ignored if at least half of what it covers is.

        Raises:
            InputError: the image's size is not the mask's, or nothing of it can be a defect.
        """
        with self._lock:  # a stream asks from its own thread
            found = self._fitted.get((image_size, map_size))
            if found is None:
                if len(self._fitted) >= MAX_KEPT_SIZES:
                    self._fitted.clear()
                found = self._fitted[image_size, map_size] = self._fit(image_size, map_size)
        return found

    def blank(self, anomaly_map: FloatArray, threshold: float) -> None:
        """Write 0, or less where 0 reaches the threshold, to what is ignored of a map at the image's size."""
        if self.ignored is not None:
            anomaly_map[self.ignored] = min(np.float32(0.0), np.nextafter(lowest_reaching(threshold), FLOOR))

    def _fit(self, image_size: Size, map_size: Size) -> Counting:
        pixels = None
        if self.ignored is not None:
            if self.ignored.shape != image_size:
                raise InputError(
                    f"image: expected {' x '.join(map(str, self.ignored.shape))} pixels, as the ignore mask has, got "
                    f"{' x '.join(map(str, image_size))}. Make a mask for images of this size."
                )
            pixels = shrink_mask(self.ignored, map_size)
            if pixels.all():
                raise InputError(
                    f"ignore_mask: expected marked parts of at least one pixel of the map, which has {map_size[0]} x "
                    f"{map_size[1]}, got smaller ones, which would change nothing. Mark more, or leave it out."
                )
        least_area = find_least_area(self.smallest_area_px, image_size, map_size)
        counting = Counting(pixels=pixels, least_area=least_area)
        if not counting.holds_any(map_size):
            raise InputError(
                f"smallest area: expected a part of the image that counts, in one piece, of {self.smallest_area_px} "
                f"pixels or more, got less of {image_size[0]} x {image_size[1]}, so nothing could be a defect. Ignore "
                "less, or give a smaller area."
            )
        return counting


def describe_counting(selection: Selection | None) -> str:
    """Return in words, for a threshold's note, what did not count; empty where everything did."""
    if selection is None:
        return ""
    words = [] if selection.ignored is None else [f"an ignore mask over {selection.ignored.mean():.1%}"]
    words += [] if selection.smallest_area_px == 1 else [f"a smallest area of {selection.smallest_area_px} px"]
    return f"; calibrated with {' and '.join(words)}: inspect with the same"


def shrink_mask(ignored: BoolArray, size: Size) -> BoolArray:
    """Return where a map of another size counts, bool: where less than half of what a pixel covers is ignored."""
    if ignored.shape == size:
        return ~ignored
    shares = cv2.resize(ignored.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(shares < 0.5)


def find_least_area(smallest_area_px: int, image_size: Size, map_size: Size) -> int:
    """Return the fewest pixels of the map whose area in the image's pixels is `smallest_area_px` or more."""
    least = max(1, (smallest_area_px - 1) * map_size[0] * map_size[1] // (image_size[0] * image_size[1]))
    while scale_area(least, image_size, map_size) < smallest_area_px:
        least += 1
    return least
