"""The images that are inspected, as files of raw pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.rivals.base import to_image
from ndp_rt.bench.timed.process import ChildProcess
from ndp_rt.bundle.open import Bundle
from ndp_rt.images.opencv import cv2

FRAME_PX = 1024
Picture = NDArray[np.uint8]  # [h, w, 3], RGB


def make_network_pictures(bundle: Bundle) -> list[Picture]:
    """Return pictures of the network's size: the golden images first, then their mirror images."""
    images = [to_image(values) for values in bundle.golden().image]
    mirrored = [np.ascontiguousarray(np.flip(one, axes)) for axes in (0, 1, (0, 1)) for one in images]
    return images + mirrored


def make_frame(bundle: Bundle) -> Picture:
    """Return the first golden image, resized as a camera's frame would be: FRAME_PX a side."""
    image = to_image(bundle.golden().image[0])
    return np.asarray(cv2.resize(image, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_LINEAR), np.uint8)


def load_pictures(process: ChildProcess, pictures: Sequence[Picture], folder: Path) -> list[int]:
    """Have a process load pictures, written to new files in a folder, and return the numbers that it calls them by."""
    return [int(process.ask("picture", *describe(one, folder))["picture"]) for one in pictures]


def describe(picture: Picture, folder: Path) -> tuple[Path, int, int]:
    """Write a picture's raw pixels to a new file, and return what a host is told of it: path, width, height."""
    path = folder / f"{len(list(folder.iterdir())):03d}.raw"
    path.write_bytes(picture.tobytes())
    return path, picture.shape[1], picture.shape[0]
