"""The page of an evaluation's worst misses and false alarms: which images, which figures, what a browser gets."""

import base64
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.evaluate.dataset import GOOD, Sample
from ndp_rt.evaluate.explain import MapFigures, describe_image, make_page, measure_map, pick_worst, write_page
from ndp_rt.evaluate.run import Evaluation, summarise
from ndp_rt.evaluate.score_samples import Scored
from tests.bench.report.page_reader import PageReader
from tests.evaluate.test_dataset import write_png

THRESHOLD = 0.5


def make_scored(root: Path, kind: str, name: str, score: float, *, has_mask: bool = True) -> Scored:
    """Write an image of 20 x 30 pixels whose map peaks at x 12, y 4; the mask of a defect lies elsewhere."""
    pixels = np.full((20, 30), 120, np.uint8)
    path = write_png(root / "test" / kind / name, pixels)
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[4, 12] = score
    anomaly_map[15, 5] = score / 2
    mask = np.zeros((20, 30), bool)
    if kind != GOOD:
        mask[14:17, 4:8] = True
    return Scored(
        sample=Sample(path=path, kind=kind),
        score=score,
        is_defect=score >= THRESHOLD,
        anomaly_map=anomaly_map,
        mask=mask if has_mask else None,
    )


def make_evaluation(root: Path, threshold: float | None = THRESHOLD) -> Evaluation:
    """Two good images, one of them called defective; three defects, one of them found."""
    scored = [make_scored(root, GOOD, "a.png", 0.3), make_scored(root, GOOD, "b.png", 0.7)]
    scored += [make_scored(root, "hole", f"{name}.png", score) for name, score in (("x", 0.4), ("y", 0.8), ("z", 0.2))]
    return summarise(scored, (), threshold)


def read_page(evaluation: Evaluation, root: Path, count: int = 8) -> PageReader:
    return PageReader(make_page(evaluation, root, "tiles on data", count=count))


def list_names(reader: PageReader) -> list[str]:
    """Return the files in the order of the page."""
    return [text.strip() for tag, text in reader.texts if tag == "h3"]


def test_the_lowest_defects_and_the_highest_good_images_come_first(tmp_path: Path) -> None:
    misses, alarms = pick_worst(make_evaluation(tmp_path), 2)
    assert [one.sample.path.name for one in misses] == ["z.png", "x.png"]
    assert [one.sample.path.name for one in alarms] == ["b.png", "a.png"]


def test_the_page_says_of_each_image_what_became_of_it(tmp_path: Path) -> None:
    reader = read_page(make_evaluation(tmp_path), tmp_path)
    names = ["test/hole/z.png", "test/hole/x.png", "test/hole/y.png", "test/good/b.png", "test/good/a.png"]
    assert list_names(reader) == names
    badges = [text for tag, text in reader.texts if tag == "b"]
    assert badges == ["missed", "missed", "found", "false alarm", "passed"]
    assert "2 of 3 defective images were missed" in reader.text
    assert "1 of 2 good images was called defective" in reader.text


def test_fewer_images_than_asked_for_are_all_there_is(tmp_path: Path) -> None:
    assert len(list_names(read_page(make_evaluation(tmp_path), tmp_path, count=1))) == 2
    assert len(list_names(read_page(make_evaluation(tmp_path), tmp_path, count=100))) == 5


def test_every_picture_has_an_alternative_text_and_asks_for_no_file(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path)
    page = make_page(evaluation, tmp_path, "tiles on data", count=8)
    images = PageReader(page).find("img")
    assert len(images) == 3 * 5 + 3  # three maps stay below the threshold
    assert all(one["src"].startswith("data:image/jpeg;base64,") for one in images)
    assert len({one["alt"] for one in images}) == len(images)
    assert all("test/" in one["alt"] for one in images)
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page


def test_a_map_below_the_threshold_is_shown_stretched_too(tmp_path: Path) -> None:
    scored = [make_scored(tmp_path, "hole", name, score) for name, score in (("x.png", 0.1), ("y.png", 0.5))]
    alts = [one["alt"] for one in read_page(summarise(scored, (), THRESHOLD), tmp_path).find("img")]
    assert [alt for alt in alts if "stretched" in alt] == [
        "the same map of test/hole/x.png, its colours stretched to its own peak"
    ]
    silent = Scored(**{**vars(scored[0]), "anomaly_map": np.zeros((20, 30), np.float32)})
    assert len(read_page(summarise([silent], (), THRESHOLD), tmp_path).find("img")) == 3


def test_the_figures_tell_the_peak_inside_of_the_mask_from_that_outside(tmp_path: Path) -> None:
    one = make_scored(tmp_path, "hole", "x.png", 0.4)
    assert measure_map(one.anomaly_map, one.mask) == MapFigures(
        peak_x_px=12,
        peak_y_px=4,
        mask_area_px=12,
        peak_inside=pytest.approx(0.2),
        peak_outside=pytest.approx(0.4),
        is_peak_in_mask=False,
    )
    text = read_page(make_evaluation(tmp_path), tmp_path).text
    assert "mask 12 px (2.00 %)" in text
    assert "peak inside of the mask 0.2000, outside 0.4000" in text
    assert "the peak lies outside" in text


