"""Makes the demo's photographs: `python -m ndp_rt.export.data.demo_data OUT`.

scikit-image's CC0 photograph of bricks is cut by columns into three parts that share no pixel: training tiles,
calibration tiles (`validation/good`) and demo tiles. Good demo tiles are cut as they are; the defects are painted,
since no freely licensed photographs of real ones exist for this surface. `textures/` holds the two other CC0
photographs, to draw artificial defects from in training. Everything is drawn from a fixed seed, so the files are always
the same.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ndp_rt.errors import MissingExtraError, StorageError
from ndp_rt.images.preprocess import read_image

Image = npt.NDArray[np.uint8]
Painter = Callable[[np.random.Generator, Image], tuple[Image, Image]]

SURFACE = "brick"
TEXTURES = ("grass", "gravel")
TILE_PX = 128
TRAINING_COLUMNS = (0, 256)
# The photograph's edge calibrates: its bricks lean most, and a threshold has to hold for the whole surface.
CALIBRATION_COLUMNS = (384, 512)
DEMO_COLUMNS = (256, 384)
TRAINING_STRIDE_PX = 16
CALIBRATION_STRIDE_PX = 32
SEED = 2211

README = f"""\
Photographs for `ndp-rt demo`
=============================
good_*.png    tiles of scikit-image's photograph "brick", made from CC0Textures' Bricks25
              (https://cc0textures.com/view.php?tex=Bricks25), licensed CC0
defect_*.png  tiles of the same part of that photograph with PAINTED defects: they are no photographs of real defects
mask_*.png    where the paint is: 255, elsewhere 0

The demo's network was trained on another part of the photograph: its columns {TRAINING_COLUMNS[0]} to
{TRAINING_COLUMNS[1] - 1}; these tiles are cut from columns {DEMO_COLUMNS[0]} to {DEMO_COLUMNS[1] - 1}.
Made by `python -m ndp_rt.export.data.demo_data`. Licence of all files: CC0 1.0.
"""


def load_photograph(name: str) -> Image:
    """Return scikit-image's photograph `name`, uint8 [512, 512].

    Raises:
        MissingExtraError: scikit-image is not installed.
        ImageFileError: it is, but its photograph is not there or damaged.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise MissingExtraError("the demo's photographs come with scikit-image: pip install scikit-image")
    photograph: Image = read_image(Path(package.origin).parent / "data" / f"{name}.png")
    return photograph


def cut_tiles(part: Image, stride_px: int) -> list[Image]:
    """Return the tiles [TILE_PX, TILE_PX] of a part of a photograph, row by row."""
    height, width = part.shape
    return [
        part[top : top + TILE_PX, left : left + TILE_PX]
        for top in range(0, height - TILE_PX + 1, stride_px)
        for left in range(0, width - TILE_PX + 1, stride_px)
    ]


def blend(tile: Image, cover: npt.NDArray[np.float32], value: float) -> tuple[Image, Image]:
    """Return the tile with grey `value` laid over it by cover [h, w], 0 to 1, and the mask of what shows of it."""
    painted = np.rint(tile * (1.0 - cover) + value * cover).astype(np.uint8)
    mask: Image = np.where(cover > 0.15, 255, 0).astype(np.uint8)
    return painted, mask


def paint_scratch(rng: np.random.Generator, tile: Image) -> tuple[Image, Image]:
    """Paint a bright scratch, two pixels wide, over most of the tile."""
    cover = np.zeros(tile.shape, np.float32)
    start, end = rng.uniform(12, 40, 2), rng.uniform(85, 116, 2)
    bend = (start + end) / 2 + rng.uniform(-18, 18, 2)
    steps = np.linspace(0.0, 1.0, 40)[:, None]
    curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
    cv2.polylines(cover, [np.rint(curve * 16).astype(np.int32)], False, 1.0, 2, cv2.LINE_AA, 4)
    return blend(tile, np.float32(0.75) * cover, 215)


def paint_crack(rng: np.random.Generator, tile: Image) -> tuple[Image, Image]:
    """Paint a dark crack that wanders from one side to the other."""
    cover = np.zeros(tile.shape, np.float32)
    x = np.arange(0, TILE_PX + 6, 6, dtype=np.float64)
    y = rng.uniform(35, 90) + np.cumsum(rng.normal(0.0, 2.6, x.size))
    for left in range(x.size - 1):
        ends = np.rint(np.stack([x[left : left + 2], y[left : left + 2]], axis=1) * 16).astype(np.int32)
        cv2.polylines(cover, [ends], False, 1.0, 1 + int(rng.integers(3)), cv2.LINE_AA, 4)
    return blend(tile, np.float32(0.85) * cover, 25)


def paint_stain(rng: np.random.Generator, tile: Image) -> tuple[Image, Image]:
    """Paint a dark, soft-edged stain through which the bricks show."""
    cover = _ragged_disc(rng, radius_px=rng.uniform(14, 19), edge_px=2.0)
    return blend(tile, np.float32(0.55) * cover, 20)


def paint_hole(rng: np.random.Generator, tile: Image) -> tuple[Image, Image]:
    """Paint a small black hole with a bright rim below."""
    cover = _ragged_disc(rng, radius_px=rng.uniform(4.5, 6.5), edge_px=0.7)
    lit, rim = blend(tile, np.float32(0.8) * np.roll(cover, (2, 1), axis=(0, 1)), 225)
    painted, mask = blend(lit, np.float32(0.95) * cover, 12)
    return painted, np.maximum(mask, rim)


def paint_spatter(rng: np.random.Generator, tile: Image) -> tuple[Image, Image]:
    """Paint a few bright drops."""
    painted, mask = tile, np.zeros(tile.shape, np.uint8)
    for _ in range(5):
        cover = _ragged_disc(rng, radius_px=rng.uniform(1.8, 4.0), edge_px=0.6)
        painted, drop = blend(painted, np.float32(0.85) * cover, 235)
        mask = np.maximum(mask, drop)
    return painted, mask


def _ragged_disc(rng: np.random.Generator, *, radius_px: float, edge_px: float) -> npt.NDArray[np.float32]:
    """Return the cover of a disc with a wavy outline, somewhere inside the tile."""
    middle = rng.uniform(radius_px + 8, TILE_PX - radius_px - 8, 2)
    angle = np.linspace(0.0, 2.0 * np.pi, 60, endpoint=False)
    waves = np.zeros_like(angle)
    for wave_count in range(2, 6):
        waves += rng.uniform(0.0, 0.12) * np.cos(wave_count * angle + rng.uniform(0.0, 6.0))
    outline = middle + radius_px * (1.0 + waves)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cover = np.zeros((TILE_PX, TILE_PX), np.float32)
    cv2.fillPoly(cover, [np.rint(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    blurred: npt.NDArray[np.float32] = cv2.GaussianBlur(cover, (0, 0), edge_px)
    return blurred


PAINTERS: dict[str, Painter] = {
    "crack": paint_crack,
    "hole": paint_hole,
    "scratch": paint_scratch,
    "spatter": paint_spatter,
    "stain": paint_stain,
}


def write_image(path: Path, image: Image) -> None:
    """Write a PNG.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}. Give another folder.") from error


def write_demo_data(out: Path) -> None:
    """Write train/good, validation/good, textures and demo below a folder.

    Raises:
        MissingExtraError: scikit-image is not installed.
        StorageError: a file cannot be written.
    """
    photograph = load_photograph(SURFACE)
    parts = {
        "train/good": (TRAINING_COLUMNS, TRAINING_STRIDE_PX),
        "validation/good": (CALIBRATION_COLUMNS, CALIBRATION_STRIDE_PX),
        "demo": (DEMO_COLUMNS, TILE_PX),
    }
    for folder, (columns, stride_px) in parts.items():
        for index, tile in enumerate(cut_tiles(photograph[:, slice(*columns)], stride_px)):
            write_image(out / folder / f"good_{index:03d}.png", tile)
    for name in TEXTURES:
        write_image(out / "textures" / f"{name}.png", load_photograph(name))
    # Defects go on tiles shifted by half against the good ones, and on the good ones' ground when those run out.
    strip = photograph[:, slice(*DEMO_COLUMNS)]
    for index, (name, paint) in enumerate(PAINTERS.items()):
        top = 64 + 128 * index if index < 3 else 32 + 256 * (index - 3)
        painted, mask = paint(np.random.default_rng([SEED, index]), strip[top : top + TILE_PX])
        write_image(out / "demo" / f"defect_{name}.png", painted)
        write_image(out / "demo" / f"mask_{name}.png", mask)
    (out / "demo" / "README.txt").write_text(README, encoding="utf-8")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m ndp_rt.export.data.demo_data", description="Make the demo's images."
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    write_demo_data(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
