"""One image larger than the network's input: inspected tile by tile into one map."""

import time
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.decision import is_defective
from ndp_rt.decide.regions import list_defects
from ndp_rt.decide.score import score_map
from ndp_rt.images.checks import Image
from ndp_rt.images.opencv import cv2
from ndp_rt.pipeline.tiles import Tile, cut_tile, list_tiles
from ndp_rt.result import Result
from ndp_rt.runtime.session import Session, choose_batch_size
from ndp_rt.runtime.times import Times


def inspect_tiles(
    session: Session, image: Image, tile_size_px: tuple[int, int], overlap_px: int, map_out: FloatArray | None
) -> Result:
    """Inspect an image as `Inspector.inspect_large` says.

    Args:
        session: what to run the tiles through; the caller holds the inspector's lock.
        image: one that `check_image` passed.
        tile_size_px: rows and columns of a tile.
        overlap_px: what neighbouring tiles share at least.
        map_out: as for `Inspector.inspect`, but the whole map is made in any case: defects come from it.
    """
    start = time.perf_counter()
    size_px = height_px, width_px = image.shape[:2]
    tiles = list_tiles(size_px, tile_size_px, overlap_px)
    tiles = chain([next(tiles)], tiles)  # which refuses an overlap before the map is written
    anomaly_map = map_out if map_out is not None and map_out.size else np.empty(size_px, np.float32)
    anomaly_map.fill(-np.inf)
    times, score = Times(), -np.inf
    while part := list(islice(tiles, session.executor.batch_sizes[-1])):
        score = max(score, _raise_map(session, image, part, tile_size_px, anomaly_map, times))
    joined = time.perf_counter()
    is_defect = is_defective(score, session.threshold)
    scale = session.options.mm_per_pixel
    found = list_defects(anomaly_map, session.threshold, height_px, width_px, scale) if is_defect else ()
    end = time.perf_counter()
    times.postprocess_ms += (end - joined) * 1e3
    times.total_ms = (end - start) * 1e3
    return Result(
        score=score,
        threshold=session.threshold,
        is_defect=is_defect,
        anomaly_map=anomaly_map,
        defects=found,
        timings_ms=times.to_mapping(),
    )


def _raise_map(
    session: Session,
    image: Image,
    tiles: Sequence[Tile],
    tile_size_px: tuple[int, int],
    anomaly_map: FloatArray,
    times: Times,
) -> float:
    """Inspect tiles of `image` as one batch, raise `anomaly_map` to what they show and return the largest score."""
    executor, batch = session.executor, session.batch
    size = choose_batch_size(executor.batch_sizes, len(tiles))
    if size < len(tiles):  # the last tiles fill no large batch
        first = _raise_map(session, image, tiles[:size], tile_size_px, anomaly_map, times)
        return max(first, _raise_map(session, image, tiles[size:], tile_size_px, anomaly_map, times))
    executor.start(batch, [cut_tile(image, tile, tile_size_px) for tile in tiles], size)
    executor.finish(batch)
    start, score = time.perf_counter(), -np.inf
    for index, tile in enumerate(tiles):
        times.preprocess_ms += batch.times[index].preprocess_ms
        times.add_run(batch.times[index])
        batch.score(index)  # which refuses a map that is not finite; mirrored pixels do not count
        smoothed = batch.read_map(index)
        if smoothed.shape != tile_size_px:
            smoothed = cv2.resize(smoothed, tile_size_px[::-1], interpolation=cv2.INTER_LINEAR)
        smoothed = smoothed[: tile.height_px, : tile.width_px]
        score = max(score, score_map(smoothed, session.bundle.manifest.decision))
        part = anomaly_map[tile.y_px : tile.y_px + tile.height_px, tile.x_px : tile.x_px + tile.width_px]
        np.maximum(part, smoothed, out=part)
    times.postprocess_ms += (time.perf_counter() - start) * 1e3
    return score
