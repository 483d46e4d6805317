"""Engines of imported models are held to their golden vectors as shares of each result's own range."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ndp_rt import import_onnx
from ndp_rt.engines.golden_report import compare_golden
from ndp_rt.errors import EngineError
from tests.importing.models import MAP_OUTPUT, PEAK, RAW, write_model

SMALL_MAP_LARGE_SCORE = """
  small = Constant <value = float {0.0001}> ()
  anomaly_map = Mul(raw, small)
  large = Constant <value = float {1000.0}> ()
  score = Mul(peak, large)
"""


@pytest.mark.parametrize("changed", ["map", "score"])
def test_an_engine_that_is_off_by_a_little_of_a_results_range_is_refused(tmp_path: Path, changed: str) -> None:
    model = write_model(tmp_path / "m.onnx", RAW + PEAK + SMALL_MAP_LARGE_SCORE, f"{MAP_OUTPUT}, float[N] score")
    bundle = import_onnx(model, tmp_path / "m.ndp").bundle
    golden = bundle.golden()
    assert golden.map.max() < 1e-2
    assert golden.score.max() > 1e3

    def check(found: float) -> None:
        given = dataclasses.replace(golden, **{changed: getattr(golden, changed) * np.float32(found)})
        compare_golden(
            bundle,
            golden,
            lambda images: (given.map[:1], given.score[:1]),
            precision="fp32",
            batch=1,
            vector_count=1,
        )

    check(1.0)
    check(1.00001)
    with pytest.raises(EngineError, match="disagrees with the bundle's golden vectors"):
        check(1.001)
