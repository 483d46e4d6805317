"""The project's own records, and the figures that README.md and docs/figures.md take from them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bench.models import LATER, PAPER
from ndp_rt.bench.read_records import FORMAT, FORMAT_VERSION

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bench" / "results" / "bench"
RECORDS = sorted(FOLDER.glob("*.jsonl"))
FIGURES = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_are_complete_and_every_time_has_its_error(path: Path) -> None:
    records = read_lines(path)
    timed = {row["name"] for record in records for row in record["rows"]}
    for record in records:
        assert (record["format"], record["format_version"]) == (FORMAT, FORMAT_VERSION)
        assert record["is_complete"] and record["refused"].keys() <= timed  # what failed came through later
        assert record["command"].startswith("ndp-rt bench runs/")
        for row in record["rows"]:
            check = row["check"]
            assert 0 <= check["map_max_abs_difference"] <= check["allowed"]
        found = record["rows"] or [record[record["mode"]]]
        assert found


@pytest.mark.parametrize(("name", "first"), [("edge-int8", 1), ("paper-int8", 5)])
def test_the_pages_figures_are_the_records(name: str, first: int) -> None:
    rows = read_lines(FOLDER / f"{name}.jsonl")[0]["rows"]
    line = re.compile(r"^\| `(.+?)` " + r"\| (.+?) " * 8 + r"\|$", re.MULTILINE)
    told = {found[0]: found[first : first + 4] for found in line.findall(FIGURES.replace("**", ""))}
    expected = {}
    for row in rows:
        ratio, accuracy = row["ratio"]["median"] if "ratio" in row else 1.0, row["accuracy"]
        areas = (f"{accuracy[area]:.3f}".removeprefix("0") for area in ("image_rocauc", "aupro"))
        expected[row["name"]] = (
            f"{row['latency']['p50_ms']:.1f}",
            f"{ratio:.2f}",
            f"{row['check']['map_max_abs_difference']:.1e}",
            ", ".join(areas),
        )
    assert told == expected


def test_the_readmes_figures_are_those_of_the_last_record() -> None:
    record = read_lines(FOLDER / "memseg.jsonl")[-1]
    expected = {}
    for row in record["rows"]:
        bundle = record["bundle"]["name"] if row["name"].startswith("ndp-rt") else row["name"]
        expected[bundle.split("_")[0], row["precision"]] = f"{row['latency']['p50_ms']:.1f}"
    lines = re.findall(r"^\| `(\w+)`, (\w+).*? \| ([\d.]+) \|$", README, re.MULTILINE)
    assert {(name, precision): told for name, precision, told in lines} == expected


@pytest.mark.parametrize(
    ("name", "before"),
    [("methods", r"random weights, so\s+time\s+alone\): "), ("methods-openvino", r"methods-openvino\.jsonl`\): ")],
)
def test_the_pages_other_methods_are_the_records(name: str, before: str) -> None:
    rows = [row for record in read_lines(FOLDER / f"{name}.jsonl") for row in record["rows"]]
    expected = {
        row["contender"]: f"{ratio:.2f}" if (ratio := row["ratio"]["median"]) < 10 else f"{ratio:.0f}"
        for row in rows
        if row["kind"] == "other network"
    }
    sentence = re.search(before + r"(.+?)\.\n\n", FIGURES, re.DOTALL)
    assert sentence is not None
    assert dict(re.findall(r"`([a-z-]+)`\s+([\d.]+\d|\d)", sentence[1])) == expected
    assert name != "methods" or expected.keys() == {*PAPER, *LATER}
