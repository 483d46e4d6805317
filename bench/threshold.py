"""What a benchmark decides by."""

from ndp_rt.bundle.open import Bundle

NO_THRESHOLD = 0.5  # where a bundle has none; the time hardly depends on it


def choose_threshold(bundle: Bundle, precision: str) -> float:
    """Return what to decide by: the bundle's threshold for a precision, else that for fp32, else NO_THRESHOLD."""
    values = (bundle.threshold(precision).value, bundle.threshold("fp32").value, NO_THRESHOLD)
    return next(value for value in values if value is not None)
