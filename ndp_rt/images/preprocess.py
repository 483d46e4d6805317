"""Preprocesses images to the network's input, in the same way for training and every backend.

The rule `area-or-linear-v1`: to float32 in [0, 1] (uint8 / 255; uint16 / white level, clipped to 1); then, in float32,
first every axis that shrinks with INTER_AREA (each target pixel is the mean of what it covers), then every axis that
grows with INTER_LINEAR (half-pixel centres, borders held). Grey is resized as one channel, then replicated. The
aspect ratio is not kept.
"""

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import InputError
from ndp_rt.images.checks import Image, check_channels, check_image, check_resizable
from ndp_rt.images.opencv import cv2
from ndp_rt.program.manifest import InputContract

# Scratch for larger images is not kept between calls: 16 million float32 RGB pixels are 192 MiB.
KEPT_SCRATCH_PX = 2**24


class Preprocessor:
    """Preprocesses images for one contract, keeping its scratch memory between calls; one call at a time."""

    def __init__(self, contract: InputContract, *, channels: str = "rgb") -> None:
        check_channels(channels)
        self.contract = contract
        self.channels = channels
        self._scratch: dict[str, FloatArray] = {}

    def __call__(self, image: Image, out: FloatArray) -> None:
        """Write `image` to out, float32 [3, h, w] of the contract's size, dense or not, 0 to 1; overwritten.

        Raises:
            InputError: an image that `check_image` refuses or that is too large to resize, or another kind of `out`.
        """
        height, width = self.contract.height_px, self.contract.width_px
        image = check_image(image, self.channels)
        check_resizable(*image.shape[:2])
        if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != (3, height, width):
            got = f"{out.dtype} {list(out.shape)}" if isinstance(out, np.ndarray) else type(out).__name__
            raise InputError(f"out: expected float32 [3, {height}, {width}], got {got}.")
        self.convert(image, out)

    def convert(self, image: Image, out: FloatArray) -> None:
        """Write an image that was checked, as a call does, and without looking at it or at `out` again."""
        height, width = self.contract.height_px, self.contract.width_px
        planes = image[..., None] if image.ndim == 2 else image[..., :3]  # [h', w', 1 or 3]
        if self.channels == "bgr":
            planes = planes[..., ::-1]
        used = out[: planes.shape[2]]  # grey fills one plane first
        values = planes if planes.shape[:2] == (height, width) else self._resize(planes)
        white = np.float32(255 if image.dtype.itemsize == 1 else self.contract.white_level_16bit)
        np.divide(values.transpose(2, 0, 1), white, out=used, dtype=np.float32)
        if image.dtype.itemsize > 1 and white < 65535:
            np.minimum(used, np.float32(1), out=used)
        if len(used) == 1:
            out[1:] = out[0]

    def _resize(self, planes: Image) -> FloatArray:
        """Return planes [h', w', c] as float32 [h, w, c] in scratch memory, not yet divided by the white level.

        Resizing is linear, so dividing what is left of it afterwards is the same to rounding, and takes a third off
        the time of a 1024 x 1024 image.
        """
        height, width = self.contract.height_px, self.contract.width_px
        source = self._take_scratch("source", planes.shape)
        np.copyto(source, planes)  # any layout and byte order
        if planes.dtype.itemsize > 1 and self.contract.white_level_16bit < 65535:
            np.minimum(source, np.float32(self.contract.white_level_16bit), out=source)
        low, count = (min(height, planes.shape[0]), min(width, planes.shape[1])), planes.shape[2]
        if low != planes.shape[:2]:
            smaller = self._take_scratch("smaller", (*low, count))
            cv2.resize(source, low[::-1], dst=_drop_single(smaller), interpolation=cv2.INTER_AREA)
            source = smaller
        if low != (height, width):
            larger = self._take_scratch("larger", (height, width, count))
            cv2.resize(source, (width, height), dst=_drop_single(larger), interpolation=cv2.INTER_LINEAR)
            source = larger
        return source

    def _take_scratch(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Return uninitialised float32 memory of `shape`, the same as last time when the shape is."""
        kept = self._scratch.get(name)
        if kept is not None and kept.shape == shape:
            return kept
        self._scratch.pop(name, None)
        made = np.empty(shape, np.float32)
        if shape[0] * shape[1] <= KEPT_SCRATCH_PX:
            self._scratch[name] = made
        return made


def _drop_single(image: FloatArray) -> FloatArray:
    """Return [h, w, 1] as [h, w], the form in which OpenCV writes one channel; others as they are."""
    return image[..., 0] if image.shape[2] == 1 else image


def preprocess(image: Image, contract: InputContract, out: FloatArray, *, channels: str = "rgb") -> None:
    """Write `image` to `out` as `Preprocessor` does, for callers with few images."""
    Preprocessor(contract, channels=channels)(image, out)
