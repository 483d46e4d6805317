"""One bundle answers the same bits before and after any change of the code."""

import json
from pathlib import Path

import pytest

from tests.identity import answers


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("case", answers.CASES, ids=answers.name_case)
def test_answers_are_those_that_were_recorded(
    case: tuple[str, str, str, tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = answers.describe_machine()
    records = {json.dumps(one["machine"]): one["answers"] for one in json.loads(answers.RECORD.read_text())}
    expected = records.get(json.dumps(machine))
    if expected is None:
        pytest.skip(f"answers were recorded for other machines than {machine}: python -m tests.identity.answers")
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    assert answers.compute_answers(answers.make_bundle(tmp_path), case) == expected[answers.name_case(case)]
