"""Pictures of results."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ndp_rt.decide.regions import list_defects
from ndp_rt.pipeline import overlays
from ndp_rt.pipeline.overlays import GAP_PX, HEADER_PX, choose_scale, colour_map, draw_overlay, encode_png, to_picture
from ndp_rt.result import Result

MAPS_OWN = ("threshold 1000.0000, of the map 7.0000", "threshold of the map")


def make_result(shape: tuple[int, int], value: float, threshold: float, with_reconstruction: bool = True) -> Result:
    anomaly_map = np.zeros(shape, np.float32)
    anomaly_map[: max(1, shape[0] // 2), : max(1, shape[1] // 2)] = value
    defects = list_defects(anomaly_map, threshold, *shape) if value >= threshold else ()
    return Result(
        score=value,
        threshold=threshold,
        is_defect=bool(defects),
        anomaly_map=anomaly_map,
        defects=defects,
        timings_ms={},
        reconstruction=np.full((64, 64, 3), 0.5, np.float32) if with_reconstruction else None,
    )


@pytest.mark.parametrize("shape", [(1, 1), (128, 128), (7, 300), (2000, 500), (256, 256), (300, 40)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_draws_images_of_every_form(shape: tuple[int, int], dtype: str, channels: tuple[int, ...]) -> None:
    picture = draw_overlay(np.zeros((*shape, *channels), dtype), make_result(shape, 0.9, 0.5), "näme.png")
    assert picture.dtype == np.uint8 and picture.shape[1] >= 4 * 200
    assert cv2.imdecode(np.frombuffer(encode_png(picture), np.uint8), cv2.IMREAD_COLOR).shape == picture.shape


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_shrunk() -> None:
    assert choose_scale(128, 128).height_px == 256
    assert choose_scale(100, 90).height_px == 300
    assert (choose_scale(2048, 1024).height_px, choose_scale(2048, 1024).width_px) == (512, 256)
    assert choose_scale(300, 300).height_px == 300


def test_pixels_of_a_small_image_stay_crisp() -> None:
    image = np.zeros((128, 128), np.uint8)
    image[::2] = 255
    picture = draw_overlay(image, make_result((128, 128), 0.1, 0.5), "")
    panel = picture[HEADER_PX : HEADER_PX + 256, 12 : 12 + 256]
    assert set(np.unique(panel)) == {0, 255}


@pytest.mark.parametrize("threshold", [0.2, 1.0, 7.25, 7161.25])
def test_colours_depend_on_the_threshold_alone(threshold: float) -> None:
    values = np.float32([[0.0, 1.0, 2.0, 4.5]]) * np.float32(threshold)
    first = colour_map(values, threshold)
    second = colour_map(np.float32([[threshold]]), threshold)
    assert (first[0, 1] == second[0, 0]).all()
    assert (first[0, 2] == first[0, 3]).all()  # twice the threshold is the end of the scale
    assert len(np.unique(first[0], axis=0)) == 3
    ramp = colour_map(np.linspace(0, 2 * threshold, 64, dtype=np.float32)[None], threshold)
    assert (ramp == colour_map(np.linspace(0, 0.4, 64, dtype=np.float32)[None], 0.2)).mean() > 0.95
    brightness = ramp.astype(float) @ (0.21, 0.72, 0.07)
    assert (np.diff(brightness[0]) > -1.0).all()  # brighter is more anomalous, up to rounding


def test_a_high_threshold_of_a_map_up_to_1_leaves_the_colours_an_end() -> None:
    assert (colour_map(np.float32([[1.0]]), 0.8) == colour_map(np.float32([[1.6]]), 0.8)).all()
    for threshold in (0.0, -1.0, np.inf):
        assert (colour_map(np.float32([[0.0, 0.5, 1.0]]), threshold) == colour_map(np.float32([[0, 1, 2]]), 1.0)).all()


@pytest.mark.parametrize(("map_threshold", "words"), [(1000.0, ("threshold 1000.0000", "threshold")), (7.0, MAPS_OWN)])
def test_a_threshold_of_the_map_is_named_where_it_is_another(
    monkeypatch: pytest.MonkeyPatch, map_threshold: float, words: tuple[str, str]
) -> None:
    written: list[str] = []
    monkeypatch.setattr(overlays, "write_text", lambda sheet, text, *more: written.append(text) or 0)
    result = replace(make_result((256, 256), 9.0, 1000.0), map_threshold=map_threshold)
    draw_overlay(np.zeros((256, 256), np.uint8), result, "")
    assert any(text.endswith(words[0]) for text in written) and words[1] in written


def test_outlines_appear_exactly_where_there_is_a_defect() -> None:
    image = np.full((256, 256), 90, np.uint8)
    for value, is_drawn in ((0.9, True), (0.4, False)):
        picture = draw_overlay(image, make_result((256, 256), value, 0.5), "")
        panel = picture[HEADER_PX : HEADER_PX + 256, -(256 + GAP_PX) : -GAP_PX].astype(int)
        has_colour = np.abs(panel[:, :, 0] - panel[:, :, 1]).max() > 100  # the image itself is grey
        assert has_colour == is_drawn


def test_leaves_out_the_reconstruction_that_was_not_kept() -> None:
    image = np.zeros((256, 256), np.uint8)
    with_it = draw_overlay(image, make_result((256, 256), 0.9, 0.5), "")
    without = draw_overlay(image, make_result((256, 256), 0.9, 0.5, with_reconstruction=False), "")
    assert with_it.shape[1] - without.shape[1] == 256 + 12


def test_16_bit_images_are_scaled_by_the_white_level() -> None:
    assert to_picture(np.full((2, 2), 1023, np.uint16), 1023).max() == 255
    assert to_picture(np.full((2, 2), 2000, np.uint16), 1023).max() == 255
