"""Labels: near their marks, inside, and over nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt.bench.report.marks import MARK_RADIUS, place_labels

BOUNDS = (0.0, 0.0, 600.0, 400.0)
NO_LINES = np.zeros((0, 2))
FloatArray = NDArray[np.float64]


def count_overlaps(boxes: FloatArray, marks: FloatArray) -> int:
    """Count pairs of labels, and of labels and marks, that lie over each other."""
    every = np.concatenate([boxes, np.concatenate([marks - MARK_RADIUS, marks + MARK_RADIUS], axis=1)])
    pairs = [(every[i], every[j]) for i in range(len(boxes)) for j in range(i + 1, len(every))]
    return sum(bool((np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])).all()) for a, b in pairs)


@pytest.mark.parametrize("count", [1, 2, 12, 25])
def test_labels_stand_inside_and_over_nothing(count: int, rng: np.random.Generator) -> None:
    marks = rng.uniform((60, 60), (540, 340), (count, 2))
    boxes, collision_count = place_labels(marks, np.full((count, 2), (18.0, 10.0)), BOUNDS, NO_LINES)
    assert collision_count == count_overlaps(boxes, marks) == 0
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (600, 400)).all()
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], [(18.0, 10.0)] * count)


def test_labels_that_cannot_be_kept_free_are_counted() -> None:
    marks = np.full((25, 2), 20.0) + np.arange(25.0)[:, None]
    assert place_labels(marks, np.full((25, 2), (300.0, 12.0)), (0.0, 0.0, 320.0, 60.0), NO_LINES)[1] > 0


def place_one(x: float, y: float, width: float, lines: FloatArray = NO_LINES) -> FloatArray:
    boxes, _ = place_labels(np.array([[x, y]]), np.array([[width, 10.0]]), BOUNDS, lines)
    return np.asarray(boxes[0])


def test_a_lone_label_is_at_the_right() -> None:
    box = place_one(100.0, 100.0, 40.0)
    assert 100 + MARK_RADIUS < box[0] < 110 and box[1] == 95


def test_a_label_at_the_edge_turns_inwards() -> None:
    assert place_one(590.0, 200.0, 80.0)[2] < 590


def test_a_label_leaves_a_line_free() -> None:
    box = place_one(100.0, 100.0, 40.0, np.stack([np.linspace(0, 600, 400), np.full(400, 103.0)], axis=1))
    assert box[1] > 103 or box[3] < 103
