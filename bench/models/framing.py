"""From a caller's image to the square that a network sees, and from the network's map back to the caller's size."""

from torch import Tensor
from torch.nn import functional


def fit_image(image: Tensor, side_px: int, crop_px: int | None = None) -> Tensor:
    """Resize images [n, 3, h, w] to a square, bilinear, and cut out its centre [n, 3, crop_px, crop_px]; None: all."""
    square = functional.interpolate(image, size=(side_px, side_px), mode="bilinear", align_corners=False)
    if crop_px is None:
        return square
    start = (side_px - crop_px) // 2
    return square[:, :, start : start + crop_px, start : start + crop_px]


def fit_map(scores: Tensor, image: Tensor, border_px: int = 0) -> Tensor:
    """Resize maps [n, 1, h', w'] to their images' h and w, bilinear, once the border that a crop cut off is back.

    Args:
        scores: of the network's square.
        image: whose height and width are wanted.
        border_px: the width of the border, in the map's pixels; it repeats the map's edge.
    """
    whole = functional.pad(scores, (border_px,) * 4, mode="replicate") if border_px else scores
    h, w = image.shape[-2:]
    return functional.interpolate(whole, size=(h, w), mode="bilinear", align_corners=False)
