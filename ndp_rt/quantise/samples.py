"""Provides the images that int8 is calibrated and measured on: good ones, and painted or real defects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.errors import DataError
from ndp_rt.evaluate.dataset import Sample, list_samples, load_mask
from ndp_rt.evaluate.metrics import weigh_regions
from ndp_rt.images.painting.defects import ALWAYS, paint_defect
from ndp_rt.images.painting.kinds import TRAINING, UNSEEN, Kind
from ndp_rt.images.preprocess import preprocess
from ndp_rt.images.read import load_image, read_image
from ndp_rt.images.textures import TextureImages
from ndp_rt.images.variations import vary_a_little
from ndp_rt.program.manifest import InputContract

FEWEST_PAINTED = 32
FIRST_SAMPLES, MOST_SAMPLES = 80, 2560  # good and defective together
MOST_BYTES = 2**28
ATTEMPTS = 8  # of painting a defect that differs from the surface
GRID_PX = 1024  # good pixels of an image that maps are compared on, besides all defective ones

Labelled = tuple[FloatArray, BoolArray]  # an image [3, h, w], and where it is defective [h, w]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptSample:
    """A labelled image, and the pixels of its map that are compared."""

    pixels: NDArray[np.uint8]  # [1 or 3, h, w]; 8 bits, as most cameras give
    places: NDArray[np.int64]  # of the compared pixels, in the flat map; the defective ones first
    weights: NDArray[np.float64]  # of the defective ones: 1 / area of its region

    @property
    def is_defective(self) -> bool:
        return len(self.weights) > 0

    @property
    def image(self) -> FloatArray:
        """The network's input, float32 [3, h, w]."""
        wide = self.pixels if len(self.pixels) == 3 else np.repeat(self.pixels, 3, axis=0)
        return np.asarray(np.divide(wide, np.float32(255), dtype=np.float32))


class Samples:
    """Labelled images, made when they are first asked for: good and defective ones in turn, where they are painted."""

    def __init__(self, make: Callable[[int], Labelled], fewest: int, most: int, what: str) -> None:
        """Take what makes them.

        Args:
            make: returns sample number n of any number below `most`.
            fewest: the least number that has both kinds, and is enough to begin with.
            most: how many there are.
            what: they are, in words.
        """
        self._make = make
        self._kept: list[KeptSample] = []
        self.fewest = fewest
        self.most = most
        self._what = what

    def take(self, count: int) -> Sequence[KeptSample]:
        """Return the first `count`, or all there are."""
        while len(self._kept) < min(count, self.most):
            self._kept.append(keep(*self._make(len(self._kept))))
        return self._kept[:count]

    def describe(self, count: int) -> str:
        """Return in words what the first `count` are."""
        return f"{min(count, self.most)} {self._what}"


