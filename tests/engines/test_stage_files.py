"""Typed stages as files: the same bytes each time, read back without onnx, refused when changed."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from ndp_rt.bundle import Bundle, write_bundle
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers
from ndp_rt.cli import main
from ndp_rt.engines.stage_files import STAGES_FILE, StageFolder, check_stages, open_stages, write_stages
from ndp_rt.errors import BundleError, EngineError, InputError, StorageError


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> StageFolder:
    return write_stages(bundle, "fp16", tmp_path / "stages")


@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
def test_reading_gives_what_was_written(bundle: Bundle, tmp_path: Path, plan: str) -> None:
    written = write_stages(bundle, "bf16", tmp_path, plan=plan)
    assert open_stages(tmp_path) == written
    assert (written.bundle_name, written.bundle_fingerprint) == ("tiny", bundle.fingerprint)
    assert (written.precision, written.plan, tuple(written.stages)) == (
        "bf16",
        plan,
        bundle.manifest.programs["cuda"][plan].stages,
    )
    for stage in written.stages.values():
        graph = onnx.load(str(stage.path)).graph
        assert [value.name for value in graph.input] == list(stage.inputs)
        for value in graph.output:
            spec = stage.outputs[value.name]
            assert spec.dtype == ("float32" if value.name.startswith("am") else "bfloat16")
            assert spec.to_dims() == [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_int8_stages_have_the_bundles_layers_and_are_refused_once_others_are_chosen(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Those of images of their own have all layers, whatever is chosen in the bundle."""
    changed = [choose_layer(bundle, tmp_path / name, name) for name in ("encoder_2", "encoder_3")]
    written = write_stages(changed[0], "int8", tmp_path / "stages")
    graph = onnx.load(str(written.stages["encoder"].path)).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 2  # what the layer reads, and its weights
    check_stages(written, changed[0], "int8", "staged")
    with pytest.raises(BundleError, match=r"are of another bundle than \S+, .* or have int8 layers that it had before"):
        check_stages(written, changed[1], "int8", "staged")
    own = write_stages(changed[0], "int8", tmp_path / "own", calibration=bundle.golden().image)
    for one in (bundle, *changed):
        check_stages(own, one, "int8", "staged")


def choose_layer(bundle: Bundle, folder: Path, name: str) -> Bundle:
    """Return a copy of a bundle, in a new folder, in which one layer computes in int8."""
    files: dict[str, bytes | Path] = {name: bundle.path / name for name in bundle.manifest.files}
    files[INT8_FILE] = Int8Layers(limits={name: 1.0}, chosen={"int8": (name,)}).to_bytes()
    return write_bundle(folder / "tiny.ndp", manifest_without_files=bundle.manifest, files=files)


def test_the_same_bundle_gives_the_same_bytes(folder: StageFolder, bundle: Bundle, tmp_path: Path) -> None:
    again = write_stages(bundle, "fp16", tmp_path / "again")
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == ["encoder.onnx", STAGES_FILE, "tail.onnx"]
    for name in names:
        assert (folder.path / name).read_bytes() == (again.path / name).read_bytes(), name


def test_another_process_gives_the_same_bytes(folder: StageFolder, bundle: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ndp_rt.bundle import open_bundle; "
        "from ndp_rt.engines.stage_files import write_stages; "
        "write_stages(open_bundle(sys.argv[1]), 'fp16', Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle.path), str(tmp_path / "other")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for path in folder.path.iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_reading_needs_no_onnx(folder: StageFolder) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; from pathlib import Path; "
        "from ndp_rt.engines.stage_files import open_stages; print(*open_stages(Path(sys.argv[1])).stages)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "encoder tail\n"), done.stderr


def test_a_changed_or_missing_file_is_refused(folder: StageFolder) -> None:
    path = folder.stages["tail"].path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"tail\.onnx: is missing, cut short or changed.*export-stages"):
        open_stages(folder.path)
    path.unlink()
    with pytest.raises(BundleError, match=r"tail\.onnx: is missing"):
        open_stages(folder.path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"format_version": 1',
            '"format_version": 2',
            "expected 'ndp-rt stages' version 1, got 'ndp-rt stages' version 2",
        ),
        (
            '"file": "tail.onnx"',
            '"file": "../tail.onnx"',
            r"expected the name of a file directly in it, got '\.\./tail\.onnx'",
        ),
        ('"plan": "staged"', '"plans": "staged"', "KeyError"),
        ("{", "", "cannot be read"),
    ],
)
def test_a_changed_description_is_refused(folder: StageFolder, old: str, new: str, words: str) -> None:
    text = (folder.path / STAGES_FILE).read_text()
    (folder.path / STAGES_FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError, match=words):
        open_stages(folder.path)


def test_no_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"stages\.json: cannot be read"):
        open_stages(tmp_path / "none")


def test_a_folder_with_files_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="expected an empty folder, or a new one"):
        write_stages(bundle, "fp16", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StorageError, match="cannot be written"):
        write_stages(bundle, "fp16", tmp_path / "mine.txt")


def test_other_precisions_and_plans_are_refused_before_anything_is_written(bundle: Bundle, tmp_path: Path) -> None:
    for precision, plan in (("int4", "staged"), ("fp16", "quick")):
        with pytest.raises(InputError):
            write_stages(bundle, precision, tmp_path / "stages", plan=plan)
    assert not (tmp_path / "stages").exists()


def test_a_graph_that_onnx_refuses_is_not_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: object, full_check: bool) -> None:
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr("onnx.checker.check_model", refuse)
    with pytest.raises(EngineError, match="onnx's checker refuses stage 'encoder': no"):
        write_stages(bundle, "fp16", tmp_path / "stages")
    assert not (tmp_path / "stages").exists()


def test_the_command_writes_a_folder(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export-stages", str(bundle.path), "--precision", "tf32", "--plan", "fused", "-o", str(out)]) == 0
    (stage,) = open_stages(out).stages.values()
    assert hashlib.sha256(stage.path.read_bytes()).hexdigest() == stage.sha256
    assert json.loads((out / STAGES_FILE).read_text())["precision"] == "tf32"
    printed = capsys.readouterr().out
    assert f"{out}: tf32, plan fused" in printed and "image -> reconstruction, am1, am2, am3" in printed
    assert main(["export-stages", str(bundle.path), "-o", str(out)]) == 1
    assert "expected an empty folder, or a new one" in capsys.readouterr().err
