"""The toy is benched by its program alone: several engines, an op between them, and rules of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bench.kernel_work import count_steps
from ndp_rt.bundle import open_bundle
from ndp_rt.cli import main
from ndp_rt.kernels.load import KernelSet
from ndp_rt.runtime.cuda_steps import CudaSteps
from ndp_rt.runtime.memory_estimate import describe_stage

pytestmark = pytest.mark.torch


def bench(bundle: Path, out: Path, *options: str) -> Any:
    words = ["bench", str(bundle), "--threads", "1", "--seconds", "0.5", "-o", str(out), *options]
    assert main(words) == 0
    return json.loads(out.read_text())


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_step_of_its_program_has_a_time(bundle: Path, tmp_path: Path, backend: str) -> None:
    record = bench(bundle, tmp_path / "toy.jsonl", "--backend", backend)
    (row,) = record["rows"]
    assert (row["name"], row["plan"]) == (f"ndp-rt {backend} fp32", "staged")
    assert row["check"]["map_max_abs_difference"] <= row["check"]["allowed"]
    assert list(row["stages_ms"]) == ["preprocess", "extract", "nearest_patch", "head", "postprocess"]
    assert min(row["stages_ms"].values()) > 0
    # The convolutions' multiply-adds: 8 of 27 and 8 of 72 on [24, 20] and [12, 10], 8 of 81 and 16 of 8 on the latter.
    assert row["gflop"] * 1e9 == 2 * (24 * 20 * 8 * 27 + 12 * 10 * (8 * 72 + 8 * 81 + 16 * 8))
    assert not any("could not be measured" in text for text in record["warnings"])


def test_its_op_brings_its_floor(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    _, program = manifest.find_program("cuda")
    engines: Any = {name: describe_stage(manifest, name, "float32", 2) for name in program.stages}
    steps = CudaSteps(manifest, program, 2, engines, lambda number: {}, KernelSet())
    work = count_steps(steps, manifest.decision)["nearest_patch distance"]
    features, patches = steps.list_reads(program.steps[1])
    (n, c, h, w), (m, _) = features.fixed_shape, patches.fixed_shape
    assert work.flop_count == 2 * n * h * w * m * c and not work.on_tensor_cores
    assert work.moved_bytes == 4 * (n * c * h * w + m * c + n * h * w)


@pytest.mark.nightly
def test_rivals_that_run_one_graph_say_that_it_has_none(bundle: Path, tmp_path: Path) -> None:
    record = bench(bundle, tmp_path / "toy.jsonl", "--against", "onnxruntime,pytorch,vae")
    assert [row["name"] for row in record["rows"]] == ["ndp-rt openvino fp32", "vae fp32"]
    for name in ("onnxruntime fp32", "pytorch fp32"):
        assert "one graph: expected a program of one engine on the CPU, got toy without" in record["left_out"][name]
