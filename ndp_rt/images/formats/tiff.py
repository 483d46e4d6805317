"""TIFF and BigTIFF: grey, RGB and palettes of 1 to 16 bits, in strips or tiles, chunky or planar.

White is what the file says: WhiteIsZero is turned round, 9 to 15 bits declare their own white. Alpha is dropped. What
is compressed in another way than COMPRESSIONS says is refused by name.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.images.formats import jpeg
from ndp_rt.images.formats.encoded import Damage, Encoded, Refusal
from ndp_rt.images.formats.pnm import scale_to_8_bits
from ndp_rt.images.formats.tiff_codecs import inflate, unpack_bits, unpack_lzw
from ndp_rt.images.formats.tiff_directory import SIGNATURES, Tag, Tags, read_directories

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
PHOTOMETRICS = {4: "a mask", 5: "CMYK", 8: "CIE L*a*b*", 32803: "a sensor's raw values", 34892: "linear raw values"}
NONE, LZW, JPEG = 1, 5, 7
UNPACK: dict[int, Callable[[bytes, int], bytes]] = {
    LZW: unpack_lzw,
    8: inflate,
    32773: unpack_bits,
    32946: inflate,
}
COMPRESSIONS = {
    2: "fax (CCITT)",
    3: "fax (CCITT group 3)",
    4: "fax (CCITT group 4)",
    6: "old JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
CHUNKY, SEPARATE = 1, 2
HORIZONTAL = 2  # predictor
ASSOCIATED_ALPHA = 1
SHOWN = 5  # numbers of bits that an error names
REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))

__all__ = ["SIGNATURES", "read_header"]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the pixels of one page lie in the file."""

    order: str
    height: int
    width: int
    bits: int
    samples: int  # in all, with alpha
    photometric: int
    compression: int
    is_separate: bool
    has_predictor: bool
    is_reversed: bool
    segment_height: int
    segment_width: int
    is_tiled: bool
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def segment_samples(self) -> int:
        return 1 if self.is_separate else self.samples

    @property
    def base_samples(self) -> int:
        """Samples of the picture itself."""
        return 3 if self.photometric in (RGB, YCBCR) else 1


def read_header(data: bytes, page: int | None = None) -> Encoded:
    """Read the directories of a TIFF file, for one of its pages.

    Raises:
        Refusal: it is damaged, has several pages and none is chosen, or is of a kind that is not read.
    """
    file = read_directories(data)
    tags = file.take(page)
    layout = _read_layout(tags, file.order)
    white = 2**layout.bits - 1 if 8 < layout.bits < 16 and layout.photometric != PALETTE else 65535
    (largest,) = tags.get(Tag.LARGEST_VALUE, (0,))[:1]
    noted = int(largest).bit_length() if layout.bits == 16 and 255 < largest < 65535 else None
    (turned,) = tags.get(Tag.ORIENTATION, (1,))[:1]
    return Encoded(
        height_px=layout.height,
        width_px=layout.width,
        decoded_bytes=layout.height * layout.width * max(layout.samples, 3) * (1 if layout.bits <= 8 else 2),
        decode=lambda keeps_alpha: _decode(data, tags, layout, keeps_alpha),
        orientation=turned if 1 <= turned <= 8 else 1,
        white=white,
        significant_bits=noted,
        page_count=len(file.pages),
    )


