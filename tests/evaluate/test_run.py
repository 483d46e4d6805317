"""Evaluation: which images count for which figure, what is left out and said, what is written."""

from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.cli.evaluate import make_table
from ndp_rt.errors import InputError, StorageError
from ndp_rt.evaluate.dataset import Sample, list_samples
from ndp_rt.evaluate.plots import draw_scores, format_figure, spread_points
from ndp_rt.evaluate.record import write_record
from ndp_rt.evaluate.run import Evaluation, summarise
from ndp_rt.evaluate.score_samples import Scored, score_samples
from tests.evaluate.test_dataset import make_data, write_png


@dataclass
class Seen:
    """What an inspection of a plain image gives: its brightness is the score."""

    score: float
    anomaly_map: np.ndarray
    is_defect: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_defect = self.score >= 0.5


class BrightnessInspector:
    """Calls bright pixels defective; stands in for an inspector, which needs an engine."""

    def inspect(self, image: np.ndarray) -> Seen:
        if image.shape[0] == 1:
            raise InputError("image is uint8 [1, 1]; this one takes more")
        pixels = (image if image.ndim == 2 else image[..., 0]).astype(np.float32) / 255
        return Seen(score=float(pixels.max()), anomaly_map=pixels)


def evaluate(root: Path) -> Evaluation:
    advanced: list[None] = []
    samples = list_samples(root)
    scored, exclusions = score_samples(BrightnessInspector().inspect, samples, lambda: advanced.append(None))
    assert len(advanced) == len(samples)
    return summarise(scored, exclusions, 0.5)


def make_bright_data(root: Path) -> Path:
    """Write two dark good images and two images with a bright defect, exactly where their masks are."""
    make_data(root)
    image = np.full((6, 8), 90, np.uint8)
    image[2:4, 3:5] = 250
    mask = np.where(image == 250, 255, 0).astype(np.uint8)
    for kind in ("crack", "hole"):
        write_png(root / f"test/{kind}/a.png", image)
        write_png(root / f"ground_truth/{kind}/a_mask.png", mask)
    return root


def test_a_perfect_inspector_has_ones_everywhere(tmp_path: Path) -> None:
    evaluation = evaluate(make_bright_data(tmp_path))
    for row in (evaluation.overall, *evaluation.kinds):
        assert (row.image_rocauc, row.pixel_rocauc, row.aupro) == (1.0, 1.0, 1.0)
    assert [row.kind for row in evaluation.kinds] == ["crack", "hole"]
    assert evaluation.confusion is not None
    assert evaluation.confusion.to_json() == {
        "found_count": 2,
        "missed_count": 0,
        "false_alarm_count": 0,
        "passed_count": 2,
    }
    assert evaluation.exclusions == ()


def test_an_image_without_a_mask_counts_for_the_image_figures_alone(tmp_path: Path) -> None:
    evaluation = evaluate(make_data(tmp_path))
    hole = evaluation.kinds[1]
    assert (hole.image_count, hole.mask_count) == (1, 0)
    assert hole.image_rocauc == 0.5
    assert hole.pixel_rocauc is None and hole.aupro is None
    assert [(one.what, one.path.name) for one in evaluation.exclusions] == [("mask", "a.png")]
    assert "expected ground_truth/hole/a_mask.png" in evaluation.exclusions[0].reason


def test_a_mask_of_another_size_is_left_out_and_said(tmp_path: Path) -> None:
    make_bright_data(tmp_path)
    write_png(tmp_path / "ground_truth/crack/a_mask.png", np.full((3, 4), 255, np.uint8))
    evaluation = evaluate(tmp_path)
    assert evaluation.overall.mask_count == 1
    assert "image's 6 x 8 pixels, got 3 x 4" in evaluation.exclusions[0].reason


@pytest.mark.parametrize("content", [b"", b"no image at all", "cut"])
def test_an_unreadable_image_is_left_out_and_the_others_count(tmp_path: Path, content: bytes | str) -> None:
    make_bright_data(tmp_path)
    whole = (tmp_path / "test/good/a.png").read_bytes()
    (tmp_path / "test/good/c.png").write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    evaluation = evaluate(tmp_path)
    assert [(one.what, one.path.name) for one in evaluation.exclusions] == [("image", "c.png")]
    assert evaluation.overall.image_rocauc == 1.0
    assert evaluation.to_json(tmp_path)["excluded"][0]["path"] == "test/good/c.png"


