"""int8.json: what is written is read, and what is damaged is refused."""

import json
from pathlib import Path

import pytest

from ndp_rt.bundle.int8_layers import Int8Layers, read_int8_layers
from ndp_rt.errors import BundleError

LAYERS = Int8Layers(limits={"a": 1.5, "b": 2.0}, chosen={"int8": ("a", "b"), "mixed": ("b",)}, report={"note": 1})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "int8.json"
    path.write_bytes(LAYERS.to_bytes())
    found = read_int8_layers(path)
    assert found == LAYERS
    assert found.limits_of("mixed") == {"b": 2.0} and found.limits_of("fp32") == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "got 'other' version 1"),
        ({"format_version": 2}, "expected 'ndp-rt int8 layers' version 1, got 'ndp-rt int8 layers' version 2"),
        ({"limits": {"a": 0.0, "b": 1.0}}, "expected limits above 0, got none for some layer"),
        ({"limits": {"a": 1.0}}, "limits above 0, got none for b"),
        ({"limits": [1]}, "cannot be read"),
        ({"chosen": {"int8": 3}}, "cannot be read"),
        ({"report": None}, "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "int8.json"
    path.write_text(json.dumps(json.loads(LAYERS.to_bytes()) | change))
    with pytest.raises(BundleError, match=words) as caught:
        read_int8_layers(path)
    assert "ndp-rt quantise NAME.ndp" in str(caught.value)


def test_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "int8.json"
    path.write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        read_int8_layers(path)
