"""One image larger than the network's input: inspected tile by tile into one map."""

import time
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ndp_rt.images.checks import Image
from ndp_rt.pipeline.tiles import Tile, cut_tile, list_tiles
from ndp_rt.result import Result
from ndp_rt.runtime.session import Lane, choose_batch_size, pack_result
from ndp_rt.runtime.times import Times

FloatArray = NDArray[np.float32]


def inspect_tiles(
    lane: Lane, image: Image, tile_size_px: tuple[int, int], overlap_px: int, map_out: FloatArray | None
) -> Result:
    """Inspect an image as `Inspector.inspect_large` says.

    Args:
        lane: what to run the tiles through; the caller holds the inspector's lock.
        image: one that `check_image` passed.
        tile_size_px: rows and columns of a tile.
        overlap_px: what neighbouring tiles share at least.
        map_out: as for `Inspector.inspect`, but the whole map is made in any case, for the score comes from it.
    """
    start = time.perf_counter()
    height_px, width_px = image.shape[:2]
    tiles = list_tiles((height_px, width_px), tile_size_px, overlap_px)
    tiles = chain([next(tiles)], tiles)  # which refuses an overlap before the map is written
    anomaly_map = map_out if map_out is not None and map_out.size else np.empty((height_px, width_px), np.float32)
    anomaly_map.fill(-np.inf)
    times = Times()
    while part := list(islice(tiles, lane.runner.batch_sizes[-1])):
        _raise_map(lane, image, part, tile_size_px, anomaly_map, times)
    joined = time.perf_counter()
    judgement = lane.judge.decide(anomaly_map)
    end = time.perf_counter()
    times.postprocess_ms += (end - joined) * 1e3
    times.total_ms = (end - start) * 1e3
    return pack_result(lane, judgement, times, None)


def _raise_map(
    lane: Lane,
    image: Image,
    tiles: Sequence[Tile],
    tile_size_px: tuple[int, int],
    anomaly_map: FloatArray,
    times: Times,
) -> None:
    """Inspect tiles of `image` as one batch and raise `anomaly_map` to what they show."""
    runner, slot = lane.runner, lane.slot
    size = choose_batch_size(runner.batch_sizes, len(tiles))
    if size < len(tiles):  # the last tiles fill no large batch
        _raise_map(lane, image, tiles[:size], tile_size_px, anomaly_map, times)
        _raise_map(lane, image, tiles[size:], tile_size_px, anomaly_map, times)
        return
    runner.start(slot, [cut_tile(image, tile, tile_size_px) for tile in tiles], size)
    runner.finish(slot)
    start = time.perf_counter()
    for index, tile in enumerate(tiles):
        times.preprocess_ms += slot.times[index].preprocess_ms
        times.add_run(slot.times[index])
        smoothed = slot.smooth(index)[: tile.height_px, : tile.width_px]
        part = anomaly_map[tile.y_px : tile.y_px + tile.height_px, tile.x_px : tile.x_px + tile.width_px]
        np.maximum(part, smoothed, out=part)
    times.postprocess_ms += (time.perf_counter() - start) * 1e3
