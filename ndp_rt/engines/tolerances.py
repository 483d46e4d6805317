"""Tolerances of engines against their bundle's golden vectors; every entry says why it is as wide as it is.

These are checked when an engine is built and when it is loaded. Tests have their own table (`tests/tolerances.py`).
"""

from dataclasses import dataclass

from ndp_rt.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The largest absolute difference that is accepted, and the reason for it."""

    absolute: float
    reason: str


TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("engine.map", "fp32"): Tolerance(absolute=1e-4, reason="the project's bound for an f32 engine against PyTorch"),
    ("engine.score", "fp32"): Tolerance(absolute=1e-4, reason="a smoothed map's maximum moves no more than the map"),
    # bf16 has 8 significant bits. Measured over 60 asphalt images with a trained width-16 model: the worst pixel of the
    # worst map 0.015, the worst score 0.006. With Gaussian statistics of ten surfaces 0.056 and 0.023: a feature's
    # rounding error counts in the spreads of good images. Twice that is allowed; a broken build is off by far more, and
    # what a precision costs is measured on images (`ndp-rt quantise`, `ndp-rt evaluate`).
    ("engine.map", "bf16"): Tolerance(absolute=0.1, reason="8 significant bits through some 30 layers, worst pixel"),
    ("engine.score", "bf16"): Tolerance(absolute=5e-2, reason="smoothing averages 25 pixels' rounding errors"),
    # fp16 has 11 significant bits. Measured in ONNX Runtime, which rounds between operators and sums in float32, over
    # golden images of MemSeg and Gaussian statistics of eleven surfaces: the worst pixel 0.0094, the worst score
    # 0.0073, nearly all of it from the backbone; NDP-Net on tests/data/bricks 0.0019. Half sums may double that.
    ("engine.map", "fp16"): Tolerance(absolute=2e-2, reason="11 significant bits, image included, worst pixel"),
    ("engine.score", "fp16"): Tolerance(absolute=1.5e-2, reason="top pixels' rounding errors"),
    # tf32 has 11 significant bits in products alone. NDP-Net emulated (factors rounded, on the CPU) over the bricks:
    # the worst pixel 0.0015 of fp16's 0.0019. No GPU has measured it yet.
    ("engine.map", "tf32"): Tolerance(absolute=2e-2, reason="factors of 11 significant bits, sums in float32"),
    ("engine.score", "tf32"): Tolerance(absolute=1.5e-2, reason="top pixels' rounding errors"),
    # int8 has 255 steps. Measured like fp16, graphs calibrated on nine of the images: the worst pixel 0.063, the worst
    # score 0.011; about three times that is allowed, as in bf16.
    ("engine.map", "int8"): Tolerance(absolute=2e-1, reason="255 steps through some 30 convolutions, worst pixel"),
    ("engine.score", "int8"): Tolerance(absolute=4e-2, reason="smoothing averages 25 pixels' rounding errors"),
    # On a CPU, int8 and bf16: measured over 70 images of fabric_02 (edge), all layers in int8: 0.066 and 0.036.
    ("engine.map", "mixed"): Tolerance(absolute=2e-1, reason="int8's error; bf16's is a third of it"),
    ("engine.score", "mixed"): Tolerance(absolute=4e-2, reason="smoothing averages 25 pixels' rounding errors"),
    ("preprocess", "fp32"): Tolerance(absolute=2e-6, reason="OpenCV versions order float32 sums differently"),
}


def find_tolerance(operation: str, precision: str) -> Tolerance:
    """Return the entry of (operation, precision).

    Raises:
        EngineError: there is none; a new precision needs one, measured and with its reason.
    """
    try:
        return TOLERANCES[operation, precision]
    except KeyError:
        known = ", ".join(f"{name} {kind}" for name, kind in sorted(TOLERANCES))
        raise EngineError(
            f"no tolerance for {operation} in {precision}; there are: {known}. "
            f"Choose one of those precisions, or measure one and add it to {__name__}."
        ) from None
