"""Reads bytes as the tests of image files do."""

import pytest

from ndp_rt.errors import ImageFileError
from ndp_rt.images.read import decode_image
from tests.images.encodings import Picture


def read(data: bytes, **settings: int) -> Picture:
    return decode_image(data, name="a file", **settings)  # type: ignore[arg-type]


def refuse(data: bytes, words: str) -> None:
    with pytest.raises(ImageFileError, match=f"^a file: .*{words}"):
        read(data)
