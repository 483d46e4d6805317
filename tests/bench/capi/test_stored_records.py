"""The project's own records of the C face, and the figures that docs/capi.md takes from them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bench.capi.figures import Figure, show

ROOT = Path(__file__).parents[3]
RECORDS = sorted((ROOT / "bench" / "results" / "capi").glob("*.jsonl"))


def read_records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_are_complete_and_nothing_failed(path: Path) -> None:
    for record in read_records(path):
        assert record["format"] == "ndp-rt bench capi" and record["is_complete"]
        assert record["failures"] == {} and record["figures"]
        wrong = [one for one in record["figures"] if "wrong answers" in one["name"]]
        assert all(one["reached"] == 0 for one in wrong)


def test_the_pages_figures_are_the_last_records() -> None:
    expected = {}
    for path in RECORDS:
        for values in read_records(path)[-1]["figures"]:
            figure = Figure(**{name: value for name, value in values.items() if name != "is_met"})
            verdict = "reached" if figure.is_met else "**missed**"
            expected[figure.name] = (figure.asked, show(figure.reached, figure.unit), verdict)
    page = (ROOT / "docs" / "capi.md").read_text(encoding="utf-8").split("## Figures")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", page, flags=re.MULTILINE)
    assert {name: (asked, reached, verdict) for name, asked, reached, verdict in rows} == expected
