"""rbfrm: the BLAS form against the definition, and the definition against the equations."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.host import PreparedReference, Rbfrm
from ndp_rt.kernels.reference import join_patches, rbfrm, split_patches
from tests.tolerances import assert_close

SHAPES = [(1, 1, 4, 4), (1, 8, 8, 12), (3, 5, 16, 8), (2, 32, 16, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 4])
def test_joining_undoes_splitting(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> None:
    features = rng.normal(size=shape)
    assert np.array_equal(join_patches(split_patches(features, size), size, *shape[2:]), features)


@pytest.mark.parametrize("size", [2, 4])
def test_the_definition_follows_equations_3_to_5(rng: np.random.Generator, size: int) -> None:
    features, reference = rng.normal(size=(2, 3, 8, 12)), rng.normal(size=(1, 3, 16, 4))
    out = rbfrm(features, reference, size)
    patches = [reference[0, :, y : y + size, x : x + size] for y in range(0, 16, size) for x in range(0, 4, size)]
    for image in range(2):
        for y in range(0, 8, size):
            for x in range(0, 12, size):
                p = features[image, :, y : y + size, x : x + size]
                cosines = [float((p * b).sum() / np.sqrt((p * p).sum() * (b * b).sum())) for b in patches]
                shares = np.exp(cosines) / np.exp(cosines).sum()
                expected = sum(share * b for share, b in zip(shares, patches, strict=True))
                assert_close(out[image, :, y : y + size, x : x + size], expected, "rbfrm", "float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 4])
def test_the_host_form_equals_the_definition(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> None:
    features = rng.normal(size=shape).astype(np.float32)
    reference = rng.normal(size=(1, *shape[1:])).astype(np.float32)
    features[0, :, :size, :size] = 0  # a patch of zeros has cosine 0 with everything
    out = np.full_like(features, np.nan)
    rebuild = Rbfrm(PreparedReference(reference, size), *shape[2:])
    rebuild(features, out)
    assert_close(out, rbfrm(features, reference, size), "rbfrm", "float32")
    first = out.copy()
    rebuild(features, out)
    assert np.array_equal(out, first)


def test_the_reference_may_have_another_size_than_the_features(rng: np.random.Generator) -> None:
    features, reference = (rng.normal(size=s).astype(np.float32) for s in ((1, 4, 8, 8), (1, 4, 16, 4)))
    out = np.empty_like(features)
    Rbfrm(PreparedReference(reference, 2), 8, 8)(features, out)
    assert_close(out, rbfrm(features, reference, 2), "rbfrm", "float32")


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        PreparedReference(np.zeros((1, 3, 6, 8), np.float32), 4)
    rebuild = Rbfrm(PreparedReference(np.ones((1, 3, 8, 8), np.float32), 4), 8, 8)
    with pytest.raises(InputError, match=r"features is float32 \[1, 2, 8, 8\]"):
        rebuild(np.zeros((1, 2, 8, 8), np.float32), np.zeros((1, 2, 8, 8), np.float32))
    with pytest.raises(InputError, match="out is float64"):
        rebuild(np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 3, 8, 8)))  # type: ignore[arg-type]
