"""Files of several pages: refused unless a page is chosen, and then each page is what other readers show."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.formats import apng, webp
from ndp_rt.images.formats.encoded import Damage, decode_with_opencv
from ndp_rt.images.formats.tiff_directory import MOST_PAGES, read_directories
from ndp_rt.images.listing import list_images
from ndp_rt.images.pages import PageReader, choose_pages
from ndp_rt.images.read import count_pages, decode_image, load_image, read_image
from tests.images.encodings import (
    Picture,
    draw_surface,
    encode,
    encode_pages,
    encode_pnm,
    encode_tiff,
    encode_with_pillow,
    join_png_chunks,
    list_png_chunks,
)
from tests.images.reading import read, refuse
from tests.images.samples import make_paged_samples

PAGED = make_paged_samples(np.random.default_rng(0))


def read_page(data: bytes, page: int) -> Picture:
    return decode_image(data, name="a file", page=page)


def show_pages(data: bytes) -> list[Picture]:
    """Return what Pillow shows of every page, RGB."""
    with Pillow.open(io.BytesIO(data)) as file:
        pages = []
        for number in range(file.n_frames):  # type: ignore[attr-defined]
            file.seek(number)
            pages.append(np.asarray(file.convert("RGBA"))[..., :3])
        return pages


@pytest.mark.parametrize("name", PAGED)
def test_several_pages_are_refused_with_how_to_choose_one(name: str) -> None:
    refuse(PAGED[name], r"expected one picture, got an? .* with 2 pages. Choose one: --page N, or page=N of read_image")
    for page in (0, 3, -1):
        with pytest.raises(ImageFileError, match=f"expected a page from 1 to 2, got {page}"):
            read_page(PAGED[name], page)


@pytest.mark.parametrize("name", ["png animated", "webp animated", "jpeg pages", "tiff pages"])
def test_a_page_is_what_other_readers_show(name: str) -> None:
    shown = show_pages(PAGED[name])
    assert len(shown) == 2 and not np.array_equal(*shown)
    for number, wanted in enumerate(shown):
        assert np.array_equal(read_page(PAGED[name], number + 1), wanted)


def test_pictures_that_follow_each_other_are_pages(rng: np.random.Generator) -> None:
    first, second = draw_surface(rng), draw_surface(rng, 20, 30)
    for data in (
        encode_pnm(first, 255) + encode_pnm(second, 255),
        encode_pnm(first, 255) + b" \n" + encode_pnm(second, 255),
    ):
        assert np.array_equal(read_page(data, 1), first) and np.array_equal(read_page(data, 2), second)
    files = [encode("jpg", first), encode("jpg", second)]
    for number, file in enumerate(files):
        assert np.array_equal(read_page(b"".join(files), number + 1), read(file))


def test_a_tiffs_pages_are_read_by_what_each_says(rng: np.random.Generator) -> None:
    grey, deep, colours = draw_surface(rng), draw_surface(rng, 21, 30, bits=16), draw_surface(rng, channels=3)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(255 - grey, photometric="miniswhite")
        writer.write(grey[::2, ::2], subfiletype=1)  # a thumbnail, which is no page
        writer.write(deep, photometric="minisblack", compression="zlib")
        writer.write(colours, photometric="rgb")
    for number, wanted in enumerate((grey, deep, colours)):
        assert np.array_equal(read_page(stream.getvalue(), number + 1), wanted)


def test_a_tiffs_sub_directories_are_pages_between_their_directory_and_the_next(rng: np.random.Generator) -> None:
    pages = [draw_surface(rng, 16, 17) for _ in range(4)]
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(pages[0], photometric="minisblack", subifds=2)
        for page in pages[1:]:  # the first two of these lie in sub-directories
            writer.write(page, photometric="minisblack")
    for data in (stream.getvalue(), unlink_sub_directories(stream.getvalue())):
        for number, wanted in enumerate(pages):
            assert np.array_equal(read_page(data, number + 1), wanted), number


def test_a_tiffs_list_of_pages_ends_and_is_bounded() -> None:
    def link(count: int, last: int) -> bytes:
        following = [*range(8 + 6, 8 + 6 * count, 6), last]
        return b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<HI", 0, at) for at in following)

    assert len(read_directories(link(MOST_PAGES, 0)).pages) == MOST_PAGES
    refuse(link(MOST_PAGES + 1, 0), f"expected up to {MOST_PAGES} pages, got more")
    for last in (8, 8 + 6):
        refuse(link(2, last), "its list of pages runs in a circle")


def unlink_sub_directories(data: bytes) -> bytes:
    """Return a file as libtiff writes it: sub-directories that the first directory lists, without links to the next."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        starts = file.pages[0].tags["SubIFDs"].value  # type: ignore[union-attr]
    assert len(starts) == 2
    for start in starts:
        (count,) = struct.unpack_from("<H", data, start)
        struct.pack_into("<I", changed, start + 2 + 12 * count, 0)
    return bytes(changed)


