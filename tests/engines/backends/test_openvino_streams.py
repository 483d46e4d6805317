"""OpenVINO engines whose calls compute beside each other."""

import gc
import os
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from ndp_rt.engines.backends.openvino.engine import (
    BLOB_FILE,
    MOST_STREAMS,
    BlobFile,
    OpenVinoCall,
    OpenVinoEngine,
)
from ndp_rt.engines.engine import OverlappingEngine
from ndp_rt.errors import ClosedError, EngineError, InputError

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def artifact(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    OpenVinoBackend().compile(bundle.stage_path("fused"), folder, EngineOptions())
    return folder


@pytest.fixture
def engine(artifact: Path) -> OpenVinoEngine:
    return OpenVinoBackend().load(artifact, EngineOptions(threads=2))


def make_arrays(engine: OpenVinoEngine, rng: np.random.Generator) -> tuple[Arrays, Arrays]:
    inputs = {name: rng.random(spec.shape, np.float32) for name, spec in engine.inputs.items()}
    return inputs, {name: np.full(spec.shape, np.nan, np.float32) for name, spec in engine.outputs.items()}


@pytest.mark.parametrize("is_alone", [True, False])
def test_calls_on_the_way_together_give_the_bits_of_single_ones(
    engine: OpenVinoEngine, rng: np.random.Generator, is_alone: bool
) -> None:
    arrays = [make_arrays(engine, rng) for _ in range(5)]
    runs = [engine.bind(*one, is_alone=is_alone) for one in arrays]
    for _ in range(2):
        for run in runs:
            run.start()
        assert all(run.wait() > 0 for run in runs)
    for inputs, outputs in arrays:
        expected = {name: np.empty_like(array) for name, array in outputs.items()}
        engine.run(inputs, expected)
        assert all(np.array_equal(outputs[name], expected[name]) for name in outputs)


def test_a_call_that_was_waited_for_computes_no_more(engine: OpenVinoEngine, rng: np.random.Generator) -> None:
    run = engine.bind(*make_arrays(engine, rng), is_alone=False)
    assert run.is_open and not run.is_computing
    run.start()
    run.wait()
    assert run.is_open and not run.is_computing


@pytest.mark.parametrize("threads", [1, 2, None])
def test_as_many_calls_compute_at_once_as_there_are_threads(artifact: Path, threads: int | None) -> None:
    engine = OpenVinoBackend().load(artifact, EngineOptions(threads=threads))
    assert isinstance(engine, OverlappingEngine)
    # 1 of hyper-threading's two, where the machine has it
    limit = min(MOST_STREAMS, find_cpu().usable_core_count)
    assert engine.stream_count == 1 if threads == 1 else 1 <= engine.stream_count <= min(limit, threads or limit)
    used = int(engine._compiled.get_property("INFERENCE_NUM_THREADS"))
    assert engine.stream_count == min(used, MOST_STREAMS)


def test_a_single_thread_never_loads_the_model_twice(artifact: Path, rng: np.random.Generator) -> None:
    engine = OpenVinoBackend().load(artifact, EngineOptions(threads=1))
    run = engine.bind(*make_arrays(engine, rng), is_alone=False)
    run.start()
    assert run.wait() > 0 and engine._shared is None


@pytest.mark.skipif(find_cpu().usable_core_count < 2, reason="needs two cores")
def test_the_shared_model_has_the_same_threads_and_pins_none(engine: OpenVinoEngine, rng: np.random.Generator) -> None:
    assert engine._shared is None
    engine.bind(*make_arrays(engine, rng), is_alone=False)
    shared = engine._shared
    found = {name: shared.get_property(name) for name in ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")}
    assert found == {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2, "ENABLE_CPU_PINNING": False}


@pytest.mark.skipif(find_cpu().usable_core_count < 2, reason="needs two cores")
def test_the_file_may_go_before_the_shared_model_is_loaded(
    bundle: Bundle, tmp_path: Path, rng: np.random.Generator
) -> None:
    backend, options = OpenVinoBackend(), EngineOptions(threads=2)
    backend.compile(bundle.stage_path("fused"), tmp_path, options)
    engine = backend.load(tmp_path, options)
    (tmp_path / BLOB_FILE).unlink()
    run = engine.bind(*make_arrays(engine, rng), is_alone=False)
    run.start()
    assert run.wait() > 0 and engine._shared is not None


def test_a_call_that_was_started_ends_after_close_and_no_other_starts(
    engine: OpenVinoEngine, rng: np.random.Generator
) -> None:
    arrays, idle = make_arrays(engine, rng), engine.bind(*make_arrays(engine, rng), is_alone=True)
    run = engine.bind(*arrays, is_alone=True)
    run.start()
    engine.close()
    assert not run.is_open and not idle.is_open
    assert run.wait() > 0 and np.isfinite(arrays[1]["map"]).all()
    for call in (run.start, run.wait, idle.start, idle.wait):
        with pytest.raises(ClosedError, match="closed"):
            call()
    with pytest.raises(ClosedError, match="closed"):
        engine.bind(*arrays, is_alone=True)


def test_two_may_wait_for_one_call_while_its_engine_is_closed(engine: OpenVinoEngine, rng: np.random.Generator) -> None:
    run = engine.bind(*make_arrays(engine, rng), is_alone=True)
    run.start()
    request = run._request

    def wait_behind_another() -> None:
        request.wait()
        run._request = request
        run.wait()
        engine.close()
        assert run._request is None

    run._request = SimpleNamespace(wait=wait_behind_another, latency=1.0)
    assert run.wait() == 1.0
    assert not run.is_open and not run.is_computing


def test_a_call_may_be_asked_while_its_engine_is_closed(
    engine: OpenVinoEngine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = engine.bind(*make_arrays(engine, rng), is_alone=True)
    run.start()
    on_way = [run]

    def end_when_read(one: OpenVinoCall) -> bool:
        was_started: bool = one.__dict__["_is_started"]
        if was_started and on_way:
            on_way.pop().wait()
            engine.close()
            assert one._request is None
        return was_started

    def write(one: OpenVinoCall, value: bool) -> None:
        one.__dict__["_is_started"] = value

    monkeypatch.setattr(OpenVinoCall, "_is_started", property(end_when_read, write), raising=False)
    assert not run.is_computing and not on_way


def test_a_start_that_fails_leaves_a_call_as_it_was(engine: OpenVinoEngine, rng: np.random.Generator) -> None:
    run = engine.bind(*make_arrays(engine, rng), is_alone=True)
    request = run._request
    run._request = SimpleNamespace(start_async=fail)
    with pytest.raises(EngineError, match="OpenVINO failed to run: no memory"):
        run.start()
    assert not run._is_started
    run._request = request
    run.start()
    run._request = SimpleNamespace(start_async=fail)  # as OpenVINO does if it still computes
    with pytest.raises(EngineError):
        run.start()
    assert run._is_started
    run._request = request
    assert run.wait() > 0


def fail() -> None:
    raise RuntimeError("no memory")


def test_a_closed_engine_keeps_no_model_for_calls_that_are_kept(
    engine: OpenVinoEngine, rng: np.random.Generator
) -> None:
    runs = [engine.bind(*make_arrays(engine, rng), is_alone=is_alone) for is_alone in (True, False)]
    runs[0].start()
    engine.close()
    runs[0].wait()
    assert [run._request for run in runs] == [None, None]


@pytest.mark.parametrize("is_started", [False, True])
def test_a_call_keeps_its_arrays_until_it_is_forgotten_and_has_ended(
    engine: OpenVinoEngine, rng: np.random.Generator, is_started: bool
) -> None:
    inputs, outputs = make_arrays(engine, rng)
    held = [weakref.ref(array) for array in (*inputs.values(), *outputs.values())]
    run = engine.bind(inputs, outputs, is_alone=True)
    del inputs, outputs
    assert all(ref() is not None for ref in held)
    if is_started:
        run.start()
        request = run._request
        del run
        assert request.wait_for(0)
    else:
        del run
    assert all(ref() is None for ref in held)


def test_a_file_is_open_until_its_engine_is_closed_or_forgotten(artifact: Path) -> None:
    def count_open() -> int:
        links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        return sum(link.is_symlink() and os.readlink(link) == str(artifact / BLOB_FILE) for link in links)

    gc.collect()  # engines of other tests
    before = count_open()
    engines = [OpenVinoBackend().load(artifact, EngineOptions(threads=1)) for _ in range(2)]
    assert count_open() == before + 2
    engines[0].close()
    engines[0].close()
    assert count_open() == before + 1
    engines.clear()
    gc.collect()
    assert count_open() == before


def test_arrays_that_do_not_fit_are_refused(engine: OpenVinoEngine, rng: np.random.Generator) -> None:
    inputs, outputs = make_arrays(engine, rng)
    with pytest.raises(InputError, match="as 'image' in inputs, got float64"):
        engine.bind({"image": inputs["image"].astype(np.float64)}, outputs, is_alone=False)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.blob: No such file or directory\. Build with --rebuild"):
        BlobFile(tmp_path / BLOB_FILE, {})
