"""Looks good images through before they are used: frames of a dead camera, copies of others, mixed sizes and depths.

A dead frame shows nothing (all pixels alike but for a dead sensor's noise), is saturated (nearly all pixels have one
value), or is torn (rows with a single value between others of a picture). What is rare among the images counts: where
most have a band of one value, it is no tear, and an even surface is compared with the others.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.images.read import ImageFile, load_image
from ndp_rt.images.white_level import Values, measure_values

SATURATED_SHARE = 0.95  # of the pixels that have one value; ten surfaces' good images have up to .10
LEAST_CONTRAST = 0.1  # standard deviation over the others' median; ten surfaces' images have .38 and more
TORN_SHARE = 0.05  # of the rows, more than the others have
EDGE_SHARE = 0.2  # of the pixels beside a band: with so many of its value it is the ground that a part lies on
DIGEST_DIGITS = 16
NAMED = 3  # files that a sentence names


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found among images."""

    kept: tuple[Path, ...]  # without dead frames and copies, in their order
    dead: Mapping[Path, str]  # what each dead frame is, in a word
    copies: Mapping[Path, Path]  # each with the first that shows the same, pixel by pixel
    notes: tuple[str, ...]  # sentences for the user
    values: Mapping[Path, Values]  # of each image
    digests: Mapping[Path, str]  # of each image's pixels: what Bundle.manifest.training_images has


@dataclass(frozen=True, kw_only=True)
class _Facts:
    digest: bytes
    values: Values
    kind: tuple[str, tuple[int, ...]]  # bits, height and width
    contrast: float
    largest_share: float  # of the pixels that have the same value
    band: float  # share of the rows in the longest run of rows with one value, with a picture beside it


def survey_images(paths: Sequence[Path]) -> Survey:
    """Look images through.

    Raises:
        ImageFileError: one cannot be read.
    """
    facts = {path: _describe(load_image(path)) for path in paths}
    dead = _find_dead(facts)
    first: dict[bytes, Path] = {}
    copies = {}
    for path in paths:
        if path not in dead and first.setdefault(facts[path].digest, path) != path:
            copies[path] = first[facts[path].digest]
    kept = tuple(path for path in paths if path not in dead and path not in copies)
    notes = [*_tell_dead(dead), *_tell_copies(copies), *_tell_kinds({path: facts[path].kind for path in kept})]
    return Survey(
        kept=kept,
        dead=dead,
        copies=copies,
        notes=tuple(notes),
        values={path: one.values for path, one in facts.items()},
        digests={path: one.digest.hex()[:DIGEST_DIGITS] for path, one in facts.items()},
    )


def _describe(file: ImageFile) -> _Facts:
    image = file.pixels
    pixels = image if image.ndim == 3 else image[:, :, None]
    bits = 8 * image.dtype.itemsize
    plane = pixels[:, :, pixels.shape[2] // 2]
    digest = hashlib.sha256(repr((image.dtype.str, image.shape)).encode() + np.ascontiguousarray(image).tobytes())
    return _Facts(
        digest=digest.digest(),
        values=measure_values(image, file.significant_bits),
        kind=(str(bits), image.shape[:2]),
        contrast=float(plane.std(dtype=np.float64)) / (2**bits - 1),
        largest_share=int(np.bincount(plane.ravel()).max()) / plane.size,
        band=_find_band(pixels),
    )


def _find_band(pixels: Image) -> float:
    """Return the share of the rows in the longest run of rows with one value, unless a picture runs on into it."""
    height = len(pixels)
    is_even = (pixels == pixels[:, :1]).all(axis=(1, 2))
    starts = is_even & np.append(True, ~is_even[:-1] | (pixels[1:, 0] != pixels[:-1, 0]).any(axis=1))
    longest = 0
    for start in np.flatnonzero(starts):
        end = start + 1
        while end < height and is_even[end] and not starts[end]:
            end += 1
        beside = [row for row in (start - 1, end) if 0 <= row < height]
        shares = [(pixels[row] == pixels[start, 0]).all(axis=1).mean() for row in beside]
        if shares and min(shares) < EDGE_SHARE:
            longest = max(longest, int(end - start))
    return longest / height


def _find_dead(facts: Mapping[Path, _Facts]) -> dict[Path, str]:
    if not facts:
        return {}
    usual = {
        bits: float(np.median([one.contrast for one in facts.values() if one.kind[0] == bits]))
        for bits in {one.kind[0] for one in facts.values()}  # 12 bits in 16 use a sixteenth of the range
    }
    band = float(np.median([one.band for one in facts.values()]))
    dead = {}
    for path, one in facts.items():
        if one.contrast == 0.0 or one.contrast < LEAST_CONTRAST * usual[one.kind[0]]:
            dead[path] = "constant"
        elif one.largest_share >= SATURATED_SHARE:
            dead[path] = "saturated"
        elif one.band > band + TORN_SHARE:
            dead[path] = "torn"
    return dead


def _tell_dead(dead: Mapping[Path, str]) -> list[str]:
    if not dead:
        return []
    counts = ", ".join(f"{count} {what}" for what, count in Counter(dead.values()).items())
    return [f"{len(dead)} frame(s) of a dead camera are left out ({counts}): {name_files(list(dead))}"]


def _tell_copies(copies: Mapping[Path, Path]) -> list[str]:
    if not copies:
        return []
    path, first = next(iter(copies.items()))
    return [f"{len(copies)} image(s) are copies of others and left out, such as {path.name} of {first.name}"]


def _tell_kinds(kinds: Mapping[Path, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return sentences on depths and sizes where there are several."""
    notes = []
    depths = Counter(bits for bits, _ in kinds.values())
    if len(depths) > 1:
        (_, rare) = min((count, bits) for bits, count in depths.items())
        files = [path for path, (bits, _) in kinds.items() if bits == rare]
        counts = " and ".join(f"{count} of {bits} bits" for bits, count in depths.most_common())
        notes.append(f"good images are {counts}, such as {name_files(files)}; each is scaled by its own range")
    sizes = Counter(size for _, size in kinds.values())
    if len(sizes) > 1:
        (h, w), count = sizes.most_common(1)[0]
        notes.append(f"good images are of {len(sizes)} sizes, most often {h} x {w} ({count}); all are resized to one")
    return notes


def name_files(paths: Sequence[Path]) -> str:
    """Return the names of the first files, and how many more there are."""
    names = ", ".join(path.name for path in paths[:NAMED])
    return names if len(paths) <= NAMED else f"{names} and {len(paths) - NAMED} more"
