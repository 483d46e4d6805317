"""Graphs of one product: what they compute, exactly, on small whole numbers; and what they refuse."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import find_shapes, fix_batch
from ndp_rt.graphs.products import make_convolution, make_product


def test_the_batch_is_open_and_the_other_axes_are_the_weights() -> None:
    product = make_product(np.ones((3, 5), np.float32))
    fix_batch(product, 7)
    shapes = find_shapes(product)
    assert (shapes["x"], shapes["y"]) == ((7, 3), (7, 5))
    convolution = make_convolution(np.ones((5, 3, 3, 3), np.float32), 6, 4)
    fix_batch(convolution, 2)
    shapes = find_shapes(convolution)
    assert (shapes["x"], shapes["y"]) == ((2, 3, 6, 4), (2, 5, 6, 4))


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return whole numbers whose sums of products float32 holds exactly."""
    return rng.integers(-9, 10, shape).astype(np.float32)


def test_the_graph_computes_the_product(rng: np.random.Generator) -> None:
    x, weights = draw(rng, 4, 3), draw(rng, 3, 5)
    model = make_product(weights)
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], x @ weights)


@pytest.mark.parametrize("side", [1, 3])
def test_the_graph_computes_the_convolution(rng: np.random.Generator, side: int) -> None:
    x, weights = draw(rng, 2, 3, 6, 4), draw(rng, 5, 3, side, side)
    model = make_convolution(weights, 6, 4)
    onnx.checker.check_model(model, full_check=True)
    padded = np.pad(x, ((0, 0), (0, 0), *[(side // 2, side // 2)] * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weights)
    assert np.array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], expected)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected float32 of 2 axes, got float64 \[2, 2\]"):
        make_product(np.ones((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="of 4 axes"):
        make_convolution(np.ones((2, 2), np.float32), 4, 4)
