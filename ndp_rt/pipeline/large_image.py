"""One image larger than the network's input: inspected tile by tile into one map."""

import time
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.counting import Counting
from ndp_rt.decide.decision import is_defective
from ndp_rt.decide.score import score_counted, score_map
from ndp_rt.errors import InputError
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
    size_px: tuple[int, int] = image.shape[:2]
    counting, rules = session.find_counting(size_px, is_tiled=True), session.bundle.manifest.decision
    tiles = list_tiles(size_px, tile_size_px, overlap_px)
    tiles = chain([next(tiles)], tiles)  # which refuses an overlap before the map is written
    anomaly_map = map_out if map_out is not None and map_out.size else np.empty(size_px, np.float32)
    anomaly_map.fill(-np.inf)
    times, score = Times(), -np.inf
    while part := list(islice(tiles, session.executor.batch_sizes[-1])):
        score = max(score, _raise_map(session, image, part, tile_size_px, anomaly_map, times, counting))
    joined = time.perf_counter()
    if counting is not None and rules.score == "max":  # a region may lie in several tiles
        score = score_counted(anomaly_map, rules, counting)
    if score == -np.inf:
        raise InputError(
            f"smallest area: expected a tile of which {session.options.least_area_px} pixels in one piece count, "
            f"because its {rules.k} highest values make the score, got none. Give a smaller area."
        )
    is_defect = is_defective(score, session.threshold)
    found = session.list_defects(anomaly_map, size_px, counting) if is_defect else ()
    large = None  # what is ignored of a map of the image's own size is blanked below
    if is_defect and counting is not None and counting.least_area > 1:
        large = counting.mark_regions(anomaly_map, session.threshold)
    if session.selection is not None:
        session.selection.blank(anomaly_map, session.threshold)
    end = time.perf_counter()
    times.postprocess_ms += (end - joined) * 1e3
    times.total_ms = (end - start) * 1e3
    return Result(
        score=score,
        threshold=session.threshold,
        map_threshold=session.map_threshold,
        is_defect=is_defect,
        anomaly_map=anomaly_map,
        defects=found,
        timings_ms=times.to_mapping(),
        large=large,
    )


def _raise_map(
    session: Session,
    image: Image,
    tiles: Sequence[Tile],
    tile_size_px: tuple[int, int],
    anomaly_map: FloatArray,
    times: Times,
    counting: Counting | None,
) -> float:
    """Inspect tiles of `image` as one batch, raise `anomaly_map` to what they show and return the largest score.

    A score is that of what counts of a tile by itself; minus infinity where nothing does, or the rule is `max`, for
    which the joined map is to be asked.
    """
    executor, batch, rules = session.executor, session.batch, session.bundle.manifest.decision
    size = choose_batch_size(executor.batch_sizes, len(tiles))
    if size < len(tiles):  # the last tiles fill no large batch
        parts = tiles[:size], tiles[size:]
        return max(_raise_map(session, image, part, tile_size_px, anomaly_map, times, counting) for part in parts)
    executor.start(batch, [cut_tile(image, tile, tile_size_px) for tile in tiles], size)
    executor.finish(batch)
    start, score = time.perf_counter(), -np.inf
    for index, tile in enumerate(tiles):
        times.preprocess_ms += batch.times[index].preprocess_ms
        times.add_run(batch.times[index])
        own_score = batch.score(index)  # which refuses a map that is not finite
        smoothed = batch.read_map(index)
        if smoothed.shape != tile_size_px:
            smoothed = cv2.resize(smoothed, tile_size_px[::-1], interpolation=cv2.INTER_LINEAR)
        smoothed = smoothed[: tile.height_px, : tile.width_px]
        place = slice(tile.y_px, tile.y_px + tile.height_px), slice(tile.x_px, tile.x_px + tile.width_px)
        own = None if counting is None else counting.cut(place)
        if rules.score == "output":
            score = max(score, own_score)
        elif own is None:  # mirrored pixels do not count
            score = max(score, score_map(smoothed, rules))
        elif rules.score != "max" and own.holds_any(smoothed.shape):
            score = max(score, score_counted(smoothed, rules, own))
        np.maximum(anomaly_map[place], smoothed, out=anomaly_map[place])
    times.postprocess_ms += (time.perf_counter() - start) * 1e3
    return score