def _read_layout(tags: Tags, order: str) -> _Layout:
    """Check a directory.

    Raises:
        Refusal: something in it is damaged, or not read.
    """
    for name in (Tag.WIDTH, Tag.HEIGHT, Tag.PHOTOMETRIC):
        if name not in tags:
            raise Damage(f"tag {name} is missing")
    width, height, photometric = (tags[name][0] for name in (Tag.WIDTH, Tag.HEIGHT, Tag.PHOTOMETRIC))
    samples = tags.get(Tag.SAMPLES, (1,))[0]
    bits = set(tags.get(Tag.BITS, (1,)))
    compression = tags.get(Tag.COMPRESSION, (NONE,))[0]
    _check_kind(tags, photometric, samples, bits, compression)
    is_tiled = Tag.TILE_WIDTH in tags
    names = (Tag.TILE_OFFSETS, Tag.TILE_BYTES) if is_tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_BYTES)
    rows = min(height, tags.get(Tag.ROWS_PER_STRIP, (height,))[0])
    segment_height = tags.get(Tag.TILE_HEIGHT, (0,))[0] if is_tiled else rows
    segment_width = tags[Tag.TILE_WIDTH][0] if is_tiled else width
    if min(width, height, segment_height, segment_width) < 1 or segment_height * segment_width > 2**31:
        raise Damage(f"its header says {width} x {height} pixels in pieces of {segment_width} x {segment_height}")
    layout = _Layout(
        order=order,
        height=height,
        width=width,
        bits=bits.pop(),
        samples=samples,
        photometric=photometric,
        compression=compression,
        is_separate=tags.get(Tag.PLANAR, (CHUNKY,))[0] == SEPARATE and samples > 1,
        has_predictor=tags.get(Tag.PREDICTOR, (1,))[0] == HORIZONTAL and compression in UNPACK,
        is_reversed=tags.get(Tag.FILL_ORDER, (1,))[0] == 2,
        segment_height=segment_height,
        segment_width=segment_width,
        is_tiled=is_tiled,
        offsets=tags.get(names[0], ()),
        sizes=tags.get(names[1], ()),
    )
    count = -(-height // segment_height) * -(-width // segment_width) * (samples if layout.is_separate else 1)
    if len(layout.offsets) != count or len(layout.sizes) != count or 0 in layout.sizes:
        raise Damage(f"expected {count} pieces of the picture, got {len(layout.sizes) - layout.sizes.count(0)}")
    return layout


def _check_kind(tags: Tags, photometric: int, samples: int, bits: set[int], compression: int) -> None:
    """Raise Refusal unless the page's values are of a kind that is read."""
    base = 3 if photometric in (RGB, YCBCR) else 1
    formats = set(tags.get(Tag.SAMPLE_FORMAT, (1,)))
    extra = tags.get(Tag.EXTRA_SAMPLES, ())
    remedy = "Save it as grey or RGB, of 8 or 16 bits."
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR):
        kind = PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
        raise Refusal(f"expected grey, RGB or a palette, got a TIFF with {kind}. {remedy}")
    if not formats <= {1, 4}:
        kinds = {2: "signed numbers", 3: "floating point numbers", 5: "complex numbers", 6: "complex numbers"}
        raise Refusal(f"expected whole numbers from 0, got {kinds.get(max(formats), 'others')}. {remedy}")
    if len(bits) != 1 or not 1 <= max(bits) <= 16 or (photometric in (RGB, YCBCR) and max(bits) < 4):
        named = ", ".join(map(str, sorted(bits)[:SHOWN])) + (", ..." if len(bits) > SHOWN else "")
        raise Refusal(f"expected 1 to 16 bits a value, got {named}. {remedy}")
    if compression != NONE and compression not in UNPACK and compression != JPEG:
        kind = COMPRESSIONS.get(compression, f"compression {compression}")
        raise Refusal(f"expected TIFF with deflate, LZW, PackBits, JPEG or none, got {kind}. Save it with one of them.")
    if photometric == YCBCR and compression != JPEG:
        raise Refusal(f"expected YCbCr in a TIFF with JPEG and nowhere else, got it without. {remedy}")
    if compression == JPEG and bits != {8}:
        raise Refusal(f"expected JPEG of 8 bits in a TIFF, got one of {max(bits)}. {remedy}")
    if samples < base or samples > base + 1 or len(extra) not in (0, samples - base):
        raise Refusal(f"expected {base} channel(s) and perhaps alpha, got {samples} channels. {remedy}")
    if tags.get(Tag.PREDICTOR, (1,))[0] not in (1, HORIZONTAL):
        raise Refusal(f"expected the horizontal predictor or none, got {tags[Tag.PREDICTOR][0]}. {remedy}")
    if tags.get(Tag.PREDICTOR, (1,))[0] == HORIZONTAL and bits.isdisjoint((8, 16)):
        raise Refusal(f"expected a predictor with 8 or 16 bits, got it with {max(bits)}. {remedy}")
    if photometric == PALETTE and len(tags.get(Tag.COLOUR_MAP, ())) != 3 * 2 ** max(bits):
        raise Damage("its palette is missing or too short")
    if photometric == PALETTE and max(tags[Tag.COLOUR_MAP]) > 65535:
        raise Damage("its palette has values over 65535")


def _decode(data: bytes, tags: Tags, layout: _Layout, keeps_alpha: bool) -> Image:
    """Return the pixels of a page.

    Raises:
        Refusal: a strip is damaged, or colours are multiplied by an alpha channel.
    """
    dtype = np.uint8 if layout.bits <= 8 else np.uint16
    values = np.empty((layout.height, layout.width, layout.samples), dtype)
    for plane, top, left, piece in _read_pieces(data, tags, layout):
        part = values[top : top + piece.shape[0], left : left + piece.shape[1], plane]
        part[...] = piece[: part.shape[0], : part.shape[1]]
    base = layout.base_samples
    if keeps_alpha and layout.samples > base:
        return values
    if tags.get(Tag.EXTRA_SAMPLES) == (ASSOCIATED_ALPHA,) and values[..., base].min() < 2**layout.bits - 1:
        raise Refusal("expected colours as they are, got a TIFF where alpha is multiplied in. Save it without alpha.")
    image = np.ascontiguousarray(values[..., 0] if base == 1 else values[..., :3])
    if layout.photometric == WHITE_IS_ZERO:
        image = (2**layout.bits - 1 - image).astype(dtype)
    if layout.photometric == PALETTE:
        return _look_up(image, tags[Tag.COLOUR_MAP])
    return scale_to_8_bits(image, 2**layout.bits - 1) if layout.bits < 8 else image


