"""Reads the orientation from an EXIF block (Exif 2.32, 4.6.2 and 4.6.5): a TIFF directory without an image."""

import struct

ORIENTATION = 0x0112
SHORT = 3
PREFIX = b"Exif\0\0"


def read_orientation(block: bytes) -> int:
    """Return 1 to 8; 1 where the block is damaged, says nothing, or says what the standard does not know."""
    block = block.removeprefix(PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, first)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, first + 2 + 12 * index)
            if tag == ORIENTATION and kind == SHORT:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
