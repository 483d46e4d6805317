"""Finding ops: built-in ones by their folders, others by the entry points of what is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels import registry
from ndp_rt.kernels.op import CuttingOp
from ndp_rt.kernels.registry import find_op

TOY_OP = """
class Doubled:
    name = "doubled"
OP = Doubled()
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with a package that brings the op `doubled` and two that cannot be loaded."""
    (tmp_path / "toy_ops.py").write_text(TOY_OP)
    info = tmp_path / "toy_ops-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-ops\nVersion: 1.0\n")
    points = "doubled = toy_ops:OP\ngone = not_there:OP\nempty = toy_ops:NOTHING\nrbfrm = toy_ops:OP\n"
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["fuse_maps", "nearest_neighbour", "nearest_sample", "rbfrm"])
def test_an_op_is_found_by_its_folder(name: str) -> None:
    assert find_op(name).name == name


def test_fuse_maps_can_be_cut_off_a_graph_and_rbfrm_cannot() -> None:
    assert isinstance(find_op("fuse_maps"), CuttingOp)
    assert not isinstance(find_op("rbfrm"), CuttingOp)


@pytest.mark.parametrize("name", ["dilate", "load", "shared", "", "../rbfrm", "rbfrm.op"])
def test_an_unknown_op_is_an_error_that_names_the_known_ones(name: str) -> None:
    with pytest.raises(
        InputError,
        match=rf"op: expected one of .*fuse_maps, nearest_neighbour, nearest_sample, rbfrm.*, got '{name}'\.",
    ):
        find_op(name)


def test_another_package_brings_an_op_but_replaces_none(installed: Path) -> None:
    assert find_op("doubled").name == "doubled"
    assert find_op("rbfrm").name == "rbfrm"
    with pytest.raises(
        InputError, match="expected one of doubled, empty, fuse_maps, gone, nearest_neighbour, nearest_sample, rbfrm"
    ):
        find_op("dilate")


@pytest.mark.parametrize(("name", "problem"), [("gone", "No module named 'not_there'"), ("empty", "NOTHING")])
def test_an_op_that_cannot_be_loaded_is_named(installed: Path, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"op '{name}' of .* cannot be loaded: .*{problem}"):
        find_op(name)


def test_a_built_in_op_is_found_without_asking_what_is_installed_and_loads_nothing_heavy() -> None:
    code = """
import sys
from ndp_rt.kernels import registry
def refuse(**group): raise AssertionError("entry points were asked for")
registry.entry_points = refuse
assert registry.find_op("fuse_maps").name == "fuse_maps"
heavy = {"cv2", "onnx", "cupy", "ndp_rt.kernels.rbfrm.op", "ndp_rt.kernels.fuse_maps.launch"}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "loaded: []", done.stderr
