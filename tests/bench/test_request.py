"""What a benchmark is asked for: who takes part, and every word that is not taken."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bench.request import BenchRequest, list_specs
from ndp_rt.bench.timed.spec import TimedSpec
from ndp_rt.errors import InputError
from tests.bricks import BRICKS


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A manifest that says nothing of rewrites."""
    folder = tmp_path / "plain.ndp"
    folder.mkdir()
    document = json.loads((BRICKS / "manifest.json").read_text())
    document["model"]["rewrites"] = []
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def names(specs: list[TimedSpec]) -> list[str]:
    return [spec.name for spec in specs]


def split(**changes: Any) -> tuple[list[TimedSpec], list[TimedSpec], dict[str, str]]:
    left_out: dict[str, str] = {}
    together, alone = list_specs(BenchRequest(bundle=BRICKS, **changes), left_out)
    return together, alone, left_out


def test_ours_is_first_in_every_backend_and_precision_that_it_has() -> None:
    together, alone, left_out = split(backends=("openvino", "onnxruntime"), precisions=("fp32", "bf16"))
    assert names(together) == ["ndp-rt openvino fp32", "ndp-rt openvino bf16", "ndp-rt onnxruntime fp32"]
    assert not alone
    assert left_out == {"ndp-rt onnxruntime bf16": "onnxruntime has no bf16; it has fp32."}


def test_rivals_of_this_network_take_turns_together_and_others_come_one_by_one() -> None:
    together, alone, _ = split(against=("onnxruntime", "padim", "ndp-rt:bf16"))
    assert names(together) == ["ndp-rt openvino fp32", "onnxruntime fp32", "ndp-rt openvino bf16"]
    assert set(names(alone)) <= {"padim fp32"}  # without PyTorch it is left out


@pytest.mark.torch
def test_paper_means_all_fifteen() -> None:
    _, alone, _ = split(against=("paper", "padim"))
    assert len(alone) == 15 and names(alone)[0] == "ae-ssim fp32" and names(alone).count("padim fp32") == 1


def test_a_rival_without_our_precision_runs_in_its_own() -> None:
    together, _, _ = split(precisions=("bf16",), against=("onnxruntime",))
    assert names(together) == ["ndp-rt openvino bf16", "onnxruntime fp32"]


@pytest.mark.parametrize("precision", ["int8", "mixed"])
def test_our_int8_is_met_by_rivals_in_a_precision_of_their_own(precision: str, plain: Path) -> None:
    together, _, left_out = split(
        backends=("openvino", "onnxruntime"),
        precisions=(precision,),
        plain=plain,
        against=("openvino-plain", "onnxruntime", "ndp-rt:bf16"),
    )
    assert names(together) == [
        f"ndp-rt openvino {precision}",
        "openvino-plain fp32",
        "onnxruntime fp32",
        "ndp-rt openvino bf16",
    ]
    assert left_out == {f"ndp-rt onnxruntime {precision}": f"onnxruntime has no {precision}; it has fp32."}


def test_the_plain_export_has_to_be_given() -> None:
    _, _, left_out = split(against=("openvino-plain",))
    assert "--no-rewrite" in left_out["openvino-plain fp32"] and "--plain" in left_out["openvino-plain fp32"]


def test_rivals_of_this_network_get_the_plain_bundle_and_others_ours(plain: Path) -> None:
    together, _, _ = split(plain=plain, against=("onnxruntime", "ndp-rt:bf16"))
    assert [Path(spec.bundle).name for spec in together] == ["bricks.ndp", "plain.ndp", "bricks.ndp"]


def test_a_server_also_takes_images_one_by_one() -> None:
    together, _, _ = split(scenario="server", batches=(4,))
    assert together[0].batches == (1, 4)


def test_every_inspector_gets_the_same_threads() -> None:
    together, _, _ = split(threads=1, against=("onnxruntime",))
    assert {spec.threads for spec in together} == {1}
    assert (BenchRequest(bundle=BRICKS).used_threads or 0) >= 1
    assert BenchRequest(bundle=BRICKS, device="cuda").used_threads is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds": 0.0}, "--seconds: expected a number above 0, got 0"),
        ({"seconds": -1.0}, "--seconds: expected a number above 0, got -1"),
        ({"seconds": math.nan}, "got nan"),
        ({"seconds": math.inf}, "got inf"),
        ({"scenario": "singlestream"}, "Did you mean single-stream"),
        ({"precisions": ("fp33",)}, "--precision: expected one of fp32, .*got 'fp33'"),
        ({"backends": ("openvin",)}, "expected a backend of openvino, .*, got 'openvin'"),
        ({"models_on": "tensorflow"}, "--models-on: expected one of pytorch, openvino, got 'tensorflow'"),
        ({"threads": 0}, "--threads: expected a whole number from 1, got 0"),
        ({"target_qps": 5.0}, "go with --scenario server"),
        ({"scenario": "server", "latency_bound_ms": 0.0}, "--latency-bound: expected a number above 0, got 0"),
    ],
)
def test_rejects_what_cannot_be_measured(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BenchRequest(bundle=BRICKS, **changes)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("pytorh", "pytorch"),
        ("ndp-rt:fp33", "ndp-rt:PRECISION"),
        ("ndp-rt", "ndp-rt:PRECISION"),
        ("no.onnx", "no.onnx"),
    ],
)
def test_an_unknown_rival_is_named_with_what_is_taken(word: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        split(against=(word,))


def test_no_precision_of_ours_is_an_error() -> None:
    with pytest.raises(InputError, match="onnxruntime has no bf16"):
        split(backends=("onnxruntime",), precisions=("bf16",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "gpu"}, "expected a device of .* got 'gpu'"),
        ({"backends": ("tensorrt",)}, "--backend: expected .* on --device cpu, got 'tensorrt'"),
        ({"device": "cuda", "backends": ("openvino",)}, "--backend: expected .* on --device cuda, got 'openvino'"),
        ({"plan": "fuse"}, "--plan: expected .*got 'fuse'"),
        ({"plan": "unmerged"}, "--plan: expected .*got 'unmerged'"),
    ],
)
def test_what_no_inspector_of_ours_could_be_opened_with_is_not_taken(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BenchRequest(bundle=BRICKS, **changes)
