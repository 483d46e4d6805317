"""Places and cuts the tiles of a large image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A part of the image: its first pixel and its size."""

    y_px: int
    x_px: int
    height_px: int
    width_px: int


def place(length_px: int, tile_px: int, overlap_px: int) -> list[int]:
    """Return where tiles start along an axis: evenly, ends flush, neighbours sharing at least overlap_px."""
    if length_px <= tile_px:
        return [0]
    count = -(-(length_px - overlap_px) // (tile_px - overlap_px))
    return [index * (length_px - tile_px) // (count - 1) for index in range(count)]


def list_tiles(image_size_px: tuple[int, int], tile_size_px: tuple[int, int], overlap_px: int) -> Iterator[Tile]:
    """Yield the tiles that cover an image, row by row.

    Args:
        image_size_px: height and width of the image.
        tile_size_px: height and width of a tile; the image's own along an axis that is shorter.
        overlap_px: the least overlap of neighbours.

    Raises:
        InputError: an overlap below 0, or of half a tile or more.
    """
    if not 0 <= overlap_px <= min(tile_size_px) // 2:
        raise InputError(
            f"overlap_px: expected 0 to {min(tile_size_px) // 2}, half a tile of {tile_size_px[0]} x "
            f"{tile_size_px[1]}, got {overlap_px}."
        )
    (height_px, width_px), (tile_height_px, tile_width_px) = image_size_px, tile_size_px
    for y_px in place(height_px, tile_height_px, overlap_px):
        for x_px in place(width_px, tile_width_px, overlap_px):
            yield Tile(
                y_px=y_px,
                x_px=x_px,
                height_px=min(tile_height_px, height_px),
                width_px=min(tile_width_px, width_px),
            )


def cut_tile(image: NDArray[Any], tile: Tile, tile_size_px: tuple[int, int]) -> NDArray[Any]:
    """Return the tile of image [h, w] or [h, w, c]; where the image is shorter than a tile, mirrored at its end."""
    part = image[tile.y_px : tile.y_px + tile.height_px, tile.x_px : tile.x_px + tile.width_px]
    missing = tile_size_px[0] - tile.height_px, tile_size_px[1] - tile.width_px
    if missing == (0, 0):
        return part
    pad = ((0, missing[0]), (0, missing[1]), (0, 0))[: image.ndim]
    return np.pad(part, pad, mode="symmetric")
