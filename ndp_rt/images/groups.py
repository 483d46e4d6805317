"""Groups of good images that belong together: one sheet, one day, one photograph that was cut into pieces.

Images of one group look alike for reasons that the next lot does not share, so a group counts as one observation.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import InputError
from ndp_rt.images.opencv import cv2
from ndp_rt.images.read import read_image

AUTOMATIC = "auto"
RULES = ("folder", "prefix", "content", "none")
FEWEST_GROUPS = 2  # that a rule has to find before it is used automatically
SMALL_PX = 64  # side of the small versions that content is compared on
SMALL_SCALE_PX = 0.8  # sigma: what is finer depends on where the pixels lie
LARGE_SCALE_PX = 5.0  # sigma: what is coarser is light, not content
# The least correlation of the same content. Crops of one photograph with half of their area in common have .86 to .94,
# those of different photographs of seven surfaces up to .52, and .80 where parts of one shape lie in the same place.
ALIKE = 0.85
# Copies' grain, between these scales at this size, correlates by .85 and more over ten surfaces (JPEG of quality 70,
# resized to 0.7, 10 % brighter, noise of 2 grey values), that of other photographs by up to .71.
COPIED, GRAIN_PX, FINE_PX, COARSE_PX = 0.8, 128, 1.0, 3.0
SMALLEST_OVERLAP = 0.2  # of the area
PAIRS = 6_000  # that are compared moved, a second or two
FAINTEST = 1e-3  # norms below are an even surface's rounding errors
MANY_IMAGES = 8  # from here on what all images have in common is taken off first
MEDIAN_VARIANCE = np.pi / 2  # of the median of n normal numbers: this times their variance, by n
SEPARATORS = re.compile(r"[ _.\-]+")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The group of each image, and how it was found."""

    rule: str  # one of RULES, or the pattern
    labels: tuple[str, ...]
    copy_count: int = 0  # images that are copies of earlier ones

    @property
    def group_count(self) -> int:
        return len(set(self.labels))

    def describe(self) -> str:
        """Return in words what was found."""
        how = {"folder": "by folder", "prefix": "by the beginning of their names", "content": "by what they show"}
        copies = f"; {self.copy_count} image(s) are copies of others and count with them" if self.copy_count else ""
        if self.rule == "none":
            return f"each image a group of its own{copies}"
        return f"{self.group_count} group(s), {how.get(self.rule, f'by the pattern {self.rule}')}{copies}"


def find_groups(paths: Sequence[Path], rule: str = AUTOMATIC) -> Grouping:
    """Return the groups of images.

    Args:
        paths: image files.
        rule: `folder`, `prefix` (of the file names), `content` (near-duplicates), `none` (each image is a group), or a
            regular expression: what it, or its first bracket, finds in the path names the group. `auto`: folders
            where there are several; else prefixes where they make several groups of several images; else content.

    Raises:
        InputError: a pattern that is none, or that a path does not match.
        ImageFileError: content is compared, and an image cannot be read.
    """
    if rule == AUTOMATIC:
        for name, labels in (("folder", _label_by_folder(paths)), ("prefix", _label_by_prefix(paths))):
            if labels is not None and len(set(labels)) >= FEWEST_GROUPS:
                return Grouping(rule=name, labels=tuple(labels))
        labels = _label_by_content(paths)
        found = len(set(labels)) < len(labels)
        return Grouping(rule="content" if found else "none", labels=tuple(labels))
    if rule == "folder":
        return Grouping(rule=rule, labels=tuple(_label_by_folder(paths)))
    if rule == "prefix":
        labels = _label_by_prefix(paths)
        return Grouping(rule=rule, labels=tuple(labels or ["all"] * len(paths)))
    if rule == "content":
        return Grouping(rule=rule, labels=tuple(_label_by_content(paths)))
    if rule == "none":
        return Grouping(rule=rule, labels=tuple(str(index) for index in range(len(paths))))
    return Grouping(rule=rule, labels=tuple(_label_by_pattern(paths, rule)))


def find_independent(paths: Sequence[Path], rule: str = AUTOMATIC) -> Grouping:
    """Return the groups as `find_groups` does, those made one that have copies of one photograph.

    A copy shows the same grain in place: saved again, resized, brighter or a little noisier. Whatever the rule says, it
    is no observation of its own.

    Raises:
        InputError, ImageFileError: as `find_groups`.
    """
    grouping = find_groups(paths, rule)
    grain = np.stack([_take_grain(path) for path in paths]) if paths else np.zeros((0, 1), np.float32)
    labels, copy_count = list(grouping.labels), 0
    for index in range(1, len(paths)):
        alike = np.flatnonzero(grain[:index] @ grain[index] >= COPIED)
        copy_count += bool(alike.size)
        for other in alike.tolist():
            former, kept = labels[index], labels[other]
            if former != kept:
                labels = [kept if label == former else label for label in labels]
    return dataclasses.replace(grouping, labels=tuple(labels), copy_count=copy_count)