def test_a_mask_of_the_whole_image_has_no_outside() -> None:
    figures = measure_map(np.ones((3, 4), np.float32), np.ones((3, 4), bool))
    assert figures.peak_outside is None and figures.is_peak_in_mask


def test_a_peak_that_the_mask_shares_with_its_surroundings_lies_in_it() -> None:
    mask = np.zeros((3, 4), bool)
    mask[2, 3] = True
    figures = measure_map(np.ones((3, 4), np.float32), mask)
    assert figures.is_peak_in_mask and (figures.peak_x_px, figures.peak_y_px) == (3, 2)


def test_an_image_without_a_usable_mask_is_shown_without_its_figures(tmp_path: Path) -> None:
    scored = [make_scored(tmp_path, GOOD, "a.png", 0.1), make_scored(tmp_path, "hole", "x.png", 0.2, has_mask=False)]
    text = read_page(summarise(scored, (), THRESHOLD), tmp_path).text
    assert "no usable mask" in text and "peak 0.2000 at x 12, y 4" in text


def test_without_a_threshold_nothing_is_called_missed(tmp_path: Path) -> None:
    reader = read_page(make_evaluation(tmp_path, None), tmp_path)
    assert [text for tag, text in reader.texts if tag == "b"] == []
    assert "has no threshold" in reader.text and "missed" not in reader.text.split("How to read")[0]
    assert list_names(reader)[0] == "test/hole/z.png"


def test_a_page_of_defects_alone_says_that_no_good_image_could_be_used(tmp_path: Path) -> None:
    reader = read_page(summarise([make_scored(tmp_path, "hole", "x.png", 0.2)], (), THRESHOLD), tmp_path)
    assert "No good image could be used" in reader.text


@pytest.mark.parametrize("name", ['<b>&".png', "\udcff.png", "a b'c.png"])
def test_a_name_with_signs_of_html_or_broken_bytes_is_shown_as_text(tmp_path: Path, name: str) -> None:
    one = make_scored(tmp_path, "hole", "x.png", 0.2)
    path = one.sample.path.rename(one.sample.path.with_name(name))
    moved = Scored(**{**vars(one), "sample": Sample(path=path, kind="ho<i>le")})
    write_page(summarise([moved], (), THRESHOLD), tmp_path, "tiles on data", tmp_path / "out/explain.html", count=8)
    reader = PageReader((tmp_path / "out/explain.html").read_text(encoding="utf-8"))
    assert "ho<i>le" in reader.text
    assert name.replace("\udcff", "?") in reader.text
    assert not reader.find("i")


def test_16_bit_colour_and_large_images_are_drawn(tmp_path: Path) -> None:
    path = write_png(tmp_path / "test/hole/x.png", np.full((700, 900, 3), 30000, np.uint16))
    scored = Scored(
        sample=Sample(path=path, kind="hole"),
        score=0.9,
        is_defect=True,
        anomaly_map=np.full((700, 900), 0.9, np.float32),
        mask=None,
    )
    assert len(read_page(summarise([scored], (), THRESHOLD), tmp_path).find("img")) == 3


def test_a_maps_own_threshold_is_what_the_page_draws(tmp_path: Path) -> None:
    evaluation = replace(make_evaluation(tmp_path), threshold=1000.0)
    own = replace(evaluation, map_threshold=THRESHOLD)
    pages = [make_page(one, tmp_path, "tiles", count=8) for one in (evaluation, own)]
    drawn = [[one["src"] for one in PageReader(page).find("img")] for page in pages]
    assert drawn[1] == [one["src"] for one in read_page(make_evaluation(tmp_path), tmp_path).find("img")] != drawn[0]
    named = [" ".join(PageReader(page).text.split()).count("the map's threshold, 0.5000") for page in pages]
    assert named == [0, 2]  # of outlines and of colours


def test_maps_far_above_1_have_unlike_colours_without_a_threshold_and_stretched(tmp_path: Path) -> None:
    scored = []
    for factor in (1.0, 1.5, 50.0):
        one = make_scored(tmp_path, "hole", "x.png", 0.9)
        scored.append(replace(one, score=0.9 * factor, anomaly_map=one.anomaly_map * np.float32(factor)))
    pages = [read_page(summarise([one], (), 100.0), tmp_path) for one in scored]
    assert len({page.find("img")[2]["src"] for page in pages}) == 1  # stretched
    assert "the middle of the colours is 22.5." in read_page(summarise(scored[2:], (), None), tmp_path).text


def count_outlined(one: Scored, root: Path) -> int:
    """Return how many pixels of the marked picture have the colour of outlines."""
    url = describe_image(one, root, THRESHOLD, 65535)["marked"]
    content = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    blue, green, red = np.moveaxis(cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int), 2, 0)
    return int(((blue > 200) & (green > 200) & (red < 80)).sum())


def test_outlines_regions_that_count_alone(tmp_path: Path) -> None:
    whole = make_scored(tmp_path, GOOD, "a.png", 0.9)
    whole.anomaly_map[8:14, 20:28] = whole.anomaly_map[13:18, 2:8] = 0.9
    large = np.zeros((20, 30), np.bool_)
    large[8:14, 20:28] = True
    counts = [count_outlined(replace(whole, large=one), tmp_path) for one in (None, large)]
    assert counts[0] > counts[1] > 0
    assert count_outlined(replace(whole, is_defect=False), tmp_path) == 0
