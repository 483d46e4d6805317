"""The images that are inspected, in every pixel format that C may pass, as files of raw pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.rivals.base import to_image
from ndp_rt.bench.timed.process import ChildProcess
from ndp_rt.bundle.open import Bundle

FORMATS = ("grey8", "grey16", "rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16")
FRAME_PX = 1024


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as it lies in memory: [h, w] or [h, w, c], dense, uint8 or uint16."""

    pixel_format: str
    pixels: NDArray[Any]


def make_network_pictures(bundle: Bundle) -> list[Picture]:
    """Return pictures of the network's size in RGB: the golden images first, then their mirror images."""
    images = [to_image(values) for values in bundle.golden().image]
    mirrored = [np.ascontiguousarray(np.flip(one, axes)) for axes in (0, 1, (0, 1)) for one in images]
    return [Picture(pixel_format="rgb8", pixels=one) for one in images + mirrored]


def make_frame(bundle: Bundle) -> Picture:
    """Return the first golden image, resized as a camera's frame would be: RGB, FRAME_PX a side."""
    image = to_image(bundle.golden().image[0])
    return Picture(pixel_format="rgb8", pixels=cv2.resize(image, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_LINEAR))


def make_picture_of_each_format(bundle: Bundle) -> list[Picture]:
    """Return one picture of each of FORMATS: parts of the golden images, no two of one size."""
    images = [to_image(values) for values in bundle.golden().image]
    found = []
    for index, pixel_format in enumerate(FORMATS):
        image = images[index % len(images)]
        h, w = image.shape[0] - 3 * index, image.shape[1] - 2 * index
        found.append(Picture(pixel_format=pixel_format, pixels=lay_out(image[:h, :w], pixel_format)))
    return found


def make_large_picture(bundle: Bundle) -> Picture:
    """Return a grey picture that takes four tiles: a golden image with its mirror images beside and below it."""
    image = to_image(bundle.golden().image[0])
    h, w = image.shape[:2]
    mirrored = np.pad(image, ((0, h // 2), (0, w // 2), (0, 0)), mode="symmetric")
    return Picture(pixel_format="grey8", pixels=lay_out(mirrored, "grey8"))


def lay_out(image: NDArray[np.uint8], pixel_format: str) -> NDArray[Any]:
    """Return an RGB image [h, w, 3] in a pixel format; alpha is noise that is to be ignored."""
    colours, bits = pixel_format.rstrip("0123456789"), pixel_format.lstrip("abegry")
    pixels: NDArray[Any] = image
    if colours == "grey":
        pixels = image[..., 1]
    elif colours.startswith("bgr"):
        pixels = image[..., ::-1]
    if colours.endswith("a"):
        pixels = np.concatenate([pixels, image[:, ::-1, :1]], axis=2)
    if bits == "16":
        pixels = pixels.astype(np.uint16) * 257
    return np.ascontiguousarray(pixels)


def load_pictures(process: ChildProcess, pictures: Sequence[Picture], folder: Path) -> list[int]:
    """Have a process load pictures, written to new files in a folder, and return the numbers that it calls them by."""
    return [int(process.ask("picture", *describe(one, folder))["picture"]) for one in pictures]


def describe(picture: Picture, folder: Path) -> tuple[Path, str, int, int]:
    """Write a picture's raw pixels to a new file, and return what a host is told of it: path, format, width, height."""
    path = folder / f"{len(list(folder.iterdir())):03d}.raw"
    path.write_bytes(picture.pixels.tobytes())
    return path, picture.pixel_format, picture.pixels.shape[1], picture.pixels.shape[0]
