"""The one table of test tolerances, keyed (operation, dtype); every entry says why it is as wide as it is.

What the package itself checks when it builds an engine lives in `ndp_rt.engines.tolerances`; this table is for tests
alone. Widening an entry is a commit of its own that explains the new error. A key that is missing is an error.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Allowed |actual - expected| <= absolute + relative * |expected|, and the reason for the width."""

    absolute: float
    relative: float = 0.0
    reason: str


TOLERANCES: dict[tuple[str, str], Tolerance] = {
    # measuring (bench/)
    ("metric", "float64"): Tolerance(absolute=1e-12, reason="sums of at most 1e6 float64 terms, all of one sign"),
    ("ssim", "float32"): Tolerance(
        absolute=1e-3, reason="variances are differences of means of 121 squares, 1e-7 off, over constants of 1e-4"
    ),
    # reference architectures (bench/models/)
    ("distance", "float32"): Tolerance(
        absolute=1e-5, relative=1e-5, reason="||a||^2 - 2 a b + ||b||^2 of up to 64 terms cancels at most a digit here"
    ),
    ("mahalanobis", "float32"): Tolerance(
        absolute=1e-5, relative=1e-5, reason="12 x 12 float32 products, most of them of one sign, then a square root"
    ),
    ("gaussian", "float32"): Tolerance(
        absolute=1e-6, reason="two passes of 33 float32 products of values in [0, 1], weights that sum to 1"
    ),
    ("page", "float32"): Tolerance(
        absolute=1e-4, relative=1e-4, reason="float32 roundings through some 50 layers, then a distance or an exp"
    ),
    ("bootstrap", "float64"): Tolerance(
        absolute=0.01, reason="ends of an interval from 2,000 random resamples: half a percent of a ratio about 1"
    ),
    # preprocessing (ndp_rt/images/preprocess.py), and its CUDA form
    ("preprocess", "float32"): Tolerance(absolute=1e-6, reason="a few float32 roundings of values in [0, 1]"),
    ("preprocess", "float16"): Tolerance(
        absolute=1e-6, relative=2**-11, reason="float32's, then one rounding to 11 significant bits"
    ),
    ("preprocess", "bfloat16"): Tolerance(
        absolute=1e-6, relative=2**-8, reason="float32's, then one rounding to 8 significant bits"
    ),
    # kernels: host and CUDA forms against the NumPy definition
    ("smooth", "float32"): Tolerance(absolute=1e-6, reason="25 float32 additions of values in [0, 1], 2^-24 each"),
    ("smooth_levels", "float32"): Tolerance(
        absolute=2e-6, reason="the roundings of fuse_maps, then those of smooth: values in [0, 1]"
    ),
    ("top_k_mean", "float32"): Tolerance(
        absolute=1e-30, relative=2**-23, reason="an exact sum, one rounding to float32; the definition's own is 1e-13"
    ),
    ("rbfrm", "float32"): Tolerance(
        absolute=1e-4, relative=1e-5, reason="float32 dot products of up to 8192 terms, then a softmax over up to 1024"
    ),
    # kernels: CUDA form against the NumPy definition, on the very values that the kernel got
    ("nearest", "float32"): Tolerance(absolute=1e-6, relative=1e-6, reason="8 squares of exact differences, one sign"),
    ("nearest", "float16"): Tolerance(absolute=1e-3, relative=6e-4, reason="sums in float32, the result rounded once"),
    ("nearest", "bfloat16"): Tolerance(absolute=8e-3, relative=5e-3, reason="the same with a result of 8 bits"),
    ("nearest_sample", "float32"): Tolerance(absolute=1e-12, relative=1.2e-7, reason="one rounded difference"),
    ("nearest_sample", "float16"): Tolerance(absolute=1e-7, relative=4.9e-4, reason="that, rounded to 2^-11"),
    ("nearest_sample", "bfloat16"): Tolerance(absolute=1e-12, relative=3.95e-3, reason="that, rounded to 2^-8"),
    ("nearest_neighbour", "float32"): Tolerance(
        absolute=1e-12, relative=1e-5, reason="a float32 sum of at most 40 squares of one sign, then a root"
    ),
    ("nearest_neighbour", "float16"): Tolerance(absolute=1e-7, relative=5e-4, reason="that, rounded to 2^-11"),
    ("nearest_neighbour", "bfloat16"): Tolerance(absolute=1e-12, relative=4e-3, reason="that, rounded to 2^-8"),
    ("rbfrm_cuda", "float32"): Tolerance(
        absolute=1e-6, relative=1e-6, reason="float32 sums of up to 8192 terms and __expf within 4e-7; measured: 5e-7"
    ),
    ("rbfrm_cuda", "float16"): Tolerance(
        absolute=3e-4, relative=5e-4, reason="the result is rounded to 2^-11, every weight and unit patch too"
    ),
    ("rbfrm_cuda", "bfloat16"): Tolerance(
        absolute=2e-3, relative=4e-3, reason="the result is rounded to 2^-8, every weight and unit patch too"
    ),
    ("fuse_maps", "float32"): Tolerance(
        absolute=1e-6, reason="bilinear weights and three products of values in [0, 1]"
    ),
    # training
    ("loss", "float32"): Tolerance(absolute=1e-6, relative=1e-6, reason="means of at most 1e3 float32 terms"),
    # models, rewrites, engines: maps in [0, 1]
    ("rewrite", "float32"): Tolerance(
        absolute=1e-5, relative=1e-5, reason="the same sums in another order: float32 roundings of the summed taps"
    ),
    # Winograd's transforms multiply by up to 8 and cancel again: measured 1e-5 of values up to 10 (m = 4).
    ("winograd", "float32"): Tolerance(absolute=3e-5, relative=1e-5, reason="float32 roundings, up to 64 times larger"),
    ("winograd_map", "float32"): Tolerance(
        absolute=1e-4, reason="the project's bound for an f32 engine; measured 1.5e-6 with every convolution rewritten"
    ),
    ("ffm_large_logits", "float32"): Tolerance(
        absolute=2e-3, reason="logits up to 1e3 are rounded to 6e-5, summed over 100 taps; exp turns that into a share"
    ),
    ("half_weights", "float32"): Tolerance(
        absolute=5e-3, reason="weights rounded to 11 significant bits move a random network's map by some 1e-3"
    ),
    # a small stage on a GPU (tests/engines/typed_stage.py): sums of 27 and 16 products, results up to about 5
    ("typed_stage", "float32"): Tolerance(absolute=2e-5, reason="some 40 float32 roundings of values up to 5"),
    ("typed_stage", "tf32"): Tolerance(absolute=1e-2, reason="factors rounded to 11 significant bits, twice in a row"),
    ("typed_stage", "float16"): Tolerance(
        absolute=1e-2, reason="weights are rounded in the reference too; features and results to 11 significant bits"
    ),
    ("typed_stage", "bfloat16"): Tolerance(absolute=8e-2, reason="as float16, with 8 significant bits"),
    ("map", "float32"): Tolerance(absolute=1e-4, reason="the issue's bound: an f32 engine's map against PyTorch's"),
    ("map", "float16"): Tolerance(
        absolute=5e-3, reason="the issue's bound; 11 significant bits through some 30 layers"
    ),
    ("map", "bfloat16"): Tolerance(
        absolute=5e-2, reason="8 significant bits through some 30 layers; sigmoids bound it"
    ),
}


