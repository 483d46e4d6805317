"""Labels: near their marks, inside, and over nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt.bench.report.placement import Placement, place_labels

BOUNDS = (0.0, 0.0, 600.0, 400.0)
RADIUS = 4.5
NO_LINES = np.zeros((0, 2))


def count_overlaps(placement: Placement, marks: NDArray[np.float64]) -> int:
    """Count pairs of labels, and of labels and marks, that lie over each other."""
    boxes = [tuple(box) for box in placement.boxes]
    squares = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in marks]
    every = [*boxes, *squares]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i + 1, len(every))]
    return sum(
        min(every[i][2], every[j][2]) > max(every[i][0], every[j][0])
        and min(every[i][3], every[j][3]) > max(every[i][1], every[j][1])
        for i, j in pairs
    )


@pytest.mark.parametrize("count", [1, 2, 12, 25])
def test_labels_stand_inside_and_over_nothing(count: int, rng: np.random.Generator) -> None:
    marks = rng.uniform((60, 60), (540, 340), (count, 2))
    placement = place_labels(marks, np.full((count, 2), (18.0, 10.0)), BOUNDS, RADIUS, NO_LINES)
    assert placement.collision_count == 0
    assert count_overlaps(placement, marks) == 0
    assert (placement.boxes[:, :2] >= 0).all() and (placement.boxes[:, 2:] <= (600, 400)).all()
    np.testing.assert_allclose(placement.boxes[:, 2:] - placement.boxes[:, :2], [(18.0, 10.0)] * count)


def test_labels_that_cannot_be_kept_free_are_counted() -> None:
    marks = np.full((25, 2), 20.0) + np.arange(25.0)[:, None]
    placement = place_labels(marks, np.full((25, 2), (300.0, 12.0)), (0.0, 0.0, 320.0, 60.0), RADIUS, NO_LINES)
    assert placement.collision_count > 0


def test_a_lone_label_is_at_the_right_without_a_leader() -> None:
    placement = place_labels(np.array([[100.0, 100.0]]), np.array([[40.0, 10.0]]), BOUNDS, RADIUS, NO_LINES)
    assert placement.boxes[0, 0] > 100 + RADIUS and placement.boxes[0, 1] == 95
    assert not placement.is_far.any()


def test_a_label_at_the_edge_turns_inwards() -> None:
    placement = place_labels(np.array([[590.0, 200.0]]), np.array([[80.0, 10.0]]), BOUNDS, RADIUS, NO_LINES)
    assert placement.boxes[0, 2] < 590


def test_a_label_leaves_a_line_free() -> None:
    line = np.stack([np.linspace(0, 600, 400), np.full(400, 103.0)], axis=1)
    placement = place_labels(np.array([[100.0, 100.0]]), np.array([[40.0, 10.0]]), BOUNDS, RADIUS, line)
    assert placement.boxes[0, 1] > 103 or placement.boxes[0, 3] < 103
