"""Lists labelled images in MVTec AD's layout, and reads their masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.arrays import BoolArray
from ndp_rt.errors import DataError
from ndp_rt.images.read import read_image

GOOD = "good"
LAYOUT = (
    "MVTec AD's layout is DATA/test/good/*.png, DATA/test/KIND/*.png for each kind of defect, and "
    "DATA/ground_truth/KIND/NAME_mask.png for each of their images."
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled image; `mask_path` is None for a good image, and where a defective one has no mask."""

    path: Path
    kind: str
    mask_path: Path | None = None

    @property
    def is_good(self) -> bool:
        return self.kind == GOOD


def list_files(folder: Path) -> list[Path]:
    """Return the files of `folder` in order of name; hidden ones are left out, and no folder is no files."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def list_samples(data: Path) -> list[Sample]:
    """List DATA/test with its masks, good images first, then the kinds in order of name.

    Every file counts, whatever its suffix; one that is no image is reported when it is read.

    Raises:
        DataError: there is no such folder, or it has no good or no defective images.
    """
    if not data.is_dir():
        raise DataError(f"{data}: expected a folder. {LAYOUT}")
    test = data / "test"
    if not test.is_dir():
        found = ", ".join(sorted(entry.name for entry in data.iterdir())[:8]) or "nothing"
        raise DataError(f"{data}: expected a folder 'test', got {found}. {LAYOUT}")
    samples = [Sample(path=path, kind=GOOD) for path in list_files(test / GOOD)]
    if not samples:
        raise DataError(
            f"{test / GOOD}: expected good images, which defective ones are compared with, got none. {LAYOUT}"
        )
    kinds = sorted(entry.name for entry in test.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for kind in kinds:
        if kind == GOOD:
            continue
        masks = {path.stem: path for path in reversed(list_files(data / "ground_truth" / kind))}
        for path in list_files(test / kind):
            samples.append(Sample(path=path, kind=kind, mask_path=masks.get(f"{path.stem}_mask", masks.get(path.stem))))
    if all(sample.is_good for sample in samples):
        raise DataError(f"{test}: expected defective images too, got good ones only. {LAYOUT}")
    return samples


def read_mask(path: Path, height_px: int, width_px: int) -> BoolArray:
    """Read the mask of an image of height_px x width_px: bool [h, w], True on the defect.

    Raises:
        DataError: its size is another, it has more values than two or none but 0, or 0 is not one of two values.
        ImageFileError: it cannot be read.
    """
    pixels = read_image(path)
    if pixels.ndim == 3:
        if np.ptp(pixels, axis=2).any():
            raise _refuse_mask(path, "colours", "Convert it to grey.")
        pixels = pixels[:, :, 0]
    if pixels.shape != (height_px, width_px):
        got = f"{pixels.shape[0]} x {pixels.shape[1]}"
        raise DataError(f"{path}: expected a mask of its image's {height_px} x {width_px} pixels, got {got}.")
    values = np.unique(pixels)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        got = f"{len(values)} values from {values[0]} to {values[-1]}"
        raise _refuse_mask(path, got, "Save it without smoothing and without JPEG.")
    if values[-1] == 0:
        raise _refuse_mask(path, "0 alone", "Mark the defect, or move the image to the good ones.")
    return np.asarray(pixels != 0)


def _refuse_mask(path: Path, got: str, hint: str) -> DataError:
    return DataError(f"{path}: expected a mask with 0 for good and one other value for a defect, got {got}. {hint}")
