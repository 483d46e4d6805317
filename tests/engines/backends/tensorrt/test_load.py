"""Loading and running with a TensorRT that keeps the real interface: what does not fit, and what answers False."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.devices import machine as device
from ndp_rt.engines.backends.tensorrt import TensorRtBackend, logger
from ndp_rt.engines.registry import find_backend
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError, MissingExtraError
from tests.engines.backends.tensorrt.conftest import ADDRESSES, BACKEND, Stage
from tests.fakes import fake_tensorrt, toy_device
from tests.test_layers import BLOCK_ALL_BUT_NUMPY, run_python

# Loading.


def cut_plan(stage: Stage) -> None:
    plan = stage.artifact / "model.plan"
    plan.write_bytes(plan.read_bytes()[:-7])


def spoil_plan(stage: Stage) -> None:
    plan = stage.artifact / "model.plan"
    plan.write_bytes(plan.read_bytes().replace(b"{", b"[", 1))


def change_machine(name: str, value: str) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        document = json.loads((stage.artifact / "plan.json").read_text())
        document["machine"][name] = value
        (stage.artifact / "plan.json").write_text(json.dumps(document))

    return change


def rename_tensor(stage: Stage) -> None:
    text = (stage.artifact / "plan.json").read_text()
    (stage.artifact / "plan.json").write_text(text.replace("am1", "am9"))


MISMATCHES: dict[str, tuple[Callable[[Stage], object], str]] = {
    "cut": (cut_plan, r"model.plan: the engine has \d+ bytes, \d+ were written\.$"),
    "spoilt": (
        spoil_plan,
        r"TensorRT refuses the engine: Serialization assertion magicTagRead",
    ),
    "gone": (lambda stage: (stage.artifact / "model.plan").unlink(), "cannot be read"),
    "no manifest": (lambda stage: (stage.artifact / "plan.json").unlink(), r"plan.json: cannot be read"),
    "cut manifest": (lambda stage: (stage.artifact / "plan.json").write_text("{"), r"plan.json: cannot be read"),
    "short manifest": (lambda stage: (stage.artifact / "plan.json").write_text("{}"), r"plan.json: cannot be read"),
    "GPU": (
        change_machine("gpu_name", "Toy A100"),
        r"built for gpu name Toy A100 \(now Toy H200\); it is not used",
    ),
    "architecture": (change_machine("compute_capability", "8.0"), r"compute capability 8\.0 \(now 9\.0\)"),
    "version": (change_machine("tensorrt_version", "10.3.0"), r"tensorrt version 10\.3\.0 \(now 10\.13\.3\.9\)"),
    "driver": (change_machine("driver_version", "535.1"), r"driver version 535\.1 \(now 550\.54\)"),
    "package": (change_machine("tensorrt_package", "tensorrt-cu13"), r"package tensorrt-cu13 \(now tensorrt-cu12\)"),
    "tensors": (rename_tensor, "the engine's tensors are not those that plan.json tells of"),
}


@pytest.mark.parametrize("mismatch", list(MISMATCHES))
def test_an_engine_that_is_not_the_one_for_this_machine_is_one_line_and_never_rebuilt(
    trt: Any, stage: Stage, mismatch: str
) -> None:
    stage.compile(stage.options())
    change, words = MISMATCHES[mismatch]
    change(stage)
    with pytest.raises(EngineError, match=words) as caught:
        stage.load(stage.options())
    assert "\n" not in str(caught.value) and len(trt.knobs.builds) == 1


def test_the_newest_cuda_that_the_driver_runs_does_not_matter_by_itself(trt: Any, stage: Stage) -> None:
    stage.compile(stage.options())
    change_machine("cuda_version", "13.0")(stage)
    stage.load(stage.options())


REFUSALS: dict[str, tuple[type[Exception], str]] = {
    "build_serialized_network": (
        EngineError,
        r"cannot build \S+ in fp16, batch 2: something is wrong\. Build",
    ),
    "add_optimization_profile": (EngineError, "refuses batch 2: something is wrong"),
    "deserialize_cuda_engine": (EngineError, "TensorRT refuses the engine: something is wrong"),
    "create_execution_context": (
        DeviceError,
        r"no room for .* scratch memory, 1000 bytes .*something is wrong",
    ),
    "set_input_shape": (EngineError, r"refuses \[2, 3, 64, 64\] for 'image': something is wrong"),
    "set_tensor_address": (InputError, r"refuses 0x1000 as 'image': something is wrong"),
    "execute_async_v3": (EngineError, "refuses to run: something is wrong"),
}


@pytest.mark.parametrize("method", list(REFUSALS))
def test_what_answers_false_or_nothing_is_an_error_with_the_last_line_of_the_log(
    any_version: Any, stage: Stage, method: str
) -> None:
    any_version.knobs.refuses = {method}
    error, words = REFUSALS[method]
    with pytest.raises(error, match=words):
        engine = stage.build()
        engine.bind(ADDRESSES)
        engine.enqueue(0)


def test_an_older_error_is_not_given_as_the_reason(trt: Any, stage: Stage) -> None:
    engine = stage.build()
    logger.get_log(trt).log(trt.ILogger.Severity.ERROR, "an old story")
    engine.bind(ADDRESSES)
    trt.knobs.refuses, trt.knobs.logger = {"execute_async_v3"}, None  # it refuses without a word
    with pytest.raises(EngineError, match="refuses to run: its log holds no error"):
        engine.enqueue(0)


def test_a_missing_builder_library_is_named(trt: Any, stage: Stage) -> None:
    trt.knobs.refuses = {"build_serialized_network"}
    trt.knobs.error = "Unable to load library: libnvinfer_builder_resource.so.10.13.3"
    with pytest.raises(EngineError, match="builder_resource is part of TensorRT: install all of it"):
        stage.compile(stage.options())


def test_a_build_that_lacks_workspace_says_so(trt: Any, stage: Stage) -> None:
    trt.knobs.refuses = {"build_serialized_network"}
    with pytest.raises(EngineError, match="Build with a larger --workspace, or smaller batches"):
        stage.compile(stage.options(workspace_bytes=1))


# Running.


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ({}, "expected an address of 'image', got those of nothing"),
        ({"image": 0x1000, "am1": 0x3000}, "address of 'reconstruction', got those of image, am1"),
        ({**ADDRESSES, "image": 0}, "device memory aligned to 256 bytes for 'image', got 0x0"),
        ({**ADDRESSES, "am1": 0x3010}, "for 'am1', got 0x3010"),
    ],
)
def test_addresses_that_are_missing_or_not_aligned_are_refused(
    trt: Any, stage: Stage, addresses: dict[str, int], words: str
) -> None:
    engine = stage.build()
    with pytest.raises(InputError, match=words):
        engine.bind(addresses)


def test_a_closed_engine_says_so(trt: Any, stage: Stage) -> None:
    engine = stage.build()
    engine.close()
    engine.close()
    for use in (lambda: engine.bind(ADDRESSES), lambda: engine.enqueue(0), engine.precision_by_layer_type):
        with pytest.raises(ClosedError, match="the engine is closed"):
            use()


# What is not there.


def test_no_driver_is_a_device_error_that_says_what_it_means(any_version: Any, stage: Stage) -> None:
    stage.compile(stage.options())
    any_version.knobs.has_driver = False
    words = r"TensorRT \S+ makes no %s \(CUDA initialization failure with error: 35\): it finds no GPU"
    with pytest.raises(DeviceError, match=words % "runtime"):
        stage.load(stage.options())
    with pytest.raises(DeviceError, match=words % "builder"):
        BACKEND.compile(stage.folder / "tail.onnx", stage.artifact, stage.options())


def test_no_gpu_is_a_device_error(trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.compile(stage.options())
    monkeypatch.setattr(device, "find_gpus", lambda: ())
    for use in (lambda: stage.load(stage.options()), lambda: BACKEND.compile(Path(), Path(), stage.options())):
        with pytest.raises(DeviceError, match="expected an NVIDIA GPU"):
            use()


def test_a_runtime_without_a_builder_says_so(trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trt, "Builder")
    with pytest.raises(EngineError, match=r"TensorRT 10\.13\.3\.9 that is installed runs engines and builds none"):
        stage.compile(stage.options())


def test_tensorrt_that_cannot_be_imported_is_a_missing_extra(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"TensorRT cannot be imported .*pip install 'ndp-rt\[gpu\]'"):
        BACKEND.compile(stage.folder, stage.folder, stage.options())


def test_a_version_before_8_5_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, "8.4.1.5")
    with pytest.raises(EngineError, match=r"expected TensorRT 8\.5 or later, got 8\.4\.1\.5"):
        BACKEND.compile(stage.folder, stage.folder, stage.options())


def test_finding_it_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("ndp_rt.devices.machine.find_gpus", lambda: (toy_device.GPU,))
    monkeypatch.setattr(TensorRtBackend, "distributions", ("not-there", "numpy"))
    status = find_backend("tensorrt").find()
    assert status.version and status.devices == ("Toy H200",) and status.remedy is None
    monkeypatch.setattr(TensorRtBackend, "distributions", ("not-there",))
    status = find_backend("tensorrt").find()
    assert status.version is None and status.remedy and "ndp-rt[gpu13]" in status.remedy


def test_importing_the_backend_needs_numpy_alone() -> None:
    done = run_python(
        BLOCK_ALL_BUT_NUMPY
        + "import ndp_rt.engines.backends.tensorrt, sys; print('tensorrt' in sys.modules, 'cupy' in sys.modules)"
    )
    assert done.stdout.strip() == "False False", done.stderr
