"""Engines for a GPU: what names them, when one fits, who checks them, and the stages that they are built from."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.bundle.open import hash_file
from ndp_rt.devices import machine as device
from ndp_rt.engines.backends.tensorrt.options import TensorRtOptions
from ndp_rt.engines.build import build_engine, find_engine, load_device_engines
from ndp_rt.engines.cache import EngineKey
from ndp_rt.engines.registry import find_device_backend, find_host_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.stage_files import STAGES_FILE, write_stages
from ndp_rt.errors import BundleError, DeviceError, EngineError, InputError, MissingExtraError
from tests.fakes import toy_device
from tests.fakes.toy_device import CHECKED, GPU, ToyBackend


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyBackend:
    toy_device.run_worker_here(monkeypatch)
    return toy_device.install(monkeypatch)


def make_spec(**settings: Any) -> EngineSpec:
    defaults = {"device": "cuda", "backend": "toy", "precision": "fp16", "plan": "staged", "batches": (1,)}
    return EngineSpec(**{**defaults, **settings})


def build(bundle: Bundle, cache_dir: Path, **settings: Any) -> Any:
    return build_engine(bundle, make_spec(**settings), cache_dir=cache_dir)


def test_a_cpu_engines_key_has_nothing_of_a_gpus() -> None:
    key = EngineKey(
        bundle_fingerprint="ab" * 32,
        stage="fused",
        backend="openvino",
        backend_version="2026.4.1",
        device="cpu",
        device_model="A CPU (6-1-2)",
        isa_flags=("avx2", "fma"),
        precision="fp32",
        batch=3,
    )
    assert key.sha256 == "4543f624846cd26a1efe9984b1116f87cd9a8e8e28f13659f53cf7a191329c58"
    assert EngineKey.from_json(json.loads(json.dumps(key.to_json()))) == key


def test_a_gpu_engines_key_has_everything_that_made_it(bundle: Bundle, toy: ToyBackend) -> None:
    options = TensorRtOptions(workspace_bytes=1024, hardware_compatible=True, timing_cache="x")
    encoder, tail = make_spec(build=options).make_keys(bundle)
    assert (encoder.stage, tail.stage, tail.device) == ("encoder", "tail", "cuda")
    document = tail.to_json()
    assert "isa_flags" not in document
    assert document["device_model"] == GPU.name and document["compute_capability"] == "9.0"
    assert document["driver_version"] == toy_device.DRIVER
    assert document["build_options"] == [
        "hardware-compatible",
        "workspace=1024",
    ]  # no timing cache
    assert EngineKey.from_json(json.loads(json.dumps(document))) == tail


FITS = [
    ((), {}, True),
    ((), {"driver_version": "560.1"}, False),
    ((), {"backend_version": "10.4.0"}, False),
    ((), {"device_model": "Toy A100", "compute_capability": "8.0"}, False),
    (("version-compatible",), {"backend_version": "10.13.3.9", "driver_version": "560.1"}, True),
    (("version-compatible",), {"backend_version": "10.2.9"}, False),
    (("version-compatible",), {"device_model": "Toy A100", "compute_capability": "8.0"}, False),
    (("hardware-compatible",), {"device_model": "Toy A100", "compute_capability": "8.0", "driver_version": "1"}, True),
    (("hardware-compatible",), {"device_model": "Toy T4", "compute_capability": "7.5"}, False),
    (("hardware-compatible",), {"backend_version": "10.4.0"}, False),
    (("hardware-compatible", "version-compatible"), {"backend_version": "11.0", "device_model": "Toy A100"}, True),
    (("version-compatible",), {"precision": "fp32"}, False),
    (("version-compatible",), {"bundle_fingerprint": "0" * 64}, False),
]


@pytest.mark.parametrize(("made_with", "differs", "fits"), FITS)
def test_an_engine_fits_where_it_was_built_and_where_it_was_built_to_fit(
    bundle: Bundle, toy: ToyBackend, made_with: tuple[str, ...], differs: dict[str, Any], fits: bool
) -> None:
    wanted = make_spec().make_keys(bundle)[0]
    made = replace(wanted, build_options=made_with)
    other = replace(wanted, **differs)
    assert made.fits(other, toy.find_free_fields(made, other) | {"build_options"}) is fits
    assert made.fits(wanted, toy.find_free_fields(made, wanted)) is (made_with == ())


def test_engines_are_built_checked_together_stored_and_found(bundle: Bundle, toy: ToyBackend, tmp_path: Path) -> None:
    record = build(bundle, tmp_path, batches=(1, 8))
    assert not record.was_cached and [entry.key.stage for entry in record.entries] == ["encoder", "tail"] * 2
    assert [name for name, _ in toy.compiled] == ["encoder.onnx", "tail.onnx"] * 2
    assert [sorted(call["engines"]) for call in CHECKED] == [["encoder", "tail"]] * 2
    assert [(call["batch"], call["precision"], call["device_index"]) for call in CHECKED] == [
        (1, "fp16", 0),
        (8, "fp16", 0),
    ]
    assert all(engine.is_closed for engine in toy.loaded)
    assert record.precision_by_layer_type() == {"convolution": {"fp16": 6}}
    assert record.entries[0].document["notes"] == {"log": "build.log"}
    assert build(bundle, tmp_path, batches=(1, 8)).was_cached and len(toy.compiled) == 4
    engines = load_device_engines(bundle, make_spec(batches=(8,)), cache_dir=tmp_path)
    assert list(engines[8]) == ["encoder", "tail"]


def test_a_check_that_fails_leaves_nothing_in_the_cache(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> dict[str, float]:
        raise EngineError("maps differ by 0.3")

    monkeypatch.setattr("ndp_rt.runtime.check.check_build", refuse)
    with pytest.raises(EngineError, match=r"maps differ by 0\.3"):
        build(bundle, tmp_path)
    assert all(engine.is_closed for engine in toy.loaded) and len(toy.loaded) == 2
    assert not [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]


def test_another_precision_than_asked_for_is_a_failure(bundle: Bundle, toy: ToyBackend, tmp_path: Path) -> None:
    toy.computes = "fp32"
    with pytest.raises(EngineError, match="asked for fp16, got"):
        build(bundle, tmp_path)
    toy.computes = "fp16"
    build(bundle, tmp_path)
    toy.computes = "fp32"
    with pytest.raises(EngineError, match="asked for fp16, got"):
        load_device_engines(bundle, make_spec(), cache_dir=tmp_path)
    assert toy.loaded[-1].is_closed


def test_build_options_are_kept_apart_and_the_plainest_is_found(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path
) -> None:
    portable = TensorRtOptions(hardware_compatible=True)
    build(bundle, tmp_path, build=portable)
    assert build(bundle, tmp_path).was_cached  # nothing special was asked for: it fits
    assert not build(bundle, tmp_path, build=TensorRtOptions()).was_cached
    assert build(bundle, tmp_path, build=portable).was_cached
    for spec, traits in ((make_spec(), ()), (make_spec(build=portable), ("hardware-compatible",))):
        record = find_engine(bundle, spec, cache_dir=tmp_path)
        assert record is not None and {entry.key.build_options for entry in record.entries} == {traits}


def test_a_portable_engine_is_found_on_another_gpu_and_version(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, tmp_path, build=TensorRtOptions(hardware_compatible=True, version_compatible=True))
    other = replace(GPU, name="Toy A100", compute_capability="8.0")
    monkeypatch.setattr(device, "find_gpus", lambda: (other,))
    toy.version = "10.13.0"
    assert build(bundle, tmp_path).was_cached
    assert load_device_engines(bundle, make_spec(), cache_dir=tmp_path)


def test_absence_is_explained_by_what_differs(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, tmp_path)
    monkeypatch.setattr(
        device, "find_gpus", lambda: (replace(GPU, name="Toy A100", index=0, compute_capability="8.0"),)
    )
    words = (
        r"holds no engine of tiny.ndp for stage encoder, toy 10.3.0, fp16, batch 1. One is there for device_model "
        r"Toy H200 \(now Toy A100\), compute_capability 9.0 \(now 8.0\)\. Build it with: ndp-rt build-engine \S+ "
        r"--backend toy --precision fp16 --batch 1 --plan staged$"
    )
    with pytest.raises(EngineError, match=words):
        load_device_engines(bundle, make_spec(), cache_dir=tmp_path)


def test_a_refusal_to_load_names_the_command_that_rebuilds(bundle: Bundle, toy: ToyBackend, tmp_path: Path) -> None:
    options = TensorRtOptions(workspace_bytes=2**20, version_compatible=True)
    build(bundle, tmp_path, build=options)
    toy.refusal = "the plan is for another GPU."
    words = r"another GPU\. Build it again with: .* --plan staged --workspace 1048576 --version-compatible --rebuild$"
    with pytest.raises(EngineError, match=words):
        load_device_engines(bundle, make_spec(build=options), cache_dir=tmp_path)


def test_a_damaged_engine_is_refused_and_never_rebuilt_silently(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path
) -> None:
    record = build(bundle, tmp_path)
    (record.entries[1].path / "plan").write_text("cut")
    for use in (lambda: build(bundle, tmp_path), lambda: load_device_engines(bundle, make_spec(), cache_dir=tmp_path)):
        with pytest.raises(EngineError, match=r"plan has 3 bytes, .* Build it again with: .* --rebuild$"):
            use()
    assert len(toy.compiled) == 2


def test_no_gpu_is_a_device_error_that_says_what_to_do(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match=r"machine's 1 GPUs, numbered from 0, got 'cuda:3'"):
        build(bundle, tmp_path, device="cuda:3")
    monkeypatch.setattr(device, "find_gpus", lambda: ())
    with pytest.raises(DeviceError, match=r"expected an NVIDIA GPU.*--gpus all.*--backend openvino"):
        build(bundle, tmp_path)


def test_the_gpu_that_was_asked_for_is_made_current_in_the_builder(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activated = []

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        def activate(self) -> None:
            activated.append(self.index)

    monkeypatch.setattr(device, "find_gpus", lambda: (replace(GPU, name="Toy T4"), replace(GPU, index=1)))
    monkeypatch.setattr("ndp_rt.devices.cuda.driver.CudaDevice", Device)
    record = build(bundle, tmp_path, device="cuda:1")
    assert activated == [1] and {entry.key.device_model for entry in record.entries} == {GPU.name}
    assert CHECKED[0]["device_index"] == 1
    assert "--device cuda:1" in record.spec.make_command(bundle.path)


def test_requests_for_one_kind_of_device_are_refused_for_the_other(bundle: Bundle, toy: ToyBackend) -> None:
    with pytest.raises(
        InputError, match="a backend for the CPU, openvino or onnxruntime, got 'toy', which is for a GPU"
    ):
        find_host_backend("toy")
    with pytest.raises(InputError, match="a backend for a GPU, tensorrt or .*, got 'openvino', which is for the CPU"):
        find_device_backend("openvino")
    with pytest.raises(InputError, match="expected no build options for backend openvino, got TensorRtOptions"):
        EngineSpec(backend="openvino", build=TensorRtOptions())
    with pytest.raises(InputError, match="expected BuildOptions for backend torch-cuda, got object"):
        EngineSpec(device="cuda", backend="torch-cuda", build=cast(Any, object()))
    with pytest.raises(InputError, match="plan on cpu: expected fused or staged, got 'unmerged'"):
        EngineSpec(plan="unmerged").resolve(bundle)
    with pytest.raises(InputError, match="expected precision fp32 or fp16 for backend toy, got 'int8'"):
        make_spec(precision="int8")
    assert make_spec(plan="unmerged").list_stages(bundle) == ("encoder", "decoder", "head", "segmentation_levels")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workspace_bytes": 0}, "expected workspace_bytes of 1 or more, or None, got 0"),
        ({"strip": True}, "expected onnx_stages with strip, .*--onnx-stages DIR"),
    ],
)
def test_build_options_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TensorRtOptions(**settings)


def test_options_reach_the_backend(bundle: Bundle, toy: ToyBackend, tmp_path: Path) -> None:
    options = TensorRtOptions(workspace_bytes=77, timing_cache=str(tmp_path / "t"))
    build(bundle, tmp_path, build=options, batches=(4,))
    for _, came in toy.compiled:
        assert came.build == options and (came.precision, came.batch, came.device_index) == ("fp16", 4, 0)


def test_stages_made_elsewhere_are_built_as_they_are(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stages(bundle, "fp16", tmp_path / "stages")
    monkeypatch.setattr("ndp_rt.engines.worker.write_stages", None)
    build(bundle, tmp_path, build=TensorRtOptions(onnx_stages=str(tmp_path / "stages")))
    assert [name for name, _ in toy.compiled] == ["encoder.onnx", "tail.onnx"]


def keep_weights_outside(folder: Path) -> None:
    # graph { initializer { external_data { key: "location" value: "../../etc/x" } } }, listed with its right hash
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    entry = field(1, b"location") + field(2, b"../../etc/x")
    (folder / "tail.onnx").write_bytes(field(7, field(5, field(13, entry))))
    document = json.loads((folder / STAGES_FILE).read_text())
    document["stages"]["tail"]["sha256"] = hash_file(folder / "tail.onnx")
    (folder / STAGES_FILE).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"precision": "fp32"},
            "expected stages in fp32 for plan staged, got fp16 for staged. Write them with",
        ),
        (
            {"plan": "unmerged"},
            "in fp16 for plan unmerged, got fp16 for staged.*export-stages .* fp16 --plan unmerged -o DIR",
        ),
    ],
)
def test_stages_of_another_precision_or_plan_are_not_built(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    write_stages(bundle, "fp16", tmp_path / "stages")
    with pytest.raises(BundleError, match=words):
        build(bundle, tmp_path, build=TensorRtOptions(onnx_stages=str(tmp_path / "stages")), **settings)
    assert not toy.compiled


def test_stages_of_another_bundle_or_with_weights_elsewhere_are_not_built(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path
) -> None:
    options = TensorRtOptions(onnx_stages=str(tmp_path / "stages"))
    write_stages(replace(bundle, fingerprint="0" * 64), "fp16", tmp_path / "stages")
    with pytest.raises(BundleError, match=r"of another bundle than tiny.ndp, or of another export of it \('tiny'\)"):
        build(bundle, tmp_path, build=options)
    shutil.rmtree(tmp_path / "stages")
    write_stages(bundle, "fp16", tmp_path / "stages")
    keep_weights_outside(tmp_path / "stages")
    with pytest.raises(BundleError, match=r"tail.onnx: expected weights inside it, got weights in \.\./\.\./etc/x"):
        build(bundle, tmp_path, build=options)
    assert not toy.compiled


def test_typing_stages_without_the_onnx_package_says_how_to_go_on(
    bundle: Bundle, toy: ToyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    words = r"pip install onnx\. Or make them on another machine: ndp-rt export-stages tiny.ndp .*--onnx-stages"
    with pytest.raises(MissingExtraError, match=words):
        build(bundle, tmp_path)
