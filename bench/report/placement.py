"""Labels beside marks, without overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (6.0, 12.0, 20.0, 30.0, 42.0, 56.0)
TRY_COUNT = 8
GAP = 1.5  # between boxes
LEADER_POINT_COUNT = 10
# A collision outweighs every number of unclear places, an unclear or a crossed place every distance.
COLLISION, UNCLEAR = 1000.0, 20.0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where labels stand: boxes [n, 4] as left, bottom, right, top, and leaders' ends [n, 2] at the boxes.

    `is_far` [n] says which labels need a line to their mark; `collision_count` labels could not be kept free.
    """

    boxes: FloatArray
    ends: FloatArray
    is_far: NDArray[np.bool_]
    collision_count: int
    cost: float


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places that one label may take, k of them, near ones first; `leaders` [k, p, 2] are points on the lines."""

    boxes: FloatArray
    leaders: FloatArray
    costs: FloatArray
    is_far: NDArray[np.bool_]


def place_labels(
    marks: FloatArray, sizes: FloatArray, bounds: Sequence[float], mark_radius: float, lines: FloatArray
) -> Placement:
    """Return a place for each label: near its mark, inside bounds, over no mark, label or other label's line.

    Labels are placed one after the other, each at the cheapest of some fifty places; the best of several orders is
    kept. The same arguments always have the same result.

    Args:
        marks: float64 [n, 2], centres.
        sizes: float64 [n, 2], widths and heights.
        bounds: left, bottom, right, top.
        mark_radius: half the side of a mark.
        lines: float64 [k, 2], points of drawn lines, which labels leave free if they can.
    """
    every = [_list_places(index, marks, size, bounds, mark_radius, lines) for index, size in enumerate(sizes)]
    # Crowded marks first: they have the fewest places.
    best = _place_in_order(np.argsort([-np.min(one.costs) - np.mean(one.costs) for one in every]), every)
    rng = np.random.default_rng(0)
    for _ in range(TRY_COUNT if len(marks) > 1 else 0):
        found = _place_in_order(rng.permutation(len(marks)), every)
        best = min(best, found, key=lambda placement: placement.cost)
    return best


def _place_in_order(order: Any, every: Sequence[Places]) -> Placement:
    count = len(every)
    picks = np.zeros(count, np.int64)
    collision_count, total = 0, 0.0
    boxes, leaders = np.zeros((0, 4)), np.zeros((0, LEADER_POINT_COUNT, 2))
    for index in order:
        places = every[index]
        hits = np.sum(_touches(places.boxes, boxes), axis=1)
        hits += np.sum(np.any(_contains(boxes, places.leaders), axis=-1), axis=0)
        hits += np.sum(np.any(_contains(places.boxes, leaders), axis=-1), axis=1)
        cost = places.costs + COLLISION * hits
        pick = int(np.argmin(cost))
        picks[index] = pick
        total += float(cost[pick])
        collision_count += int(cost[pick] >= COLLISION)
        boxes = np.concatenate([boxes, places.boxes[pick][None]])
        leaders = np.concatenate([leaders, places.leaders[pick][None]])
    chosen = list(zip(every, picks, strict=True))
    return Placement(
        boxes=np.array([places.boxes[pick] for places, pick in chosen]),
        ends=np.array([places.leaders[pick, -1] for places, pick in chosen]),
        is_far=np.array([places.is_far[pick] for places, pick in chosen]),
        collision_count=collision_count,
        cost=total,
    )


def _list_places(
    index: int, marks: FloatArray, size: FloatArray, bounds: Sequence[float], mark_radius: float, lines: FloatArray
) -> Places:
    """Return the places of one label, with what each costs as long as there is no other label."""
    mark, others = marks[index], np.delete(marks, index, axis=0)
    boxes = []
    for distance in DISTANCES:
        for x, y in DIRECTIONS:
            reach = distance * (0.75 if x and y else 1.0) + mark_radius / 2
            centre = mark + np.array([x * (reach + size[0] / 2), y * (reach + size[1] / 2)])
            boxes.append([*(centre - size / 2), *(centre + size / 2)])
    places = np.array(boxes)
    ends = np.clip(mark, places[:, :2], places[:, 2:])
    leaders = mark + np.linspace(0, 1, LEADER_POINT_COUNT)[None, :, None] * (ends - mark)[:, None]
    squares = np.concatenate([others - mark_radius, others + mark_radius], axis=1)
    hits = np.sum(_touches(places, squares), axis=1) + np.sum(np.any(_contains(squares, leaders), axis=-1), axis=0)
    left, bottom, right, top = bounds
    hits += (places[:, 0] < left) | (places[:, 1] < bottom) | (places[:, 2] > right) | (places[:, 3] > top)
    own = np.hypot(*(ends - mark).T)
    nearest = np.full(len(places), np.inf)
    for other in others:
        gap = np.hypot(*(np.clip(other, places[:, :2], places[:, 2:]) - other).T)
        nearest = np.minimum(nearest, gap)
    is_unclear = nearest < own + 3
    is_crossed = np.any(_contains(places, lines[None]), axis=(1, 2))
    costs = COLLISION * hits + UNCLEAR * (is_unclear | is_crossed) + np.arange(len(places)) / len(DIRECTIONS)
    return Places(boxes=places, leaders=leaders, costs=costs, is_far=is_unclear | (own > DISTANCES[1] + 2))


def _touches(boxes: FloatArray, others: FloatArray) -> NDArray[np.bool_]:
    """Return for boxes [k, 4] and others [m, 4] which are closer than GAP: [k, m]."""
    a, b = boxes[:, None], others[None]
    apart = (
        (a[..., 0] >= b[..., 2] + GAP)
        | (b[..., 0] >= a[..., 2] + GAP)
        | (a[..., 1] >= b[..., 3] + GAP)
        | (b[..., 1] >= a[..., 3] + GAP)
    )
    return np.asarray(~apart, dtype=np.bool_)


def _contains(boxes: FloatArray, points: FloatArray) -> NDArray[np.bool_]:
    """Return for boxes [k, 4] and points [m, p, 2] which lie inside: [k, m, p]."""
    a, b = boxes[:, None, None], points[None]
    return np.asarray(np.all((b >= a[..., :2]) & (b <= a[..., 2:]), axis=-1), dtype=np.bool_)
