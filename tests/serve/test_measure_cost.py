"""The measurement of a service runs, and what is served is what is inspected."""

import json
from pathlib import Path

import pytest

from tests.serve.measure_cost import CLIENT_COUNT, main
from tests.tiny_bundle import make_tiny_bundle


@pytest.mark.nightly
def test_a_service_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = make_tiny_bundle(tmp_path / "tiny.ndp").path
    main([str(path), "--count", "3", "--rounds", "2", "--seconds", "0.1"])
    record = json.loads(capsys.readouterr().out)
    assert record["one client, ms"]["score differences"] == [0.0, 0.0]
    assert record["one client, ms"]["tritonclient gRPC"]["p50"] > 0
    many = record[f"{CLIENT_COUNT} connections"]
    assert many["served"] > 0 and many["p99"] > 0 and many["ratio"] > 0
