"""Good images as the network sees them, kept in memory as far as they fit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.images.read import read_image
from ndp_rt.images.textures import TextureImages
from ndp_rt.program.manifest import InputContract

FloatArray = npt.NDArray[np.float32]
MEMORY_BYTES = 3 * 2**30  # images beyond this are read again each time


class GoodImages:
    """A sequence of preprocessed images, float32 [h, w, c], 0 to 1, with c = 1 where all files are grey, else 3.

    Every file is read once on creation, so that a damaged one is found before training and not hours into it. Images
    are kept as float16: 2^-11 is finer than 8 bits and half the memory of float32.

    Args:
        paths: the image files, at least one.
        contract: the network's input.
        memory_bytes: how much to keep.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """

    def __init__(self, paths: Sequence[Path], contract: InputContract, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._paths = tuple(paths)
        self._contract = contract
        self._preprocess = Preprocessor(contract)
        self._kept: list[npt.NDArray[np.float16]] = []
        kept_bytes = 0
        self.channel_count = 1
        for index, path in enumerate(self._paths):
            image = self._read(path)
            self.channel_count = max(self.channel_count, image.shape[2])
            kept_bytes += 2 * image.size
            if kept_bytes <= memory_bytes and len(self._kept) == index:
                self._kept.append(image.astype(np.float16))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> FloatArray:
        """Return image number `index`; the array is the caller's own."""
        if index < len(self._kept):
            image = self._kept[index].astype(np.float32)
        else:  # rounded as the kept ones are, so that the weights don't depend on the memory
            image = self._read(self._paths[index]).astype(np.float16).astype(np.float32)
        return np.repeat(image, 3, axis=2) if image.shape[2] < self.channel_count else image

    def _read(self, path: Path) -> FloatArray:
        try:
            image = read_image(path, white_level=self._contract.white_level_16bit)
        except ImageFileError as error:
            raise DataError(f"a good image cannot be used: {error}") from error
        out = np.empty((3, self._contract.height_px, self._contract.width_px), np.float32)
        self._preprocess(image, out)
        planes = out[:1] if image.ndim == 2 or image.shape[2] == 1 else out
        return np.ascontiguousarray(planes.transpose(1, 2, 0))


class ChosenImages:
    """Some of the images of a sequence, by their numbers."""

    def __init__(self, images: GoodImages, numbers: Sequence[int]) -> None:
        self._images, self._numbers = images, tuple(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> FloatArray:
        return self._images[self._numbers[index]]


class MirroredImages:
    """Images by their numbers, then each once more, mirrored or turned; by quarters where the images are square."""

    def __init__(self, images: GoodImages, numbers: Sequence[int]) -> None:
        self._images, self._numbers = images, tuple(numbers)

    def __len__(self) -> int:
        return 2 * len(self._numbers)

    def __getitem__(self, index: int) -> FloatArray:
        copy = index - len(self._numbers)
        if copy < 0:
            return self._images[self._numbers[index]]
        image = self._images[self._numbers[copy]]
        orientations = range(1, 8) if image.shape[0] == image.shape[1] else (2, 4, 6)
        orientation = orientations[copy % len(orientations)]
        turned = np.rot90(image, orientation % 4)
        return np.ascontiguousarray(turned if orientation < 4 else turned[:, ::-1])


def to_network(images: Sequence[FloatArray]) -> FloatArray:
    """Return images [h, w, 1 or 3] of one size as float32 [n, 3, h, w], grey replicated."""
    stacked = np.stack(images).transpose(0, 3, 1, 2)
    if stacked.shape[1] == 1:
        stacked = np.repeat(stacked, 3, axis=1)
    return np.ascontiguousarray(stacked)


def textures_from_data(images: GoodImages, image_count: int = 64) -> TextureImages:
    """Return the data itself as textures, strongly altered; for runs without a texture folder."""
    step = max(1, len(images) // image_count)
    chosen = [np.rint(images[index] * 255.0).astype(np.uint8) for index in range(0, len(images), step)]
    return TextureImages([np.repeat(i, 3, axis=2) if i.shape[2] == 1 else i for i in chosen], is_altered=True)
