"""Images of requests as arrays that an inspector accepts."""

from collections.abc import Iterable

from ndp_rt.errors import InputError
from ndp_rt.images.checks import Image
from ndp_rt.images.read import decode_image
from ndp_rt.inspector import Inspector


def decode_images(inspector: Inspector, images: Iterable[Image | bytes]) -> list[Image]:
    """Return images as arrays, each checked.

    Args:
        inspector: that is to inspect them.
        images: arrays, or the bytes of image files.

    Raises:
        ImageFileError: one cannot be decoded.
        InputError: one has a form that the inspector does not accept.
    """
    white_level, found = inspector.bundle.manifest.input.white_level_16bit, []
    for number, image in enumerate(images):
        name = f"image {number}"
        array = decode_image(image, name=name, white_level=white_level) if isinstance(image, bytes) else image
        try:
            inspector.session.check_image(array)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        found.append(array)
    return found