def _look_up(indices: Image, colours: tuple[int, ...]) -> Image:
    """Return the colours of palette entries, RGB of 8 bits, or grey where all are."""
    palette = np.array(colours, np.uint16).reshape(3, -1).T
    eight = (palette >> 8).astype(np.uint8) if palette.max() > 255 else palette.astype(np.uint8)
    is_grey = bool((eight == eight[:, :1]).all())
    image: Image = eight[indices, 0] if is_grey else eight[indices]
    return image


def _read_pieces(data: bytes, tags: Tags, layout: _Layout) -> Iterator[tuple[slice, int, int, Image]]:
    """Yield samples, top, left and values [h, w, samples] of every strip or tile."""
    across, down = -(-layout.width // layout.segment_width), -(-layout.height // layout.segment_height)
    for number, (offset, size) in enumerate(zip(layout.offsets, layout.sizes, strict=True)):
        plane, place = divmod(number, across * down)
        top, left = (place // across) * layout.segment_height, (place % across) * layout.segment_width
        rows = layout.segment_height if layout.is_tiled else min(layout.segment_height, layout.height - top)
        content = data[offset : offset + size]
        if len(content) != size:
            raise Damage(f"piece {number + 1} of {len(layout.sizes)} lies behind the file's end")
        planes = slice(plane, plane + 1) if layout.is_separate else slice(None)
        if layout.compression == JPEG:
            yield planes, top, left, _decode_jpeg(content, tags, (rows, layout.segment_width), layout)
        else:
            yield planes, top, left, _unpack(content, rows, layout)


def _unpack(content: bytes, rows: int, layout: _Layout) -> Image:
    """Return the values of one strip or tile, [h, w, samples]."""
    row_values = layout.segment_width * layout.segment_samples
    row_bytes = (row_values * layout.bits + 7) // 8
    if layout.is_reversed:
        content = content.translate(REVERSED)
    if layout.compression != NONE:
        content = UNPACK[layout.compression](content, rows * row_bytes)
    elif len(content) < rows * row_bytes:
        raise Damage(f"a piece has {len(content)} bytes, not {rows * row_bytes}")
    shape = (rows, layout.segment_width, layout.segment_samples)
    if layout.bits in (8, 16):
        kind = np.dtype(np.uint8 if layout.bits == 8 else f"{layout.order}u2")
        values: Image = np.frombuffer(content, kind, rows * row_values).reshape(shape)
        if layout.has_predictor:
            native = np.uint8 if layout.bits == 8 else np.uint16
            values = np.add.accumulate(values.astype(native), axis=1, dtype=native)
        return values
    bits = np.unpackbits(np.frombuffer(content, np.uint8, rows * row_bytes).reshape(rows, row_bytes), axis=1)
    digits = bits[:, : row_values * layout.bits].reshape(rows, row_values, layout.bits)
    wide = np.zeros((rows, row_values), np.uint16)
    for index in range(layout.bits):
        np.left_shift(wide, 1, out=wide)
        np.bitwise_or(wide, digits[..., index], out=wide)
    return wide.reshape(shape)


def _decode_jpeg(content: bytes, tags: Tags, size: tuple[int, int], layout: _Layout) -> Image:
    """Return the values of a strip or tile that is a JPEG without its tables (TIFF Technical Note 2)."""
    numbers = tags.get(Tag.JPEG_TABLES, ())
    if not all(0 <= one < 256 for one in numbers):
        raise Damage("its JPEG tables are no bytes")
    tables = bytes(numbers)
    if tables:
        content = tables.removesuffix(b"\xff\xd9") + content.removeprefix(b"\xff\xd8")
    try:
        encoded = jpeg.read_header(content)
        if layout.base_samples == 3 and jpeg.is_ycbcr(content) != (layout.photometric == YCBCR):
            raise Refusal("expected a strip's JPEG to say the colours that the TIFF says, got others. Save it as PNG.")
    except (struct.error, IndexError) as error:
        raise Damage("the JPEG in a strip has no header") from error
    if (encoded.height_px, encoded.width_px) != size:
        raise Damage(f"a strip says {encoded.width_px} x {encoded.height_px} pixels, not {size[1]} x {size[0]}")
    image = encoded.decode(False)
    planes = image[..., None] if image.ndim == 2 else image
    if planes.shape[2] != layout.segment_samples:
        raise Damage(f"a strip has {planes.shape[2]} channels, not {layout.segment_samples}")
    return planes