def keep(image: FloatArray, mask: BoolArray) -> KeptSample:
    """Return a labelled image as it is kept."""
    pixels = np.rint(image * 255.0).astype(np.uint8)
    if (pixels == pixels[:1]).all():
        pixels = pixels[:1]
    step = max(1, int(np.sqrt(mask.size / GRID_PX)))
    grid = np.zeros_like(mask)
    grid[step // 2 :: step, step // 2 :: step] = True
    defective = np.flatnonzero(mask)
    weights = weigh_regions(mask) if defective.size else np.zeros(0)
    return KeptSample(
        pixels=np.ascontiguousarray(pixels),
        places=np.concatenate([defective, np.flatnonzero(grid & ~mask)]),
        weights=weights,
    )


def read_good(paths: Sequence[Path], contract: InputContract) -> FloatArray:
    """Read and preprocess images: float32 [k, 3, h, w].

    Raises:
        ImageFileError: one cannot be read.
    """
    images = np.empty((len(paths), 3, contract.height_px, contract.width_px), np.float32)
    for path, out in zip(paths, images, strict=True):
        preprocess(read_image(path, white_level=contract.white_level_16bit), contract, out)
    return images


class Painter:
    """Paints defects into good images; what is painted depends on the seed and the number alone."""

    def __init__(self, good: FloatArray, seed: int, kinds: Mapping[str, Kind]) -> None:
        """Take good images, float32 [k, 3, h, w], from which defects are filled too."""
        self._good = good
        self._seed = seed
        self._kinds = kinds
        pixels = [np.rint(_to_hwc(image) * 255.0).astype(np.uint8) for image in good]
        self._textures = TextureImages(pixels, is_altered=True)

    def vary(self, number: int) -> FloatArray:
        """Return good image `number`, counted round, changed a little, [3, h, w]."""
        return vary_a_little(np.random.default_rng([self._seed, number, 0]), self._good[number % len(self._good)])

    def paint(self, number: int, image: FloatArray) -> Labelled:
        """Return an image [3, h, w] with a defect.

        Raises:
            DataError: no defect that was painted into it can be told from it.
        """
        rng = np.random.default_rng([self._seed, number, 1])
        whole = _to_hwc(image)
        for _ in range(ATTEMPTS):
            painted, mask = paint_defect(rng, whole, self._textures, ALWAYS, self._kinds)
            if mask.any():
                return np.ascontiguousarray(painted.transpose(2, 0, 1)), mask
        raise DataError(
            f"calibration: expected photographs of the good surface, got image {number % len(self._good) + 1} of "
            f"{len(self._good)}, which looks the same with {ATTEMPTS} defects painted in. Leave it out."
        )


def paint_for_ranges(good: FloatArray, seed: int) -> FloatArray:
    """Return the good images [k, 3, h, w], and as many with defects of training's kinds, at least FEWEST_PAINTED.

    Raises:
        DataError: no defect that was painted into an image can be told from it.
    """
    painter = Painter(good, seed, TRAINING)
    count = max(len(good), FEWEST_PAINTED)
    return np.concatenate([good, [painter.paint(number, good[number % len(good)])[0] for number in range(count)]])


def paint_samples(good: FloatArray, seed: int) -> Samples:
    """Return as many samples as are asked for: good images, changed a little, and the same with defects.

    The defects are of kinds that training never paints.

    Args:
        good: float32 [k, 3, h, w].
        seed: of the changes and the defects.
    """
    painter = Painter(good, seed, UNSEEN)

    def make(number: int) -> Labelled:
        image = painter.vary(number // 2)
        return painter.paint(number // 2, image) if number % 2 else (image, np.zeros(image.shape[1:], np.bool_))

    most = max(2, min(MOST_SAMPLES, MOST_BYTES // good[0].size))
    return Samples(
        make,
        min(FIRST_SAMPLES, most),
        most,
        f"images, half of them with painted defects, made of {len(good)} good ones",
    )


def read_labelled(data: Path, contract: InputContract, page: int | None = None) -> Samples:
    """Read DATA/test with its masks, in MVTec AD's layout, resized to the network's input.

    Raises:
        DataError: another layout, or a defective image without a mask.
    """
    listed = list_samples(data, page)
    for sample in listed:
        if sample.mask_problem is not None:
            raise DataError(f"{sample.path}: {sample.mask_problem}. Mend that, or remove the image.")
    count = len(listed)
    samples = Samples(lambda number: _read(listed[number], contract), count, count, f"images of {data.name}")
    samples.take(count)  # one that cannot be read is found now
    return samples


def _read(sample: Sample, contract: InputContract) -> Labelled:
    """Return an image and its mask.

    Raises:
        ImageFileError: one of them cannot be read.
        DataError: the mask marks nothing.
    """
    file = load_image(sample.path, white_level=contract.white_level_16bit)
    pixels = file.pixels
    image = np.empty((3, contract.height_px, contract.width_px), np.float32)
    preprocess(pixels, contract, image)
    mask = np.zeros(image.shape[1:], np.bool_)
    if not sample.is_good:
        whole = load_mask(sample, *pixels.shape[:2], orientation=file.orientation)
        mask = resize_mask(whole, contract.height_px, contract.width_px)
    return image, mask


def resize_mask(mask: BoolArray, height_px: int, width_px: int) -> BoolArray:
    """Return a mask of another size, True wherever a True pixel falls, so that no defect is lost."""
    rows, columns = np.nonzero(mask)
    resized = np.zeros((height_px, width_px), np.bool_)
    resized[rows * height_px // mask.shape[0], columns * width_px // mask.shape[1]] = True
    if height_px > mask.shape[0] or width_px > mask.shape[1]:
        rows, columns = (np.arange(size) * of // size for size, of in zip(resized.shape, mask.shape, strict=True))
        resized |= mask[np.ix_(rows, columns)]
    return resized


def _to_hwc(image: FloatArray) -> FloatArray:
    return np.ascontiguousarray(image.transpose(1, 2, 0))