@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_frames_of_animations_are_laid_over_each_other(
    rng: np.random.Generator, disposal: int, blend: int, has_alpha: bool
) -> None:
    pages = [np.dstack([draw_surface(rng, channels=3), np.full((48, 40), 255, np.uint8)])]
    for number in range(1, 5):
        page = pages[-1].copy()
        page[3 * number : 20, 5 : 9 * number] = rng.integers(0, 256, page[3 * number : 20, 5 : 9 * number].shape)
        page[..., 3] = 255
        pages.append(page)
    stored = pages if has_alpha else [page[..., :3] for page in pages]
    data = encode_pages(stored, "PNG", disposal=[0, disposal, 0, disposal, 0], blend=blend)
    for number, wanted in enumerate(show_pages(data)):
        assert np.array_equal(read_page(data, number + 1), wanted), number
    data = encode_pages(stored, "WEBP", lossless=True)
    for number, wanted in enumerate(show_pages(data)):
        assert np.array_equal(read_page(data, number + 1), wanted), number


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_an_animations_first_frame_may_shine_through(rng: np.random.Generator, name: str) -> None:
    pages = [np.dstack([draw_surface(rng, channels=3), np.full((48, 40), alpha, np.uint8)]) for alpha in (128, 255)]
    pages[0][:5, :, 3] = 0
    settings = {"blend": 1} if name == "PNG" else {"lossless": True, "exact": True}
    data = encode_pages(pages, name, **settings)
    for number, wanted in enumerate(show_pages(data)):
        assert np.array_equal(read_page(data, number + 1), wanted), number
        assert np.array_equal(wanted[5:], pages[number][5:, :, :3])
    with pytest.raises(ImageFileError, match="got one that shines through"):
        read_page(encode_pages(pages[::-1], "PNG", blend=1), 2)


def test_a_picture_that_no_animation_shows_is_the_first_page(rng: np.random.Generator) -> None:
    still, *frames = [draw_surface(rng, channels=3) for _ in range(3)]
    data = encode_pages([still, *frames], "PNG", default_image=True)
    for number, wanted in enumerate((still, *frames)):
        assert np.array_equal(read_page(data, number + 1), wanted)


