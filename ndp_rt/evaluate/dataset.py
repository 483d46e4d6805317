"""Lists labelled images in MVTec AD's layout, and reads their masks."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ndp_rt.arrays import BoolArray
from ndp_rt.errors import DataError
from ndp_rt.images.listing import LeftOut, Listing, list_folder
from ndp_rt.images.masks import DEFECTS, find_marked, refuse_mask, take_plane
from ndp_rt.images.pages import choose_pages
from ndp_rt.images.read import load_image

GOOD, SUFFIX = "good", "_mask"
LAYOUT = (
    "MVTec AD's layout is DATA/test/good/*.png, DATA/test/KIND/*.png for each kind of defect, and "
    "DATA/ground_truth/KIND/NAME_mask.png for each of their images."
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled image; without masks where it is good, or where `mask_problem` says why a defective one has none."""

    path: Path
    kind: str
    mask_paths: tuple[Path, ...] = ()  # several mark parts of the defect each
    mask_problem: str | None = None

    @property
    def is_good(self) -> bool:
        return self.kind == GOOD


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled images, and what lies among them and is not used."""

    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...]


def list_samples(data: Path, page: int | None = None) -> list[Sample]:
    """List DATA/test with its masks, good images first, then the kinds in order of name, as `list_labelled` does."""
    return list(list_labelled(data, page).samples)


def list_labelled(data: Path, page: int | None = None) -> Labelled:
    """List DATA/test with its masks, good images first, then the kinds in order of name, and name what is not used.

    A kind's images may lie in sub-folders. An image's mask has its name, with `_mask` or without, in the same
    sub-folder or, where no other has that name, anywhere below ground_truth/KIND. A folder of its name holds several
    masks (MVTec LOCO). Where several images or masks share a name, none is taken.

    Args:
        data: the folder.
        page: which one to take of images with several, counted from 1; None: reading such an image is an error.

    Raises:
        DataError: there is no such folder, or it has no good or no defective images.
        InputError: a folder cannot be read.
    """
    if not data.is_dir():
        raise DataError(f"{data}: expected a folder. {LAYOUT}")
    test, truth = data / "test", data / "ground_truth"
    if not test.is_dir():
        found = ", ".join(sorted(entry.name for entry in data.iterdir())[:8]) or "nothing"
        raise DataError(f"{data}: expected a folder 'test', got {found}. {LAYOUT}")
    kinds = [path.name for path in sorted(test.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    left_out = [
        LeftOut(path=path, reason="is hidden" if path.name.startswith(".") else "lies beside the folders of kinds")
        for path in sorted(test.iterdir())
        if path.name not in kinds
    ]
    good = list_folder(test / GOOD) if GOOD in kinds else Listing(files=())
    if not good.files:
        raise DataError(
            f"{test / GOOD}: expected good images, which defective ones are compared with, got none. {LAYOUT}"
        )
    samples = [Sample(path=path, kind=GOOD) for path in good.files]
    left_out += good.left_out
    for kind in kinds:
        if kind != GOOD:
            images = list_folder(test / kind)
            masks = list_folder(truth / kind) if (truth / kind).is_dir() else Listing(files=())
            matched = _match_masks(kind, images.files, test / kind, masks.files, truth / kind)
            used = {mask for sample in matched for mask in sample.mask_paths}
            samples += matched
            left_out += (*images.left_out, *masks.left_out)
            left_out += [
                LeftOut(path=one, reason="a mask that no image uses") for one in masks.files if one not in used
            ]
    if all(sample.is_good for sample in samples):
        raise DataError(f"{test}: expected defective images too, got good ones only. {LAYOUT}")
    paths = choose_pages([sample.path for sample in samples], page)
    samples = [replace(sample, path=path) for sample, path in zip(samples, paths, strict=True)]
    return Labelled(samples=tuple(samples), left_out=tuple(left_out))


def _match_masks(
    kind: str, images: Sequence[Path], images_in: Path, masks: Sequence[Path], masks_in: Path
) -> list[Sample]:
    """Return a kind's images with their masks, or with the reason why they have none."""
    plain, marked, folders = (defaultdict[tuple[Path, str], list[Path]](list) for _ in range(3))
    by_stem = defaultdict[str, list[Path]](list)
    for mask in masks:
        parent, stem = mask.relative_to(masks_in).parent, mask.stem
        (marked if stem.endswith(SUFFIX) else plain)[parent, stem.removesuffix(SUFFIX)].append(mask)
        folders[parent.parent, parent.name].append(mask)
        by_stem[stem.removesuffix(SUFFIX)].append(mask)
    keys = {path: (path.relative_to(images_in).parent, path.stem) for path in images}
    sharing, of_stem = Counter(keys.values()), Counter(path.stem for path in images)
    samples = []
    for path, key in keys.items():
        anywhere = by_stem.get(path.stem, [])
        alone = anywhere if of_stem[path.stem] == 1 and len(anywhere) == 1 else []
        found = marked.get(key) or plain.get(key) or (folders.get(key) if key[1] else None) or alone
        problem = None
        if not found:
            problem = f"mask: expected ground_truth/{kind}/{path.stem}{SUFFIX}.png, got none"
        elif sharing[key] > 1:
            names = " and ".join(sorted(other.name for other in images if keys[other] == key))
            problem = f"mask: expected one image of the name {path.stem}, got {names}: it cannot be told whose it is"
        elif len(found) > 1 and found is not folders.get(key):
            problem = f"mask: expected one for {path.name}, got {' and '.join(one.name for one in found)}"
        samples.append(Sample(path=path, kind=kind, mask_paths=() if problem else tuple(found), mask_problem=problem))
    return samples


def load_mask(sample: Sample, height_px: int, width_px: int, *, orientation: int = 1) -> BoolArray:
    """Return the mask of a sample, bool [h, w], all False for a good one.

    Args:
        sample: the labelled image.
        height_px: of the image as it is read, upright.
        width_px: likewise.
        orientation: of the image's file; its masks have to be turned alike.

    Raises:
        DataError: it is missing, or does not fit.
        ImageFileError: it cannot be read.
    """
    mask = np.zeros((height_px, width_px), np.bool_)
    if sample.mask_problem is not None:
        raise DataError(sample.mask_problem)
    for path in sample.mask_paths:
        mask |= read_mask(path, height_px, width_px, orientation=orientation)
    return mask


def read_mask(path: Path, height_px: int, width_px: int, *, orientation: int = 1) -> BoolArray:
    """Read the mask of an image of height_px x width_px: bool [h, w], True on the defect.

    Raises:
        DataError: its size or orientation is another, it has more values than two or none but 0, 0 is not one of two
            values, it marks more than half of its pixels and not all, or it is transparent somewhere.
        ImageFileError: it cannot be read.
    """
    file = load_image(path, keeps_alpha=True)
    plane = take_plane(file.pixels, str(path), DEFECTS)
    if file.orientation != orientation:
        raise DataError(
            f"{path}: expected a mask that its file turns as the image's file does (EXIF orientation {orientation}), "
            f"got {file.orientation}. Save both upright."
        )
    if plane.shape != (height_px, width_px):
        got = f"{plane.shape[0]} x {plane.shape[1]}"
        raise DataError(f"{path}: expected a mask of its image's {height_px} x {width_px} pixels, got {got}.")
    mask = find_marked(plane, str(path), DEFECTS, "Mark the defect, or move the image to the good ones.")
    if 0.5 < mask.mean() < 1.0:
        got = f"{mask.mean():.0%} of its pixels marked"
        raise refuse_mask(str(path), DEFECTS, got, "If good and defect are swapped, invert it.")
    return mask
