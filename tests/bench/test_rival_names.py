"""Words of --against: what each names, what groups stand for, and that names alone load no engine."""

import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.bench.models import LATER, PAPER
from ndp_rt.bench.rivals import NAMES, expand, find_rival
from ndp_rt.bench.rivals.modules import ANOMALIB
from ndp_rt.errors import InputError


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_name_of_a_device_is_a_rival_with_that_name(device: str) -> None:
    for name in (*NAMES[device], *PAPER, *LATER, *(f"anomalib:{name}" for name in ANOMALIB)):
        rival = find_rival(name, device)
        assert rival.name == name and rival.precisions[0] == "fp32"


def test_precisions_are_those_that_the_device_is_fast_in() -> None:
    found = {(device, name): find_rival(name, device).precisions for device in NAMES for name in NAMES[device]}
    assert (
        found["cpu", "pytorch"] == found["cpu", "torch-compile"] == found["cpu", "openvino-plain"] == ("fp32", "bf16")
    )
    assert found["cpu", "onnxruntime"] == ("fp32",)
    assert "fp16" in found["cuda", "pytorch"]


def test_groups_stand_for_their_members_and_nothing_comes_twice() -> None:
    assert expand(["pytorch", "paper", "padim", "pytorch"], "cpu") == ("pytorch", *PAPER)
    assert expand(["anomalib"], "cuda") == tuple(f"anomalib:{name}" for name in ANOMALIB)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("pytroch", "names 'pytroch'. Choose one of pytorch, torch-compile, .*Did you mean pytorch?"),
        ("PaDiM", "Did you mean padim?"),
        ("tensorrt-fused", "is for cuda; the device is cpu.*--device cuda"),
        ("anomalib:Nothing", "names 'anomalib:Nothing'. Choose anomalib: and one of Cflow"),
        ("missing.onnx", "missing.onnx: is no file"),
        ("", "names ''"),
    ],
)
def test_what_is_no_rival_is_refused_with_what_is_taken(word: str, words: str) -> None:
    for call in (lambda: find_rival(word, "cpu"), lambda: expand([word], "cpu")):
        with pytest.raises(InputError, match=words.replace("?", r"\?")):
            call()


def test_an_architecture_by_openvino_is_for_the_cpu() -> None:
    assert find_rival("padim", "cpu", models_on="openvino").name == "padim"
    with pytest.raises(InputError, match="'openvino' on 'cuda'"):
        find_rival("padim", "cuda", models_on="openvino")
    with pytest.raises(InputError, match="runtime 'abacus'"):
        find_rival("padim", "cpu", models_on="abacus")


def test_names_load_no_engine(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    code = f"""
import sys
from ndp_rt.bench.rivals import NAMES
print(sorted({{"numpy"}} & set(sys.modules)))
from ndp_rt.bench.rivals import expand, find_rival
expand(["paper", "anomalib", {str(tmp_path / "model.onnx")!r}], "cpu")
for device in NAMES:
    for name in NAMES[device]:
        find_rival(name, device)
print(sorted({{"torch", "onnxruntime", "openvino", "onnx", "anomalib", "tensorrt", "cupy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
