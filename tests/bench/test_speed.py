"""The comparison of a rewritten and a plain graph: what it records, and what it refuses to compare."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndp_rt.bench.speed import describe, main, summarise_ratios
from tests.tiny_bundle import make_tiny_bundle
from tests.tolerances import assert_close


def make_rewritten(path: Path, seed: int = 0) -> None:
    """Write a tiny bundle whose manifest says that its graph was rewritten."""
    make_tiny_bundle(path, seed=seed)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["model"]["rewrites"] = ["fold-batch-norm"]
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("speed")
    make_rewritten(root / "rewritten.ndp")
    make_tiny_bundle(root / "plain.ndp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(root / "cache"))
        patch.chdir(root)
        yield root


def test_appends_a_record_with_errors_beside_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["rewritten.ndp", "plain.ndp", "--seconds", "0.1", "--threads", "1", "-o", "speed.jsonl"]
    assert [main(arguments), main(arguments)] == [0, 0]
    lines = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    record = lines[0]
    assert record["pair_count"] >= 5
    assert record["command"].startswith("python -m ndp_rt.bench.speed rewritten.ndp plain.ndp")
    for side in record["sides"]:
        assert 0 <= side["map_max_abs_error"] < 1e-4
        assert side["engine_ms"]["p50"] > 0
        assert 0 < side["outside_engine_share"] < 1
    ratio = record["plain_over_rewritten"]
    assert ratio["p10"] <= ratio["median"] <= ratio["p90"]
    assert "times as fast as plain" in capsys.readouterr().out


def test_refuses_two_different_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_bundle(folder / "other.ndp", seed=1)
    assert main(["rewritten.ndp", "other.ndp", "--seconds", "0", "-o", "x.jsonl"]) == 1
    assert "answer differently" in capsys.readouterr().err
    assert not (folder / "x.jsonl").exists()


def test_refuses_bundles_in_the_wrong_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plain.ndp", "rewritten.ndp", "--seconds", "0", "-o", "x.jsonl"]) == 1
    assert "the second with --no-rewrite" in capsys.readouterr().err


def test_ratios_are_taken_pair_by_pair() -> None:
    ratio = summarise_ratios([2.0, 20.0, 6.0], [1.0, 10.0, 2.0])
    assert_close(ratio["median"], 2.0, "metric", "float64")
    assert describe([1.0, 2.0, 3.0])["p50"] == 2.0
