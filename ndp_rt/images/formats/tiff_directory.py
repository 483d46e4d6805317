"""Reads the directories of TIFF (revision 6.0) and BigTIFF files: tags with their values, nothing of the pixels."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from ndp_rt.images.formats.encoded import Damage, Refusal, choose_page

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
MOST_PAGES = 4096
REDUCED, MASK = 1, 4  # bits of KIND
OLD_REDUCED = 2  # value of OLD_KIND


class Tag(IntEnum):
    """The tags that are read; all others are passed over."""

    KIND = 254
    OLD_KIND = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    LARGEST_VALUE = 281
    PLANAR = 284
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SUB_DIRECTORIES = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347


READ = frozenset(Tag)
Tags = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TiffFile:
    """Byte order and directories of a file."""

    order: str  # "<" or ">"
    pages: tuple[Tags, ...]  # without reduced copies and masks of others

    def take(self, page: int | None) -> Tags:
        """Return the directory of a page, counted from 1; None: of the only one.

        Raises:
            Refusal: there are several, or there is no such page.
        """
        if not self.pages:
            raise Refusal("expected one picture, got a TIFF with thumbnails or masks alone. Save the whole picture.")
        return self.pages[choose_page(page, len(self.pages), "a TIFF") - 1]


def read_directories(data: bytes) -> TiffFile:
    """Read all directories of a TIFF file.

    Raises:
        Refusal: the file is damaged, or has too many pages.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    at = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)[0]
    pending, seen, pages = [at] if at else [], set[int](), []
    while pending:
        at = pending.pop()
        if at in seen:
            raise Damage("its list of pages runs in a circle")
        seen.add(at)
        tags, following = _read_directory(data, order, is_big, at)
        linked = 0 if following in pending else following  # tifffile 2026.3.3 links sub-directories that it lists, too
        pending += filter(None, (linked, *reversed(tags.get(Tag.SUB_DIRECTORIES, ()))))  # taken from the end
        if len(seen) + len(pending) > MOST_PAGES:
            raise Refusal(f"expected up to {MOST_PAGES} pages, got more. Save one as a file of its own.")
        kind, old_kind = tags.get(Tag.KIND, (0,))[0], tags.get(Tag.OLD_KIND, (0,))[0]
        if not kind & (REDUCED | MASK) and old_kind != OLD_REDUCED:
            pages.append(tags)
    return TiffFile(order=order, pages=tuple(pages))


def _read_directory(data: bytes, order: str, is_big: bool, at: int) -> tuple[Tags, int]:
    """Return a directory's tags, and where the next directory is; 0: there is none."""
    count_type, entry, offset_type = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    (count,) = struct.unpack_from(order + count_type, data, at)
    at += struct.calcsize(order + count_type)
    entry_bytes, inline_bytes = (20, 8) if is_big else (12, 4)
    if at + count * entry_bytes > len(data):
        raise Damage("it ends within a directory")
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        entry_at = at + index * entry_bytes
        tag, kind, value_count = struct.unpack_from(order + entry, data, entry_at)
        if tag not in READ or kind not in TYPES:
            continue
        value_at = entry_at + entry_bytes - inline_bytes
        size_bytes = value_count * struct.calcsize(TYPES[kind])
        if size_bytes > inline_bytes:
            (value_at,) = struct.unpack_from(order + offset_type, data, value_at)
        if not value_count or value_at + size_bytes > len(data):
            raise Damage(f"tag {tag} lies outside the file")
        if tag in tags:
            raise Damage(f"tag {tag} is there twice")
        tags[tag] = struct.unpack_from(f"{order}{value_count}{TYPES[kind]}", data, value_at)
        if min(tags[tag]) < 0:
            raise Damage(f"tag {tag} has a negative value")
    return tags, struct.unpack_from(order + offset_type, data, at + count * entry_bytes)[0]