def test_an_image_that_the_inspector_refuses_is_left_out(tmp_path: Path) -> None:
    make_bright_data(tmp_path)
    write_png(tmp_path / "test/good/tiny.png", np.zeros((1, 1), np.uint8))
    assert [one.path.name for one in evaluate(tmp_path).exclusions] == ["tiny.png"]


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("Insufficient memory")])
def test_memory_that_runs_out_leaves_one_image_out(tmp_path: Path, error: Exception) -> None:
    make_bright_data(tmp_path)
    samples = list_samples(tmp_path)
    if isinstance(error, cv2.error):
        error.code = cv2.Error.StsNoMem
    calls = list[int]()

    def inspect(image: np.ndarray) -> Seen:
        calls.append(len(calls))
        if len(calls) == 2:
            raise error
        return BrightnessInspector().inspect(image)

    scored, exclusions = score_samples(inspect, samples, lambda: None)
    assert len(scored) == len(samples) - 1 and [one.path for one in exclusions] == [samples[1].path]
    assert "too little memory" in exclusions[0].reason


def test_a_mistake_is_not_taken_for_an_image_that_cannot_be_used(tmp_path: Path) -> None:
    make_bright_data(tmp_path)

    def inspect(image: np.ndarray) -> Seen:
        raise ZeroDivisionError("a mistake")

    with pytest.raises(ZeroDivisionError, match="a mistake"):
        score_samples(inspect, list_samples(tmp_path), lambda: None)


def test_figures_are_missing_not_wrong_when_every_good_image_is_unreadable(tmp_path: Path) -> None:
    make_bright_data(tmp_path)
    for path in (tmp_path / "test/good").iterdir():
        path.write_bytes(b"")
    evaluation = evaluate(tmp_path)
    assert evaluation.overall.image_rocauc is None
    assert evaluation.overall.pixel_rocauc == 1.0  # the good pixels of the defective images remain
    write_record(evaluation.to_json(tmp_path), tmp_path / "evaluation.json")


def test_mixed_sizes_are_compared_at_their_own_size(tmp_path: Path) -> None:
    make_bright_data(tmp_path)
    image = np.full((9, 5), 10, np.uint8)
    image[4, 1:3] = 240
    write_png(tmp_path / "test/hole/b.png", image)
    write_png(tmp_path / "ground_truth/hole/b_mask.png", (image > 200).astype(np.uint8) * 255)
    assert evaluate(tmp_path).overall.aupro == 1.0


def test_the_table_shows_a_dash_where_there_is_no_figure(tmp_path: Path) -> None:
    from rich.console import Console

    stream = StringIO()
    Console(width=120, file=stream).print(make_table(evaluate(make_data(tmp_path)), "tiles [1] on data"))
    text = stream.getvalue()
    assert "tiles [1] on data" in text
    assert [word for word in text.split() if word == "-"] == ["-", "-"]


def test_without_a_threshold_areas_stay_and_decisions_go(tmp_path: Path) -> None:
    before = evaluate(make_bright_data(tmp_path))
    evaluation = summarise(before.scored, [], None)
    assert evaluation.overall.image_rocauc == 1.0
    assert evaluation.overall.flagged_count is None
    written = evaluation.to_json(tmp_path)
    assert written["confusion"] is None
    assert {image["is_defect"] for image in written["images"]} == {None}


def make_evaluation(rng: np.random.Generator, kind_count: int) -> Evaluation:
    pixels = np.zeros((2, 2), np.float32)
    scored = []
    for index in range(kind_count + 1):
        kind = "good" if index == 0 else f"kind_{index}"
        for _ in range(20):
            score = float(rng.normal(0.2 + 0.1 * index, 0.05))
            sample = Sample(path=Path("x.png"), kind=kind)
            scored.append(Scored(sample=sample, score=score, is_defect=score > 0.4, anomaly_map=pixels, mask=None))
    return summarise(scored, [], 0.4)


@pytest.mark.parametrize("kind_count", [1, 12])
def test_draws_a_row_for_each_kind(tmp_path: Path, rng: np.random.Generator, kind_count: int) -> None:
    path = tmp_path / "scores.png"
    draw_scores(make_evaluation(rng, kind_count), "tiles on data", path)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[1] == 1080
    assert picture.std() > 5


def test_a_picture_that_cannot_be_written_is_a_storage_error(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        draw_scores(make_evaluation(rng, 1), "tiles on data", tmp_path / "missing" / "scores.png")


def test_points_of_a_row_stay_inside_it() -> None:
    offsets = spread_points(500)
    assert np.abs(offsets).max() < 0.3
    assert format_figure(None) == "-"
