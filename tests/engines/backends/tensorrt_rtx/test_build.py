"""Every graph that is written for a GPU, built by NVIDIA's own compiler: TensorRT-RTX, which needs no GPU for that."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.capi.installed import DEMO
from ndp_rt.cli import main
from ndp_rt.devices import machine
from ndp_rt.devices.machine import Gpu
from ndp_rt.engines import registry
from ndp_rt.engines.backends.tensorrt.layers import sum_products
from ndp_rt.engines.backends.tensorrt_rtx.build import read_layers
from ndp_rt.engines.backends.tensorrt_rtx.options import TARGETS, TensorRtRtxOptions
from ndp_rt.engines.build import EngineRecord, build_engine, load_device_engines
from ndp_rt.engines.registry import choose_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.stage_files import write_stages
from ndp_rt.errors import DeviceError, EngineError, InputError
from tests.bricks import BRICKS
from tests.fakes import toy_device

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
ADA = Gpu(name="RTX 4000 Ada", index=0, memory_bytes=2**34, compute_capability="8.9")
HOPPER = toy_device.GPU
NEWER = ",".join(TARGETS[1:])
TYPES = {
    "fp32": {"f32"},
    "tf32": {"f32"},
    "fp16": {"f16", "f32"},
    "bf16": {"bf16", "f32"},
    "int8": {"i8", "f16", "f32"},
}


@pytest.fixture(autouse=True)
def worker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_device.run_worker_here(monkeypatch)


def make_spec(targets: str | None, **settings: Any) -> EngineSpec:
    build = None if targets is None else TensorRtRtxOptions(targets=targets)
    defaults = {"device": "cuda", "backend": "tensorrt-rtx", "precision": "fp16", "build": build}
    return EngineSpec(**{**defaults, **settings})


def count_products(record: EngineRecord) -> dict[str, int]:
    return sum_products(record.precision_by_layer_type())


def list_cases() -> list[tuple[str, str, str, str]]:
    """Return name, plan, precision and generations: first one of each kind, then all others."""
    plans = {"tiny": ("staged",), "bricks": ("staged", "unmerged", "fused"), "demo": ("fused",)}
    all_cases = [
        (name, plan, precision, targets)
        for name, names in plans.items()
        for plan in names
        for precision in ("fp32", "tf32", "fp16", "bf16")
        for targets in (NEWER, *TARGETS)
        if targets != "sm75" or precision not in ("bf16", "tf32")
    ]
    first = [
        *(("demo", "fused", precision, NEWER) for precision in ("fp32", "fp16", "bf16")),
        *(("bricks", "staged", precision, NEWER) for precision in ("fp32", "fp16", "bf16")),
        *(("demo", "fused", "fp16", "sm75"), ("bricks", "fused", "bf16", "sm120")),
    ]
    return first + [case for case in all_cases if case not in first]


@pytest.mark.nightly(but=8)
@pytest.mark.parametrize(("name", "plan", "precision", "targets"), list_cases())
def test_the_compiler_takes_every_stage_and_computes_in_the_precision(
    bundle: Bundle, tmp_path: Path, name: str, plan: str, precision: str, targets: str
) -> None:
    given = bundle if name == "tiny" else open_bundle(DEMO if name == "demo" else BRICKS)
    record = build_engine(given, make_spec(targets, precision=precision, plan=plan), cache_dir=tmp_path)
    products = count_products(record)
    assert products and set(products) <= TYPES[precision]
    wanted = "f32" if precision == "tf32" else {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")
    # NDP-Net's four transposed convolutions are float32 in bf16, and six that sum squares are in both halves.
    assert products[wanted] > 0.75 * sum(products.values())
    for entry in record.entries:
        assert not entry.golden and [path.name for path in entry.path.glob("*.plan")] == [
            f"model-{targets.replace(',', '-')}.plan"
        ]


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize(
    ("targets", "bundle_path"), [(NEWER, BRICKS), (NEWER, DEMO), *((one, BRICKS) for one in TARGETS[1:])]
)
def test_int8_layers_compute_in_int8(tmp_path: Path, targets: str, bundle_path: Path) -> None:
    given = open_bundle(bundle_path)
    write_stages(given, "int8", tmp_path / "stages", calibration=given.golden().image)
    spec = make_spec(None, precision="int8")
    build = TensorRtRtxOptions(targets=targets, onnx_stages=str(tmp_path / "stages"))
    record = build_engine(given, dataclasses.replace(spec, build=build), cache_dir=tmp_path)
    products = count_products(record)
    # MemSeg's depthwise convolutions, 11 of its 51, are float16.
    share = 0.6 if bundle_path == DEMO else 0.75
    assert products["i8"] > share * sum(products.values()) and set(products) <= TYPES["int8"]


def test_turing_has_a_file_of_its_own_and_the_others_share_one(bundle: Bundle, tmp_path: Path) -> None:
    record = build_engine(bundle, make_spec("sm120,SM75,sm89", batches=(1, 3)), cache_dir=tmp_path)
    for entry in record.entries:
        plans = entry.document["notes"]["plans"]
        assert set(plans) == {"model-sm75.plan", "model-sm89-sm120.plan"}
        assert all((entry.path / name).stat().st_size == one["bytes"] for name, one in plans.items())
        assert entry.key.compute_capability == "sm75 sm89 sm120" and entry.key.device_model == "any"
    assert {entry.key.batch for entry in record.entries} == {1, 3}
    again = build_engine(bundle, make_spec("sm75,sm89,sm120", batches=(1, 3)), cache_dir=tmp_path)
    assert again.was_cached and again.engine_hash == record.engine_hash


def test_an_engine_for_several_is_found_on_each_of_their_gpus_alone(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_engine(bundle, make_spec("sm86,sm89"), cache_dir=tmp_path)
    for gpu, is_found in ((ADA, True), (dataclasses.replace(ADA, compute_capability="12.0"), False)):
        monkeypatch.setattr(machine, "find_gpus", lambda gpu=gpu: (gpu,))
        spec = make_spec(None).resolve(bundle)
        (key, _) = spec.locate_keys(bundle, tmp_path / "engines")
        assert (tmp_path / "engines" / key.folder_name).is_dir() == is_found
    with pytest.raises(
        EngineError, match=r"One is there for compute_capability sm86 sm89 \(now sm120\).* Build it with"
    ):
        load_device_engines(bundle, make_spec(None), cache_dir=tmp_path)


def test_without_a_driver_the_real_runtime_says_so_before_it_loads(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_engine(bundle, make_spec("sm89"), cache_dir=tmp_path)
    monkeypatch.setattr(machine, "find_gpus", lambda: (ADA,))
    if machine.find_cuda_version() is not None:
        pytest.skip("needs a machine without NVIDIA's driver")
    message = "model-sm89.plan: TensorRT-RTX 1.* says that the engine does not fit here: .*; it is not used"
    with pytest.raises(EngineError, match=message):
        load_device_engines(bundle, make_spec(None), cache_dir=tmp_path)


REFUSED = {
    "generation": (
        ["--for", "sm86,sm90"],
        "expected GPU generations of sm75, .*, got 'sm90'. For GPUs in data centres",
    ),
    "nothing": (["--for", ""], "expected GPU generations of sm75, .*, got ''"),
    "bf16 on Turing": (
        ["--for", "sm75,sm86", "--precision", "bf16"],
        "from sm80 on for bf16, got sm75, which has none",
    ),
    "no GPU": ([], "expected an NVIDIA GPU with a driver, got none.* say which: --for sm86,sm89"),
    "mixed": (["--for", "sm86", "--precision", "mixed"], "expected precision .* for backend tensorrt-rtx, got 'mixed'"),
    "elsewhere": (["--backend", "torch-cuda", "--for", "sm86"], "expected --for with --backend tensorrt-rtx"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_built_for_is_one_error(
    bundle: Bundle, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_gpus", tuple)
    words, message = REFUSED[case]
    try:
        code: Any = main(["build-engine", str(bundle.path), "--backend", "tensorrt-rtx", *words])
    except SystemExit as error:
        code = error.code
    assert code != 0
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, line), line


def test_a_gpu_for_data_centres_is_left_to_other_backends(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    monkeypatch.setattr(machine, "find_gpus", lambda: (HOPPER,))
    with pytest.raises(DeviceError, match=r"for --backend tensorrt-rtx, got Toy H200 \(sm90\). Use --backend tensorrt"):
        make_spec(None).make_keys(bundle)
    monkeypatch.setitem(registry.find_built_in(), "toy", toy_device.ToyBackend())
    assert choose_backend("cuda").name == "toy"
    monkeypatch.setattr(machine, "find_gpus", lambda: (ADA,))
    assert choose_backend("cuda").name == "tensorrt-rtx"
    with pytest.raises(InputError, match="got 'sm90'"):
        TensorRtRtxOptions(targets="sm90")


def test_the_command_prints_layers_and_that_golden_vectors_wait(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    command = [
        "build-engine",
        str(bundle.path),
        "--backend",
        "tensorrt-rtx",
        "--for",
        "sm86,sm89",
        "--precision",
        "fp16",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "for any, compute capability sm86 sm89\n" in out and "golden vectors, batch 1: not compared" in out
    assert "convolution" in out and "f16" in out
    (log, _) = sorted(tmp_path.glob("engines/*/build.log"))
    assert (
        json.loads((log.parent / "engine.json").read_text())["notes"]["plans"]["model-sm86-sm89.plan"]["bytes"] > 1000
    )


def test_layers_are_read_from_the_compilers_report() -> None:
    report = (
        "Layers:\nName: a [x], LayerType: correlation, Inputs: [ { Name: i, Dimensions: [1,3,8,8], Datatype: Half, "
        "Format: (NHWC) }], Constants: [ { Name: w, Datatype: Float }], Outputs: []\n"
        "Name: s, LayerType: signal, Inputs: [], Outputs: [], TacticName: , StreamId: 0\n"
    )
    assert read_layers(report) == [
        {"LayerType": "correlation", "Inputs": [{"Datatype": "Half"}]},
        {"LayerType": "signal", "Inputs": []},
    ]
