"""The reader that needs NumPy alone gives what the library gives, and refuses what is no such file."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ndp_rt.bundle.tensors import DTYPES, read_with_numpy
from ndp_rt.errors import BundleError
from tests.bricks import BRICKS


@pytest.mark.parametrize("name", ["golden.safetensors", "reference.safetensors"])
def test_reads_what_the_library_reads(name: str) -> None:
    ours, theirs = read_with_numpy(BRICKS / name), load_file(BRICKS / name)
    assert sorted(ours) == sorted(theirs)
    assert all(np.array_equal(ours[one], theirs[one]) and ours[one].dtype == theirs[one].dtype for one in theirs)


def test_reads_every_type_it_names_and_tensors_of_any_shape(tmp_path: Path) -> None:
    tensors = {kind: np.arange(6).astype(dtype).reshape(1, 2, 3) for kind, dtype in DTYPES.items()}
    tensors |= {"scalar": np.array(3.5, np.float32), "none": np.zeros((0, 4), np.uint8)}
    save_file(tensors, tmp_path / "x", {"a": "note"})
    ours = read_with_numpy(tmp_path / "x")
    assert all(np.array_equal(ours[one], tensors[one]) for one in tensors) and len(ours) == len(tensors)


def write(path: Path, header: object, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        7,
    ],
)
def test_refuses_tensors_that_are_not_in_the_file(tmp_path: Path, entry: object) -> None:
    with pytest.raises(BundleError, match=r"x: cannot be read as safetensors"):
        read_with_numpy(write(tmp_path / "x", {"a": entry}, bytes(8)))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 16, (4).to_bytes(8, "little") + b"oops"])
def test_refuses_what_is_no_such_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(BundleError, match=r"x: cannot be read as safetensors"):
        read_with_numpy(tmp_path / "x")