def _take_grain(path: Path) -> FloatArray:
    """Return an image's grain without light and shapes, float32 [GRAIN_PX^2] of length 1."""
    image = read_image(path)
    grey = np.asarray(image if image.ndim == 2 else image.mean(axis=2), np.float32)
    small = cv2.resize(grey, (GRAIN_PX, GRAIN_PX), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), FINE_PX)
    grain = (small - cv2.GaussianBlur(small, (0, 0), COARSE_PX)).ravel()
    grain -= grain.mean()
    return np.asarray(grain / max(float(np.linalg.norm(grain)), FAINTEST), np.float32)


def _label_by_folder(paths: Sequence[Path]) -> list[str]:
    return [str(path.parent) for path in paths]


def _label_by_prefix(paths: Sequence[Path]) -> list[str] | None:
    """Return the shortest beginnings of the names that make several groups of several images; None: there are none.

    A beginning ends at a separator, and what follows it has a number. Half of the images or more have to be in groups
    of three or more, since names of two parts need not mean anything.
    """
    pieces = [SEPARATORS.split(path.stem) for path in paths]
    for length in range(1, max(len(one) for one in pieces)):
        if any(len(one) <= length or not any(map(str.isdigit, "".join(one[length:]))) for one in pieces):
            return None
        labels = ["_".join(one[:length]) for one in pieces]
        sizes = Counter(labels)
        if len(sizes) >= FEWEST_GROUPS:
            shared = sum(size for size in sizes.values() if size >= 3)
            return labels if 2 * shared >= len(labels) else None
    return None


def _label_by_pattern(paths: Sequence[Path], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--group-by: expected {', '.join(RULES)} or a regular expression, got '{pattern}' ({error})."
        ) from error
    labels = []
    for path in paths:
        match = compiled.search(path.as_posix())
        if match is None:
            raise InputError(
                f"--group-by: expected a pattern that every image's path matches, got '{pattern}', which {path} does "
                f"not. Change the pattern, or give {', '.join(RULES)}."
            )
        labels.append(match.group(1 if compiled.groups else 0) or "")
    return labels


def _label_by_content(paths: Sequence[Path]) -> list[str]:
    """Return labels that images have in common where a chain of near-duplicates or overlaps joins them."""
    small = shrink_images(paths)
    parents = list(range(len(paths)))

    def find(index: int) -> int:
        while parents[index] != index:
            index = parents[index] = parents[parents[index]]
        return index

    for index, others in _find_overlaps(small):
        for other in others:
            parents[find(other)] = find(index)
    return [str(find(index)) for index in range(len(paths))]


def shrink_images(paths: Sequence[Path]) -> FloatArray:
    """Return small grey versions, float32 [n, SMALL_PX, SMALL_PX], without light and without what all have alike.

    Raises:
        ImageFileError: an image cannot be read.
    """
    rows = []
    for path in paths:
        image = read_image(path)
        grey = np.asarray(image if image.ndim == 2 else image.mean(axis=2), np.float32)
        small = cv2.resize(grey, (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), SMALL_SCALE_PX)
        rows.append(small - cv2.GaussianBlur(small, (0, 0), LARGE_SCALE_PX))
    stacked = np.stack(rows)
    if len(paths) >= MANY_IMAGES:
        common = np.median(stacked, axis=0)
        by_chance = MEDIAN_VARIANCE / len(paths) * (stacked - common).var()
        stacked = stacked - common * max(0.0, 1.0 - by_chance / max(common.var(), FAINTEST**2))
    return np.asarray(stacked - stacked.mean(axis=(1, 2), keepdims=True), np.float32)


def _find_overlaps(small: FloatArray) -> Iterator[tuple[int, list[int]]]:
    """Yield for each image the later ones that show the same, or a part of the same, moved.

    Every image is compared with every later one in place, and moved with as many of the next ones as PAIRS allow:
    pieces of one photograph are neighbours in the order of names. The correlation over the overlap is computed for all
    moves at once by the Fourier transform.
    """
    count, side = len(small), 2 * SMALL_PX
    overlap_px = np.maximum(SMALL_PX - np.abs(np.fft.fftfreq(side, 1 / side)), 0)
    is_large = overlap_px[:, None] * overlap_px >= SMALLEST_OVERLAP * SMALL_PX**2
    shape = (side, side)
    images, squares = np.fft.rfft2(small, shape), np.fft.rfft2(small**2, shape)
    window = np.fft.rfft2(np.ones_like(small[0]), shape)
    flat = small.reshape(count, -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), FAINTEST)
    for index in range(count - 1):
        found = set((index + 1 + np.flatnonzero(flat[index + 1 :] @ flat[index] >= ALIKE)).tolist())
        near = slice(index + 1, index + 1 + max(1, PAIRS // count))
        products = np.fft.irfft2(images[index].conj() * images[near], shape)
        own = np.fft.irfft2(squares[index].conj() * window, shape)
        theirs = np.fft.irfft2(window.conj() * squares[near], shape)
        norms = np.sqrt(np.maximum(own, 0.0) * np.maximum(theirs, 0.0))
        is_alike = (products >= ALIKE * norms) & (norms > FAINTEST) & is_large
        found |= set((index + 1 + np.flatnonzero(is_alike.any(axis=(1, 2)))).tolist())
        yield index, sorted(found)
