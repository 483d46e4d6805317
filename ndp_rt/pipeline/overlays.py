"""Draws a result: input, reconstruction, heat map and contours side by side."""

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.result import Result

Picture = NDArray[np.uint8]  # RGB [h, w, 3]

SMALL_PX, LARGE_PX = 256, 512  # the longer side of a shown image is brought between these
CELL_PX = 200  # narrowest cell, so that captions fit below slim images
GAP_PX, HEADER_PX, CAPTION_PX = 12, 44, 26
PAPER, INK, FAINT = (255, 255, 255), (32, 33, 36), (120, 124, 130)
GOOD, DEFECT = (24, 128, 56), (197, 34, 31)
CONTOUR, MASK_CONTOUR, CONTOUR_EDGE = (0, 255, 255), (255, 196, 0), (0, 0, 0)
RING_PX = 9  # its radius
JPEG_QUALITY = 90
SHIFT = 4  # cv2 draws with this many bits below the pixel


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size at which an image is shown; small ones grow by a whole factor, so that their pixels stay sharp."""

    height_px: int
    width_px: int
    interpolation: int


def choose_scale(height_px: int, width_px: int) -> Scale:
    """Return the shown size of an image [height_px, width_px]."""
    longer = max(height_px, width_px)
    if longer < SMALL_PX:
        factor = -(-SMALL_PX // longer)
        return Scale(height_px=height_px * factor, width_px=width_px * factor, interpolation=cv2.INTER_NEAREST)
    share = min(1.0, LARGE_PX / longer)
    height, width = max(1, round(height_px * share)), max(1, round(width_px * share))
    return Scale(height_px=height, width_px=width, interpolation=cv2.INTER_AREA)


def to_picture(image: NDArray[np.uint8] | NDArray[np.uint16], white_level_16bit: int = 65535) -> Picture:
    """Return an image [h, w] or [h, w, c], grey or RGB(A), uint8 or uint16, as RGB uint8 [h, w, 3]."""
    shown: NDArray[Any] = image if image.ndim == 3 else image[:, :, np.newaxis]
    if shown.dtype == np.uint16:
        shown = np.minimum(shown.astype(np.float32) * (255.0 / white_level_16bit), 255.0).round().astype(np.uint8)
    shown = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown[:, :, :3]
    return np.ascontiguousarray(shown, dtype=np.uint8)


def find_scale(threshold: float) -> tuple[float, float, float]:
    """Return a map's values that have the first, the middle and the last colour.

    They depend on the threshold alone, so pictures of one bundle compare: 0, the threshold, and twice the threshold. A
    threshold below 1 is taken to be of a map up to 1, where the colours then end at the latest.
    """
    middle = threshold if 0.0 < threshold < math.inf else 0.5
    return 0.0, middle, min(2 * middle, 1.0) if middle < 1.0 else 2 * middle


def colour_map(anomaly_map: FloatArray, threshold: float) -> Picture:
    """Return a map [h, w] in the colours of `inferno`, by `find_scale`: RGB uint8 [h, w, 3]."""
    positions = np.interp(anomaly_map, find_scale(threshold), (0.0, 127.5, 255.0))
    colours = cv2.applyColorMap(positions.astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), np.uint8)


def show_image(image: NDArray[np.uint8] | NDArray[np.uint16], scale: Scale, white_level_16bit: int) -> Picture:
    """Return an image in the size at which it is shown; arguments as `draw_overlay`."""
    size = (scale.width_px, scale.height_px)
    shown = cv2.resize(to_picture(image, white_level_16bit), size, interpolation=scale.interpolation)
    return np.asarray(shown, np.uint8)


def show_map(anomaly_map: FloatArray, scale: Scale, threshold: float) -> Picture:
    """Return a map [h, w] as heat, in the size at which its image is shown."""
    size = (scale.width_px, scale.height_px)
    return colour_map(cv2.resize(anomaly_map, size, interpolation=cv2.INTER_LINEAR), threshold)


def draw_outlines(picture: Picture, mask: BoolArray, colour: tuple[int, int, int]) -> None:
    """Draw onto `picture` the outlines of the mask [h, w], of any size, with a dark edge."""
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    scale = np.array([picture.shape[1] / mask.shape[1], picture.shape[0] / mask.shape[0]])
    points = [np.round(((line + 0.5) * scale - 0.5) * (1 << SHIFT)).astype(np.int32) for line in outlines]
    for line_colour, thickness in ((CONTOUR_EDGE, 4), (colour, 2)):
        cv2.polylines(picture, points, True, line_colour, thickness, cv2.LINE_AA, SHIFT)


def draw_point(picture: Picture, x: float, y: float) -> None:
    """Draw a ring around a point onto `picture`; x and y from 0, its left and top, to 1."""
    centre = round((x * picture.shape[1] - 0.5) * (1 << SHIFT)), round((y * picture.shape[0] - 0.5) * (1 << SHIFT))
    for colour, thickness in ((CONTOUR_EDGE, 4), (PAPER, 2)):
        cv2.circle(picture, centre, RING_PX << SHIFT, colour, thickness, cv2.LINE_AA, SHIFT)


def draw_overlay(
    image: NDArray[np.uint8] | NDArray[np.uint16],
    result: Result,
    title: str,
    *,
    mask: BoolArray | None = None,
    white_level_16bit: int = 65535,
) -> Picture:
    """Return input, label, reconstruction, heat map and contours side by side, with captions.

    Args:
        image: the image that was inspected, grey or RGB(A).
        result: of that image; without a reconstruction that panel is left out.
        title: shown in the header, the file's name for instance.
        mask: where the image is labelled as defective, [h, w]; None: without that panel.
        white_level_16bit: of the bundle's input contract.
    """
    scale = choose_scale(*image.shape[:2])
    shown = show_image(image, scale, white_level_16bit)
    panels = [("input", shown)]
    if mask is not None:
        labelled = shown.copy()
        draw_outlines(labelled, mask, MASK_CONTOUR)
        panels.append(("labelled defect" if mask.any() else "labelled good", labelled))
    if result.reconstruction is not None:
        rebuilt = np.round(np.clip(result.reconstruction, 0.0, 1.0) * 255).astype(np.uint8)
        size = (scale.width_px, scale.height_px)
        panels.append(("reconstruction", cv2.resize(rebuilt, size, interpolation=cv2.INTER_LINEAR)))
    panels.append(("anomaly map", show_map(result.anomaly_map, scale, result.map_threshold)))
    marked = shown.copy()
    draw_outlines(marked, result.make_mask(), CONTOUR)
    count = len(result.defects)
    panels.append((f"{count} defect{'' if count == 1 else 's'}" if count else "no defect", marked))
    return _lay_out(panels, result, title)


def _lay_out(panels: list[tuple[str, Picture]], result: Result, title: str) -> Picture:
    """Put the panels on one sheet, with header and captions."""
    height, width = panels[0][1].shape[:2]
    cell = max(width, CELL_PX)
    sheet_width = GAP_PX + len(panels) * (cell + GAP_PX)
    sheet = np.full((HEADER_PX + height + CAPTION_PX + GAP_PX, sheet_width, 3), PAPER, np.uint8)
    _draw_header(sheet, result, title)
    for index, (name, picture) in enumerate(panels):
        left = GAP_PX + index * (cell + GAP_PX)
        x = left + (cell - width) // 2
        sheet[HEADER_PX : HEADER_PX + height, x : x + width] = picture
        baseline = HEADER_PX + height + 18
        end = write_text(sheet, name, (x, baseline), INK)
        if name == "anomaly map":
            _draw_colour_bar(sheet, end + 10, x + width, baseline, result)
    return sheet


def _draw_header(sheet: Picture, result: Result, title: str) -> None:
    """Write decision, score, threshold and as much of the title as fits."""
    colour, word = (DEFECT, "DEFECT") if result.is_defect else (GOOD, "GOOD")
    badge_end = GAP_PX + measure_text(word) + 16
    cv2.rectangle(sheet, (GAP_PX, 9), (badge_end, 33), colour, cv2.FILLED)
    write_text(sheet, word, (GAP_PX + 8, 26), PAPER)
    text = f"score {result.score:.4f}   threshold {result.threshold:.4f}"
    if result.map_threshold != result.threshold:
        text += f", of the map {result.map_threshold:.4f}"
    end = write_text(sheet, text, (badge_end + 12, 26), INK)
    room = sheet.shape[1] - GAP_PX - end - 24
    while title and measure_text(title) > room:
        title = "..." + title.removeprefix("...")[1:] if len(title) > 4 else ""
    write_text(sheet, title, (sheet.shape[1] - GAP_PX - measure_text(title), 26), FAINT)


def _draw_colour_bar(sheet: Picture, left: int, right: int, baseline: int, result: Result) -> None:
    """Draw the heat map's scale with a tick at the threshold, where there is room."""
    if right - left < 60:
        return
    threshold = result.map_threshold
    ends = np.interp(np.linspace(0, 1, right - left), (0, 0.5, 1), find_scale(threshold))
    sheet[baseline - 9 : baseline, left:right] = colour_map(ends[np.newaxis].astype(np.float32), threshold)
    centre = (left + right) // 2
    sheet[baseline - 12 : baseline + 3, centre] = INK
    text = "threshold" if threshold == result.threshold else "threshold of the map"
    write_text(sheet, text, (centre - measure_text(text, 0.32) // 2, baseline + 13), FAINT, 0.32)


def measure_text(text: str, size: float = 0.45) -> int:
    """Return the width in pixels of one line of text."""
    return int(cv2.getTextSize(_to_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


def write_text(
    sheet: Picture, text: str, origin: tuple[int, int], colour: tuple[int, int, int], size: float = 0.45
) -> int:
    """Write one line whose baseline starts at `origin` (x, y) and return the x where it ends."""
    cv2.putText(sheet, _to_ascii(text), origin, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
    return origin[0] + measure_text(text, size)


def _to_ascii(text: str) -> str:
    """Replace what OpenCV's fonts do not have."""
    return text.encode("ascii", "replace").decode("ascii")


def encode_png(picture: Picture) -> bytes:
    """Return a picture as the content of a PNG file."""
    _, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return bytes(content)


def make_data_url(picture: Picture) -> str:
    """Return a picture as the address of a JPEG that a page holds itself."""
    _, content = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"
