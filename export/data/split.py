"""Which images a run trains on: finds the good ones, splits off the calibration slice, and takes their fingerprints.

DATA is MVTec AD's layout (`DATA/train/good`) or a folder of good images, either with all sub-folders. The
calibration slice is `DATA/validation/good` where that folder exists (MVTec LOCO's
name), otherwise a share of the good images drawn by seed, in whole groups; it is never trained on. Of images that show
the same one is taken, and a dead camera's frames are left out.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.images.groups import AUTOMATIC, find_independent
from ndp_rt.images.listing import Listing, describe_left_out, list_folder
from ndp_rt.images.page_names import split_page
from ndp_rt.images.pages import choose_pages
from ndp_rt.images.survey import survey_images
from ndp_rt.images.white_level import Values

FEWEST_TRAINING_IMAGES = 2
FEWEST_TRAINING_GROUPS = 2
FEW_HELD_OUT = 8  # a threshold from fewer images says next to nothing; at most a quarter of the images
HOLDOUT_STREAM = 0x401D  # keeps the split's random numbers apart from the batches'
SHOWN_FOLDERS = 5
OTHER_FOLDERS = ("test", "ground_truth", "validation")  # of MVTec AD's layout: never good images to train on


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """The good images of a run; paths in sorted order."""

    root: Path
    layout: str  # "mvtec" or "flat"
    training: tuple[Path, ...]
    calibration: tuple[Path, ...]
    calibration_groups: tuple[str, ...]  # of each of those; images of one group are not independent
    notes: tuple[str, ...]  # what the user has to know of groups and duplicates
    values: tuple[Values, ...] = ()  # of each image to train on
    digests: tuple[str, ...] = ()  # likewise, see `Survey.digests`


def split_data(
    root: Path, *, holdout: float, seed: int, group_by: str = AUTOMATIC, page: int | None = None
) -> DataSplit:
    """Find the good images under root and split them into training and calibration.

    Args:
        root: DATA.
        holdout: share of the good images that goes to calibration, 0 to below 1; unless 0, at least FEW_HELD_OUT
            images or a quarter of them, and as near to that as whole groups allow.
            Not used where DATA has a folder validation/good.
        seed: decides the split, together with the sorted file names.
        group_by: the rule of `ndp_rt.images.groups.find_groups`.
        page: which one to take of files with several, counted from 1; None: such a file is an error.

    Raises:
        DataError: no such folder, no good images in it, too few to train on, or one that cannot be read.
        InputError: a pattern that does not serve.
    """
    folder, layout, listing = _find_good(root)
    validation_folder = root / "validation" / "good"
    held_out = list_folder(validation_folder) if validation_folder.is_dir() else Listing(files=())
    left_out = listing.left_out + tuple(one for one in held_out.left_out if layout == "mvtec")
    files, held_out_files = choose_pages(listing.files, page), choose_pages(held_out.files, page)
    try:
        survey = survey_images([*held_out_files, *files])
        kept = set(survey.kept)
        notes = [describe_left_out(left_out)] if left_out else []
        notes += [*_tell_folders(folder, files, layout), *survey.notes]
        good = [path for path in files if path in kept]
        given = [path for path in held_out_files if path in kept]
        if len(good) < FEWEST_TRAINING_IMAGES:
            raise _refuse(folder, len(good), 0, notes)
        if validation_folder.is_dir():
            grouping = find_independent(given, group_by)
            training, calibration, labels = good, given, list(grouping.labels)
            if grouping.rule != "none" or grouping.copy_count:
                notes.append(f"groups of validation/good: {grouping.describe()}")
        else:
            training, calibration, labels, more = _hold_out(good, holdout, seed, group_by)
            notes += more
    except ImageFileError as error:
        raise DataError(f"a good image cannot be used: {error}") from error
    if len(training) < FEWEST_TRAINING_IMAGES:
        raise _refuse(folder, len(training), len(calibration), notes)
    return DataSplit(
        root=root,
        layout=layout,
        training=tuple(training),
        calibration=tuple(calibration),
        calibration_groups=tuple(labels),
        notes=tuple(notes),
        values=tuple(survey.values[path] for path in training),
        digests=tuple(survey.digests[path] for path in training),
    )


def _find_good(root: Path) -> tuple[Path, str, Listing]:
    """Return the folder of the good images, the layout, and the images."""
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of good images, or one in MVTec AD's layout, got no folder.")
    good_folder = root / "train" / "good"
    layout = "mvtec" if good_folder.is_dir() else "flat"
    if layout == "flat" and (root / "train").is_dir():
        raise DataError(
            f"{root}: expected the good images in train/good, got a folder train without it. Put them there."
        )
    folder = good_folder if layout == "mvtec" else root
    others = {root / name for name in OTHER_FOLDERS} if layout == "flat" else set()
    listing = list_folder(folder, lambda path: "no training images, by its name" if path in others else None)
    if not listing.files:
        beside = f" but {describe_left_out(listing.left_out)}" if listing.left_out else ""
        raise DataError(
            f"{folder}: expected images, got none{beside}. Put photographs of the good surface there, or give the "
            "folder that has them (MVTec AD's layout: DATA/train/good)."
        )
    return folder, layout, listing


def _tell_folders(folder: Path, files: Sequence[Path], layout: str) -> list[str]:
    """Return a sentence on sub-folders of a flat folder that has images of its own too."""
    below = [path for path in files if path.parent != folder]
    if layout == "mvtec" or not below or len(below) == len(files):
        return []
    names = sorted({path.relative_to(folder).parts[0] for path in below})
    more = f" and {len(names) - SHOWN_FOLDERS} more" if len(names) > SHOWN_FOLDERS else ""
    return [f"{len(below)} of {len(files)} good images lie in sub-folders: {', '.join(names[:SHOWN_FOLDERS])}{more}"]


def _refuse(folder: Path, training_count: int, calibration_count: int, notes: Sequence[str]) -> DataError:
    held_out = f"; {calibration_count} are held out for calibration" if calibration_count else ""
    why = "".join(f" {note}." for note in notes)
    return DataError(
        f"{folder}: expected at least {FEWEST_TRAINING_IMAGES} good images to train on, better some dozens, got "
        f"{training_count}{held_out}.{why} Add photographs."
    )


def _hold_out(
    good: Sequence[Path], holdout: float, seed: int, group_by: str
) -> tuple[list[Path], list[Path], list[str], list[str]]:
    """Return the images to train on, those held out, the latter's groups, and notes."""
    if holdout == 0.0:
        return list(good), [], [], []
    fewest = max(1, min(FEW_HELD_OUT, len(good) // 4))
    count = min(len(good), max(fewest, round(holdout * len(good))))
    grouping = find_independent(good, group_by)
    is_grouped = grouping.rule != "none" or grouping.copy_count > 0
    notes = [f"groups of good images: {grouping.describe()}"] if is_grouped else []
    is_whole = is_grouped and grouping.group_count > FEWEST_TRAINING_GROUPS
    if is_grouped and not is_whole:
        notes.append(
            f"expected {FEWEST_TRAINING_GROUPS + 1} groups or more to hold whole ones out, got "
            f"{grouping.group_count}: single images are held out, and the threshold says little of other lots. Add "
            "photographs of other days, or run set-threshold --calibrate with some later."
        )
    singles = [str(index) for index in range(len(good))]
    chosen = _choose(
        grouping.labels if is_whole else singles, count, seed, fewest_left=FEWEST_TRAINING_GROUPS if is_whole else 0
    )
    training = [path for index, path in enumerate(good) if index not in chosen]
    return training, [good[index] for index in chosen], [grouping.labels[index] for index in chosen], notes


def _choose(labels: Sequence[str], count: int, seed: int, *, fewest_left: int) -> list[int]:
    """Return the indices, sorted, of the members of random groups; their number is near `count`.

    Args:
        labels: the group of each image.
        count: of images, as wanted.
        seed: decides which groups.
        fewest_left: how many groups are not chosen at least.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    groups = list(members.values())
    chosen: list[int] = []
    left_count = len(groups)
    for number in np.random.default_rng([seed, HOLDOUT_STREAM]).permutation(len(groups)):
        more = len(chosen) + len(groups[number])
        if left_count > fewest_left and abs(more - count) < abs(len(chosen) - count):
            chosen += groups[number]
            left_count -= 1
    smallest: list[int] = min(groups, key=len)
    return sorted(chosen or smallest)


def fingerprint_files(root: Path, paths: Sequence[Path]) -> tuple[list[dict[str, object]], str]:
    """Return path (relative to root where below it), bytes and SHA-256 of each file, and one SHA-256 over all of that.

    A path that names a page of a file stands for the whole file.

    Raises:
        ImageFileError: a file that cannot be read.
    """
    rows: list[dict[str, object]] = []
    total = hashlib.sha256()
    for path in paths:
        try:
            content = Path(split_page(path)[0]).read_bytes()
        except OSError as error:
            raise ImageFileError(f"{path}: {error.strerror or error}. Make it readable, or take it away.") from error
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        digest = hashlib.sha256(content).hexdigest()
        rows.append({"path": name, "bytes": len(content), "sha256": digest})
        total.update(f"{name}\n{digest}\n".encode("utf-8", "surrogateescape"))
    return rows, total.hexdigest()


def describe_file(path: Path) -> dict[str, object]:
    """Return the name and SHA-256 of a file that a run was given.

    Raises:
        ImageFileError: it cannot be read.
    """
    (row,), _ = fingerprint_files(path.parent, [path])
    return {"name": path.name, "sha256": row["sha256"]}
