"""BMP with and without its file header (DIB), uncompressed; OpenCV then decodes the pixels."""

import struct

from ndp_rt.images.formats.encoded import Damage, Encoded, Refusal, choose_page, decode_with_opencv

SIGNATURE = b"BM"
FILE_HEADER_BYTES = 14
CORE = 12  # bytes of the oldest header, with 16-bit sizes
HEADERS = (CORE, 40, 52, 56, 64, 108, 124)
BITS = (1, 4, 8, 16, 24, 32)
PLAIN, FIELDS = 0, 3  # compression
COMPRESSIONS = {1: "RLE8", 2: "RLE4", 4: "JPEG in BMP", 5: "PNG in BMP"}
# Red, green and blue as OpenCV reads them.
KNOWN_FIELDS = {16: ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)), 32: ((0xFF0000, 0xFF00, 0xFF),)}


def is_dib(data: bytes) -> bool:
    """Tell whether a file's first bytes are a DIB's: a bitmap header of 40 bytes or more, with one plane."""
    size, planes, bits = struct.unpack_from("<I8xHH", data) if len(data) >= 16 else (0, 0, 0)
    return size in HEADERS[1:] and planes == 1 and bits in BITS


def read_header(data: bytes, page: int | None = None) -> Encoded:
    """Read the header of a BMP or DIB file.

    Raises:
        Refusal: it is damaged, cut short or compressed.
    """
    choose_page(page, 1, "a BMP")
    whole = data if data.startswith(SIGNATURE) else _add_file_header(data)
    (size,) = struct.unpack_from("<I", whole, FILE_HEADER_BYTES)
    if size not in HEADERS:
        raise Damage(f"its header says a length of {size}")
    compression = colour_count = 0
    if size == CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", whole, 18)
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", whole, 18)
        (colour_count,) = struct.unpack_from("<I", whole, 46)
    if bits not in BITS or width <= 0 or height == 0:
        raise Damage(f"its header says {width} x {height} pixels of {bits} bits")
    if compression not in (PLAIN, FIELDS):
        kind = COMPRESSIONS.get(compression, f"compression {compression}")
        raise Refusal(f"expected a BMP without compression, got {kind}. Save it without, or as PNG.")
    if compression == FIELDS:
        fields = struct.unpack_from("<III", whole, 54)
        if fields not in KNOWN_FIELDS.get(bits, ()):
            raise Refusal(f"expected the usual colour masks, got {', '.join(map(hex, fields))}. Save it as PNG.")
    (pixels_at,) = struct.unpack_from("<I", whole, 10)
    palette_bytes = (colour_count or 2**bits) * (3 if size == CORE else 4) if bits <= 8 else 0
    if colour_count > 2**16 or pixels_at < FILE_HEADER_BYTES + size + palette_bytes:
        raise Damage(f"its header says that pixels begin at byte {pixels_at}, within its header")
    needed = pixels_at + abs(height) * ((width * bits + 31) // 32 * 4)
    if len(whole) < needed:
        raise Damage(f"its header says {needed} bytes, it has {len(whole)}")
    return Encoded(
        height_px=abs(height),  # a negative height means rows from the top
        width_px=width,
        decoded_bytes=abs(height) * width * (3 if bits <= 8 else 4),  # a palette may have colours
        decode=lambda _: decode_with_opencv(whole, False),
    )


def _add_file_header(data: bytes) -> bytes:
    """Return a DIB as a BMP file."""
    size, bits, compression, colour_count = struct.unpack_from("<I10xHI12xI", data)
    palette_bytes = 4 * (colour_count or 2**bits) if bits <= 8 else 0
    masks_bytes = 12 if compression == FIELDS and size == 40 else 0
    pixels_at = FILE_HEADER_BYTES + size + masks_bytes + palette_bytes
    return struct.pack("<2sIII", SIGNATURE, FILE_HEADER_BYTES + len(data), 0, pixels_at) + data