def test_an_animation_of_one_frame_is_a_picture(rng: np.random.Generator) -> None:
    pixels = draw_surface(rng, 8, 9, 3)
    head, *rest = list_png_chunks(encode_with_pillow(pixels, "PNG"))
    control = struct.pack(">IIIIIHHBB", 0, 9, 8, 0, 0, 1, 1, 0, 0)
    frame = [(b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", control)]
    assert np.array_equal(read(join_png_chunks([head, *frame, *rest])), pixels)
    outside = struct.pack(">IIIIIHHBB", 0, 9, 8, 0, 1, 1, 1, 0, 0)
    refuse(join_png_chunks([head, frame[0], (b"fcTL", outside), *rest]), "a frame lies outside the picture")


def test_a_png_animation_without_one_of_its_parts_is_an_error() -> None:
    chunks = list_png_chunks(PAGED["png animated"])
    for number in range(len(chunks)):
        with pytest.raises(ImageFileError, match="damaged or cut short"):
            read_page(join_png_chunks(chunks[:number] + chunks[number + 1 :]), 2)


@pytest.mark.parametrize("name", PAGED)
def test_the_last_page_of_a_file_that_is_cut_short_anywhere_is_an_error(name: str) -> None:
    data = PAGED[name]
    for length in range(len(data)):
        with pytest.raises(ImageFileError):
            read_page(data[:length], 2)


def test_a_format_without_pages_has_one(rng: np.random.Generator) -> None:
    for kind in ("png", "jpg", "bmp", "webp", "pnm", "tif"):
        data = encode(kind, draw_surface(rng))
        assert np.array_equal(read_page(data, 1), read(data))
        with pytest.raises(ImageFileError, match="expected a page from 1 to 1, got 2"):
            read_page(data, 2)


def test_a_path_may_name_a_page(rng: np.random.Generator, tmp_path: Path) -> None:
    pages = [draw_surface(rng), draw_surface(rng)]
    scan = tmp_path / "scan.tif"
    scan.write_bytes(encode_tiff(np.stack(pages), photometric="minisblack"))
    for number, wanted in enumerate(pages):
        assert np.array_equal(read_image(scan, page=number + 1), wanted)
        assert np.array_equal(read_image(f"{scan}[{number + 1}]"), wanted)
    assert count_pages(scan) == load_image(scan, page=2).page_count == 2
    for name, words in (
        ("scan.tif[3]", "from 1 to 2, got 3"),
        ("scan.tif[0]", "got 0"),
        ("none.tif[1]", "No such file"),
    ):
        with pytest.raises(ImageFileError, match=words):
            read_image(tmp_path / name)
    (tmp_path / "scan.tif[1]").write_bytes(encode("png", pages[1]))  # a file of that very name
    assert np.array_equal(read_image(tmp_path / "scan.tif[1]"), pages[1])
    assert list_images([f"{scan}[2]"]).files == (tmp_path / "scan.tif[2]",)


def test_pages_are_chosen_of_files_that_have_several(rng: np.random.Generator, tmp_path: Path) -> None:
    scan, single, broken = tmp_path / "scan.tif", tmp_path / "single.png", tmp_path / "broken.tif"
    scan.write_bytes(encode_tiff(np.stack(3 * [draw_surface(rng)]), photometric="minisblack"))
    single.write_bytes(encode("png", draw_surface(rng)))
    broken.write_bytes(scan.read_bytes()[:100])
    files = [scan, single, broken]
    assert choose_pages(files, None) == files
    assert [path.name for path in choose_pages(files, "all")] == [
        *("scan.tif[1]", "scan.tif[2]", "scan.tif[3]"),
        "single.png",
        "broken.tif",
    ]
    assert [path.name for path in choose_pages(files, 1)] == ["scan.tif[1]", "single.png", "broken.tif"]
    assert [path.name for path in choose_pages(files, 2)] == ["scan.tif[2]", "single.png[2]", "broken.tif[2]"]
    assert choose_pages([Path(f"{scan}[2]")], "all") == [Path(f"{scan}[2]")]


def test_pages_are_counted_where_the_first_is_not_read(rng: np.random.Generator, tmp_path: Path) -> None:
    grey, colours = draw_surface(rng), draw_surface(rng, channels=3)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for pixels in (grey.astype(np.float32), grey, 255 - grey):
            writer.write(pixels, photometric="minisblack")
    cmyk = io.BytesIO()
    Pillow.fromarray(colours).convert("CMYK").save(cmyk, "JPEG")
    for name, data, count, words in (
        ("scan.tif", stream.getvalue(), 3, "got floating point numbers"),
        ("scan.jpg", cmyk.getvalue() + encode("jpg", colours), 2, "CMYK"),
    ):
        scan = tmp_path / name
        scan.write_bytes(data)
        assert count_pages(scan) == count
        first, *others = choose_pages([scan], "all")
        with pytest.raises(ImageFileError, match=rf"{name}\[1\]: .*{words}"):
            read_image(first)
        assert [read_image(path).shape[:2] for path in others] == (count - 1) * [grey.shape]
        assert choose_pages([scan], 1) == [first]


@pytest.mark.parametrize("page", ["all", 2])
def test_a_file_that_is_named_like_a_page_is_refused(rng: np.random.Generator, tmp_path: Path, page: int | str) -> None:
    scan, single, named = tmp_path / "scan.tif", tmp_path / "single.png", tmp_path / "scan.tif[2]"
    scan.write_bytes(encode_tiff(np.stack(2 * [draw_surface(rng)]), photometric="minisblack"))
    named.write_bytes(encode("png", draw_surface(rng)))
    with pytest.raises(InputError, match=r"scan\.tif\[2\]: expected page 2 of scan\.tif, got a file .* Rename it\."):
        choose_pages([scan], page)
    assert choose_pages([scan], 1) == [tmp_path / "scan.tif[1]"]
    assert choose_pages([named], "all") == [named]
    single.write_bytes(named.read_bytes())
    named.rename(tmp_path / "single.png[1]")
    assert choose_pages([single], "all") == choose_pages([single], 1) == [single]


def test_a_files_pages_come_of_one_reading_and_one_file_is_kept(rng: np.random.Generator, tmp_path: Path) -> None:
    scan, other = tmp_path / "scan.tif", tmp_path / "other.png"
    pages, replaced = ([draw_surface(rng), draw_surface(rng)] for _ in range(2))
    scan.write_bytes(encode_tiff(np.stack(pages), photometric="minisblack"))
    other.write_bytes(encode("png", pages[0]))
    reader = PageReader(white_level=65535)
    first, second = choose_pages([scan], "all")
    assert np.array_equal(reader.read(first), pages[0])
    scan.write_bytes(encode_tiff(np.stack(replaced), photometric="minisblack"))
    assert np.array_equal(reader.read(second), pages[1])
    with pytest.raises(ImageFileError, match=r"scan\.tif\[3\]: expected a page from 1 to 2, got 3"):
        reader.read(Path(f"{scan}[3]"))
    assert np.array_equal(reader.read(other), pages[0])
    assert np.array_equal(reader.read(second), replaced[1])


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("order", [[1, 2, 3, 4], [2, 4, 1, 1, 3], [4, 3]])
def test_a_frame_is_decoded_once_for_pages_that_follow_each_other(
    rng: np.random.Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    disposal: int,
    order: list[int],
) -> None:
    frames = [draw_surface(rng, 16, 12, 3)]
    for number in range(3):
        frames.append(frames[-1].copy())
        frames[-1][4 : 8 + number, 2:8] ^= 255
    settings = {"disposal": disposal, "blend": 0} if name == "PNG" else {"lossless": True}
    path = tmp_path / "animated"
    path.write_bytes(encode_pages(frames, name, **settings))
    wanted = {number: read_image(path, page=number) for number in order}
    decoded = list[bytes]()

    def count(data: bytes, keeps_alpha: bool) -> Any:
        decoded.append(data)
        return decode_with_opencv(data, keeps_alpha)

    for module in (apng, webp):
        monkeypatch.setattr(module, "decode_with_opencv", count)
    reader = PageReader(white_level=65535)
    for number in order:
        assert np.array_equal(reader.read(Path(f"{path}[{number}]")), wanted[number])
    steps = zip([0, *order], order, strict=False)
    assert len(decoded) == sum(now - before if now > before else now for before, now in steps)


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_a_page_that_is_not_read_leaves_the_others_as_they_are(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    frames = [draw_surface(rng, 16, 12, 3) for _ in range(3)]
    path = tmp_path / "animated"
    path.write_bytes(encode_pages(frames, name, **({} if name == "PNG" else {"lossless": True})))
    wanted = read_image(path, page=3)
    reader = PageReader(white_level=65535)
    reader.read(Path(f"{path}[1]"))

    def fail(data: bytes, keeps_alpha: bool) -> Any:
        raise Damage("its content is not fine")

    with monkeypatch.context() as patch:
        for module in (apng, webp):
            patch.setattr(module, "decode_with_opencv", fail)
        for number in (2, 3):
            with pytest.raises(ImageFileError, match="its content is not fine"):
                reader.read(Path(f"{path}[{number}]"))
    assert np.array_equal(reader.read(Path(f"{path}[3]")), wanted)