def find_tolerance(operation: str, dtype: str) -> Tolerance:
    """Return the entry of (operation, dtype).

    Raises:
        KeyError: there is none; add one with its reason rather than borrow another's.
    """
    if (operation, dtype) not in TOLERANCES:
        known = ", ".join(f"{name} {kind}" for name, kind in sorted(TOLERANCES))
        raise KeyError(
            f"no tolerance for ({operation!r}, {dtype!r}); tests/tolerances.py has: {known}. Add one, with a reason"
        )
    return TOLERANCES[operation, dtype]


def assert_close(actual: ArrayLike, expected: ArrayLike, operation: str, dtype: str) -> None:
    """Fail unless actual is as close to expected as (operation, dtype) asks; print the share of the tolerance used.

    Args:
        actual: real numbers, any shape.
        expected: real numbers of the same shape.
        operation: the table's first key.
        dtype: the table's second key: the type that the arithmetic ran in, not that of the arrays.
    """
    tolerance = find_tolerance(operation, dtype)
    got, wanted = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if got.shape != wanted.shape:
        raise AssertionError(f"{operation}: shape {list(got.shape)}, expected {list(wanted.shape)}")
    if got.size == 0:
        raise AssertionError(f"{operation}: nothing to compare, both arrays are empty")
    if not np.isfinite(wanted).all():
        raise AssertionError(f"{operation}: the expected values are not all finite")
    share = np.abs(got - wanted) / (tolerance.absolute + tolerance.relative * np.abs(wanted))
    worst = float(np.max(np.where(np.isnan(share), np.inf, share)))
    print(f"{operation} {dtype}: {worst:.1%} of the tolerance used")
    if not worst <= 1.0:
        where = np.unravel_index(int(np.argmax(np.where(np.isnan(share), np.inf, share))), share.shape)
        raise AssertionError(
            f"{operation} {dtype}: {got[where]!r} at {[int(i) for i in where]}, expected {wanted[where]!r}: "
            f"{worst:.3g} times the tolerance ({tolerance.absolute:g} + {tolerance.relative:g} |expected|)"
        )
