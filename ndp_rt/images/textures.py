"""Textures that artificial defects are filled with: a folder of images, or the data itself, strongly altered."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.images.listing import list_folder
from ndp_rt.images.opencv import cv2
from ndp_rt.images.painting.noise import clip_image
from ndp_rt.images.read import read_image

FloatArray = npt.NDArray[np.float32]
LONGEST_SIDE_PX = 320  # larger textures are shrunk when read: 400 of them then take about 120 MB


class TextureImages:
    """Random crops of a fixed set of images, turned, mirrored and zoomed; call it for one."""

    def __init__(self, images: Sequence[npt.NDArray[np.uint8]], *, is_altered: bool) -> None:
        self.images = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images]
        self.is_altered = is_altered

    def __call__(self, rng: np.random.Generator, height: int, width: int) -> FloatArray:
        """Return float32 [height, width, 3], 0 to 1."""
        image = self.images[int(rng.integers(len(self.images)))]
        zoom = float(np.exp(rng.uniform(np.log(0.4), np.log(2.0))))
        cut_h, cut_w = max(4, round(height / zoom)), max(4, round(width / zoom))
        cut_h, cut_w = min(cut_h, image.shape[0]), min(cut_w, image.shape[1])
        top, left = int(rng.integers(image.shape[0] - cut_h + 1)), int(rng.integers(image.shape[1] - cut_w + 1))
        crop = image[top : top + cut_h, left : left + cut_w]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        crop = np.rot90(crop, int(rng.integers(4)))
        crop = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=cv2.INTER_LINEAR)
        texture = crop.astype(np.float32) / 255.0
        if self.is_altered:
            texture = self._alter(rng, texture)
        return clip_image(texture * rng.uniform(0.7, 1.3) + rng.normal(0.0, 0.08))

    @staticmethod
    def _alter(rng: np.random.Generator, texture: FloatArray) -> FloatArray:
        """Return the texture with its values changed so much that it no longer looks like the surface."""
        if rng.random() < 0.5:
            texture = 1.0 - texture
        if rng.random() < 0.5:
            level_count = int(rng.integers(2, 6))
            texture = np.floor(texture * level_count) / np.float32(level_count)
        texture = texture[:, :, rng.permutation(3)]
        mean = texture.mean()
        return clip_image((texture - mean) * rng.uniform(1.5, 4.0) + rng.uniform(0.15, 0.85))


def list_textures(folder: Path) -> list[Path]:
    """Return the image files in a folder and below it, sorted.

    Raises:
        DataError: no such folder, or no images in it.
    """
    paths = list(list_folder(folder).files) if folder.is_dir() else []
    if not paths:
        raise DataError(
            f"--textures: expected images in {folder}, got none. Any folder of photographs of other surfaces will do."
        )
    return paths


def load_textures(paths: Sequence[Path]) -> TextureImages:
    """Return the textures of image files, shrunk to LONGEST_SIDE_PX.

    Raises:
        DataError: a file that cannot be read as an image; the message names it.
    """
    images = []
    for path in paths:
        try:
            image = read_image(path)
        except ImageFileError as error:
            raise DataError(f"a texture image cannot be used: {error}") from error
        if image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)
        shrink = LONGEST_SIDE_PX / max(image.shape[:2])
        if shrink < 1.0:
            size = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        images.append(image)
    return TextureImages(images, is_altered=False)
