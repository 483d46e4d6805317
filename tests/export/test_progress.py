"""Losses on disk, their picture, and what the console shows."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from ndp_rt.export.training.progress import (
    BarReporter,
    LineReporter,
    make_reporter,
    plot_losses,
    read_losses,
    write_losses,
)
from ndp_rt.images.read import read_image

ROWS = [
    {"phase": 1, "step": 25, "learning_rate": 1e-3, "rec": 0.5, "def_per": 0.02},
    {"phase": 2, "step": 25, "learning_rate": 1e-3, "rec": 0.25, "fea_rep": 0.01, "seg": 0.125},
]


def test_losses_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_losses(tmp_path / "losses.csv", ROWS)
    assert read_losses(tmp_path / "losses.csv") == ROWS
    assert read_losses(tmp_path / "missing.csv") == []


def test_losses_of_a_teacher_get_columns_only_where_there_is_one(tmp_path: Path) -> None:
    rows = [{**ROWS[1], "dist_map": 0.0625}]
    write_losses(tmp_path / "taught.csv", rows)
    assert read_losses(tmp_path / "taught.csv") == rows
    write_losses(tmp_path / "plain.csv", ROWS)
    assert "dist" not in (tmp_path / "plain.csv").read_text()


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_the_curve_is_a_picture(tmp_path: Path, rows: list[dict[str, float | int]]) -> None:
    pytest.importorskip("matplotlib", reason="needs Matplotlib: pip install -e '.[evaluate]'")
    plot_losses(tmp_path / "curve.png", rows)
    assert read_image(tmp_path / "curve.png").ndim == 3


def test_lines_name_step_losses_and_time_left() -> None:
    text = io.StringIO()
    reporter = make_reporter(Console(file=text, width=200))
    assert isinstance(reporter, LineReporter)
    reporter.start(2, 10, 20)
    reporter.advance(11, {"rec": 0.5, "seg": 0.01})  # too soon for a line
    reporter.advance(20, {"rec": 0.25, "seg": 0.01})
    reporter.say("[done]")
    reporter.stop()
    assert text.getvalue() == "phase 2: step 20/20, rec 0.25 seg 0.01, 0.0 min left\n[done]\n"


def test_terminals_get_a_bar() -> None:
    text = io.StringIO()
    reporter = make_reporter(Console(file=text, width=120, force_terminal=True))
    assert isinstance(reporter, BarReporter)
    reporter.start(1, 0, 4)
    reporter.advance(4, {"rec": 0.5})
    reporter.stop()
    assert "phase 1" in text.getvalue()
    assert "rec 0.5" in text.getvalue()
