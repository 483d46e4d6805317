"""The record of what boxes cost: it says what was timed, and whether the boxes were right."""

import json
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bench.defect_boxes import REGION_COUNTS, count_wrong, main, make_map
from ndp_rt.decide.regions import list_defects


def test_appends_a_record_of_times_beside_wrong_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "boxes.jsonl"
    assert main(["--rounds", "2", "-o", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["wrong_box_count"] == 0
    assert list(record["times_ms"]) == [str(count) for count in REGION_COUNTS]
    assert all(0 < times["p50"] <= times["p99"] for times in record["times_ms"].values())
    assert record["command"].startswith("python -m ndp_rt.bench.defect_boxes --rounds 2")
    assert "0 wrong" in capsys.readouterr().out


def test_counts_boxes_that_are_missing_moved_or_of_another_size(rng: np.random.Generator) -> None:
    smoothed, corners = make_map(10, 256, rng)
    defects = list_defects(smoothed, 0.5, 256, 256)
    assert count_wrong(defects, corners) == 0
    assert count_wrong(defects[1:], corners) == 1
    assert count_wrong((*defects, defects[0]), corners) == 1
    assert count_wrong(list_defects(smoothed[1:], 0.5, 255, 256), corners) >= len(corners)


def test_refuses_a_map_without_room_for_the_regions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--size", "128"])
    assert "--size is a multiple of 8 from 256" in capsys.readouterr().err
