"""Unpacks the strips and tiles of TIFF files (TIFF 6.0, sections 9 and 13; Adobe Photoshop TIFF notes for deflate).

tifffile with imagecodecs does this and more, and takes 80 MB of disk; tifffile alone reads no LZW and fills what is
missing with zeros.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from ndp_rt.images.formats.encoded import Damage
from ndp_rt.images.opencv import cv2

CLEAR, END, FIRST_FREE = 256, 257, 258
LZW_BITS, LZW_MOST_BITS = 9, 12
MOST_COLUMNS = 2**19  # of a picture in OpenCV: 2**20
Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
# Where codes of a table begin that was cleared at bit 0, and their lengths: the table grows by one with each code but
# the first, and codes get longer one entry early.
_lengths = [
    min(LZW_MOST_BITS, max(LZW_BITS, int(FIRST_FREE + max(0, number - 1) + 1).bit_length())) for number in range(4096)
]
LENGTHS = np.array(_lengths, np.int64)
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])


def inflate(data: bytes, size_bytes: int) -> bytes:
    """Return the content of a zlib stream.

    Raises:
        Damage: it is cut short, its checksum is wrong, or its content has another size.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, size_bytes)
        more = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)  # the checksum, but no content
    except zlib.error as error:
        raise Damage(f"a strip cannot be unpacked ({error})") from error
    if len(content) != size_bytes or more or not stream.eof:
        raise Damage(f"a strip unpacks to {len(content)} bytes{' and more' if more else ''}, not {size_bytes}")
    return content


def unpack_bits(data: bytes, size_bytes: int) -> bytes:
    """Return the content of PackBits' runs.

    Raises:
        Damage: they end too early.
    """
    out, at = bytearray(), 0
    while len(out) < size_bytes and at + 1 < len(data):
        count = data[at]
        if count < 128:
            out += data[at + 1 : at + 2 + count]
            at += 2 + count
        else:
            out += data[at + 1 : at + 2] * (257 - count if count > 128 else 0)
            at += 2 if count > 128 else 1
    return _take(bytes(out), size_bytes)


def unpack_lzw(data: bytes, size_bytes: int) -> bytes:
    """Return the content of LZW codes.

    OpenCV's libtiff is ten times as fast as NumPy. It tells what is missing for 16-bit values alone, so it gets rows
    of these; NumPy takes what is no whole number of them.

    Raises:
        Damage: they end too early, or a code is not in the table.
    """
    width, height = size_bytes // 2, 1
    while width > MOST_COLUMNS and width % 2 == 0:
        width, height = width // 2, 2 * height
    if size_bytes % 2 or not 0 < width <= MOST_COLUMNS:
        return unpack_lzw_by_numpy(data, size_bytes)
    values = cv2.imdecode(np.frombuffer(_wrap_lzw(data, width, height), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.shape != (height, width):
        raise Damage(f"a strip does not unpack to {size_bytes} bytes")
    content: bytes = values.astype("<u2").tobytes()
    return content


def _wrap_lzw(data: bytes, width: int, height: int) -> bytes:
    """Return codes as a TIFF of 16-bit values in one strip."""
    entries = {256: width, 257: height, 258: 16, 259: 5, 262: 1, 273: 0, 277: 1, 278: height, 279: len(data)}
    pixels_at = 8 + 2 + 12 * len(entries) + 4
    directory = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (entries | {273: pixels_at}).items()]
    return b"".join([b"II*\0", struct.pack("<IH", 8, len(entries)), *directory, bytes(4), data])


def unpack_lzw_by_numpy(data: bytes, size_bytes: int) -> bytes:
    """Return the content of LZW codes of any size, as `unpack_lzw` does."""
    bits = np.frombuffer(data + bytes(4), np.uint8)
    out: list[bytes] = []
    count, at, end = 0, 0, 8 * len(data)
    while count < size_bytes and at + LZW_BITS <= end:
        codes = _read_codes(bits, at, end)
        stops = np.flatnonzero((codes == CLEAR) | (codes == END))
        stop = int(stops[0]) if len(stops) else len(codes)
        out.append(_expand(codes[:stop]))
        count += len(out[-1])
        if stop == len(codes) or codes[stop] == END:
            break
        at += int(STARTS[stop] + LENGTHS[stop])
    return _take(b"".join(out), size_bytes)


def _read_codes(bits: Bytes, at: int, end: int) -> Numbers:
    """Return the codes of one table, from bit `at`, as many as there can be."""
    whole = at + STARTS + LENGTHS <= end
    starts, lengths = (at + STARTS)[whole], LENGTHS[whole]
    words = sum(bits[(starts >> 3) + k].astype(np.int64) << (16 - 8 * k) for k in range(3))
    codes: Numbers = (words >> (24 - (starts & 7) - lengths)) & ((1 << lengths) - 1)
    return codes


def _expand(codes: Numbers) -> bytes:
    """Return what the codes of one table stand for.

    Code number k adds the entry k - 1: the text of code k - 1 and one byte more, which is what the output has there. So
    an entry is a place of the output, and a code that names one copies from there. Copies of copies are followed to
    the single bytes at their end by doubling their steps.
    """
    count = len(codes)
    is_byte = codes < CLEAR
    numbers = np.arange(count)
    sources = np.where(is_byte, numbers, codes - FIRST_FREE)
    if ((sources >= numbers) & ~is_byte).any():
        raise Damage("a strip has a code that is not in its table")
    lengths, at = np.where(is_byte, 0, 1), sources
    while not is_byte[at].all():
        lengths = lengths + lengths[at]
        at = at[at]
    lengths += 1
    ends = np.cumsum(lengths)
    starts = ends - lengths
    total = int(ends[-1]) if count else 0
    places = np.arange(total) - np.repeat(starts - starts[sources], lengths)
    values, is_end = np.zeros(total, np.uint8), np.zeros(total, np.bool_)
    values[starts[is_byte]], is_end[starts[is_byte]] = codes[is_byte], True
    while not is_end[places].all():
        places = places[places]
    content: bytes = values[places].tobytes()
    return content


def _take(content: bytes, size_bytes: int) -> bytes:
    if len(content) < size_bytes:
        raise Damage(f"a strip unpacks to {len(content)} bytes, not {size_bytes}")
    return content[:size_bytes]
