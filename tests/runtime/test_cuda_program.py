"""Programs on the fake GPU: the real kernels interpreted, engines on the CPU, streams as late or early as can be."""

import gc
import itertools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.graph import capture_graph
from ndp_rt.devices.cuda.memory import DeviceMemory
from ndp_rt.errors import ClosedError, DeviceError, InputError
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.runtime import cuda_program
from tests.fakes.fake_streams import CUDARuntimeError, Operation, join
from tests.fakes.rig import Rig
from tests.tolerances import assert_close


@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
def test_every_plan_gives_the_golden_maps_and_scores(make_rig: Callable[..., Rig], plan: str) -> None:
    rig = make_rig(plan, batches=(1, 2))
    golden = rig.bundle.golden()
    for size in (1, 2):
        maps, scores = rig.program.run(golden.image[:size])
        smoothed = rig.smooth(golden.image[:size])
        assert_close(maps, golden.map[:size], "map", "float32")
        assert_close(smoothed, smooth(golden.map[:size]), "map", "float32")
        assert_close(scores, golden.score[:size], "map", "float32")
    rig.program.close()


def test_half_precision_goes_through_every_tensor(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(precision="fp16")
    golden = rig.bundle.golden()
    specs = rig.program.find_steps(1).specs
    halves = {name for name, spec in specs.items() if spec.dtype == "float16"}
    assert halves >= {"image", "f1", "f5", "r3k2", "r5k4", "reconstruction"}
    assert not halves & {"am1", "am2", "am3", "smoothed", "score"}
    maps, scores = rig.program.run(golden.image[:1])
    smoothed = rig.smooth(golden.image[:1])
    assert_close(maps, golden.map[:1], "map", "float16")
    assert_close(smoothed, smooth(golden.map[:1]), "map", "float16")
    assert_close(scores, golden.score[:1], "map", "float16")
    assert rig.program.captured_sizes == (1,)
    rig.program.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_captured_graph_gives_what_the_steps_give(make_rig: Callable[..., Rig], seed: int) -> None:
    rig = make_rig(seed=seed)
    program, golden = rig.program, rig.bundle.golden()
    expected = rig.smooth(golden.image[:1])
    launched, enqueued = len(rig.gpu.launched), rig.engines[1]["tail"].enqueue_count
    program.upload(golden.image[:1])
    program.enqueue(1)
    program.stream.synchronize()
    assert rig.gpu.machine.graph_launch_count == 2  # the check at load, and this one
    assert (len(rig.gpu.launched), rig.engines[1]["tail"].enqueue_count) == (launched, enqueued)
    assert np.array_equal(program.get_tensor(1, "smoothed").host(), expected)
    program.close()


def test_nothing_is_allocated_or_waited_for_while_frames_run(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.program.upload(rig.bundle.golden().image[:1])
    before = (rig.gpu.device_heap.allocation_count, rig.gpu.pinned_heap.allocation_count)
    waited = rig.gpu.machine.synchronisation_count
    for _ in range(20):
        rig.program.enqueue(1)
    assert (rig.gpu.device_heap.allocation_count, rig.gpu.pinned_heap.allocation_count) == before
    assert rig.gpu.machine.synchronisation_count == waited
    rig.program.close()


def test_closing_frees_every_byte_and_closes_every_engine(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(batches=(1, 2))
    rig.program.close()
    rig.program.close()
    assert rig.gpu.device_heap.blocks == rig.gpu.pinned_heap.blocks == {}
    with pytest.raises(ClosedError):
        rig.engines[2]["tail"].enqueue(0)
    for call in (lambda: rig.program.enqueue(1), lambda: rig.program.prepare_assets({})):
        with pytest.raises(ClosedError):
            call()


def test_a_new_reference_is_used_from_the_next_frame_on(make_rig: Callable[..., Rig], rng: np.random.Generator) -> None:
    rig = make_rig()
    program, golden = rig.program, rig.bundle.golden()
    before = rig.smooth(golden.image[:1])
    hash_before = program.engine_hash
    program.upload(golden.image[:1])
    program.enqueue(1)  # a frame on its way keeps the old reference
    other = {name: rng.random(value.shape, np.float32) for name, value in rig.bundle.read_asset("reference").items()}
    program.use_assets(program.prepare_assets({"reference": other}))
    program.stream.synchronize()
    assert np.array_equal(program.get_tensor(1, "smoothed").host(), before)
    program.upload(golden.image[:1])
    program.enqueue(1)
    program.stream.synchronize()
    after = program.get_tensor(1, "smoothed").host().copy()
    assert program.engine_hash != hash_before and not np.array_equal(after, before)
    assert np.array_equal(rig.smooth(golden.image[:1]), after)
    program.use_assets(program.prepare_assets({"reference": rig.bundle.read_asset("reference")}))
    assert program.engine_hash == hash_before and np.array_equal(rig.smooth(golden.image[:1]), before)
    program.close()
    assert rig.gpu.device_heap.blocks == {}


@pytest.mark.parametrize("seed", range(4))
def test_references_that_follow_each_other_at_once_wait_for_each_other(
    make_rig: Callable[..., Rig], rng: np.random.Generator, seed: int
) -> None:
    rig = make_rig(seed=seed)
    program, golden, stored = rig.program, rig.bundle.golden(), rig.bundle.read_asset("reference")
    others = [{name: rng.random(value.shape, np.float32) for name, value in stored.items()} for _ in range(2)]
    expected = []
    for other in others:
        program.use_assets(program.prepare_assets({"reference": other}))
        expected.append(rig.smooth(golden.image[:1]))
    program.upload(golden.image[:1])
    program.use_assets(program.prepare_assets({"reference": others[0]}))
    program.enqueue(1)  # with the first; the copy of its reference may still be on its way
    prepared = program.prepare_assets({"reference": others[1]})
    program.stream.synchronize()
    assert np.array_equal(program.get_tensor(1, "smoothed").host(), expected[0])
    program.use_assets(prepared)
    assert np.array_equal(rig.smooth(golden.image[:1]), expected[1])
    program.close()


def test_an_asset_is_made_by_the_encoder(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    raw = rig.bundle.golden().raw_expected[0]  # the tiny bundle's reference image
    features = rig.program.compute_tensors(raw[None], ("encoder",), ("f3", "f4", "f5"))
    for name, expected in rig.bundle.read_asset("reference").items():
        assert_close(features[name], expected, "map", "float32")
    rig.program.close()


def test_a_program_of_one_engine_says_that_its_asset_cannot_be_swapped(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("fused")
    with pytest.raises(InputError, match="expected one whose steps read the asset, got 'fused'"):
        rig.program.prepare_assets({"reference": rig.bundle.read_asset("reference")})
    rig.program.close()


def test_goes_on_without_a_graph_where_capturing_is_refused(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(stream: Any, enqueue: Callable[[], None]) -> Any:
        raise DeviceError("captures are forbidden today")

    with caplog.at_level(logging.WARNING, "ndp_rt"):
        rig = make_rig(capture=refuse)
    assert "without a CUDA graph, a little slower: captures are forbidden today" in caplog.text
    golden = rig.bundle.golden()
    rig.program.upload(golden.image[:1])
    rig.program.enqueue(1)
    rig.program.stream.synchronize()
    assert_close(rig.program.get_tensor(1, "score").host(), golden.score[:1], "map", "float32")
    rig.program.close()


def test_a_graph_that_gives_other_maps_is_not_used(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    class EmptyGraph:
        def launch(self, stream: Any) -> None:
            """Lose the work: the results of the steps before must not pass for this one's."""

    def lose(stream: Any, enqueue: Callable[[], None]) -> Any:
        return EmptyGraph()

    with caplog.at_level(logging.WARNING, "ndp_rt"):
        rig = make_rig(capture=lose, batches=(1, 2))
    assert "batch 2 runs without a CUDA graph: expected what the same steps give" in caplog.text
    rig.program.close()


@pytest.mark.nightly
@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
def test_a_graph_that_lacks_any_one_of_its_nodes_is_not_used(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture, plan: str
) -> None:
    works: list[Operation] = []
    left_out = -1

    def capture(stream: Any, enqueue: Callable[[], None]) -> Any:
        graph: Any = capture_graph(CudaDevice(0), stream, enqueue)
        works[:] = [node for node in graph.nodes if node.run is not join]
        if left_out >= 0:
            works[left_out].run = join
        return graph

    rig = make_rig(plan, capture=capture)
    assert rig.program.captured_sizes == (1,) and len(works) >= 3
    rig.program.close()
    for left_out in range(len(works)):
        caplog.clear()
        rig = make_rig(plan, capture=capture)
        assert rig.program.captured_sizes == (), f"node {left_out} of {len(works)}"
        assert "batch 1 runs without a CUDA graph: expected what the same steps give" in caplog.text
        rig.program.close()


def test_a_graph_of_steps_that_give_other_bits_each_time_is_held_against_the_tolerance(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sums = itertools.count()
    monkeypatch.setattr(cuda_program, "sum_words", lambda *arguments: next(sums))
    rig = make_rig()
    assert rig.program.captured_sizes == (1,)
    rig.program.close()

    def lose_the_score(stream: Any, enqueue: Callable[[], None]) -> Any:
        graph: Any = capture_graph(CudaDevice(0), stream, enqueue)
        graph.nodes[-1].run = join
        return graph

    rig = make_rig(capture=lose_the_score)
    assert rig.program.captured_sizes == () and "within 1e-04, got results that differ by" in caplog.text
    rig.program.close()


def test_no_garbage_is_collected_while_capturing(make_rig: Callable[..., Rig]) -> None:
    class Cycle:
        """Frees memory of the GPU, when it is collected."""

        def __init__(self) -> None:
            self.itself, self.memory = self, DeviceMemory(CudaDevice(0), 8, "garbage")

        def __del__(self) -> None:
            self.memory.close()

    states = []

    def capture(stream: Any, enqueue: Callable[[], None]) -> Any:
        held = [Cycle()]

        def drop_and_enqueue() -> None:
            states.append(gc.isenabled())
            held.clear()  # nobody can reach it any more, but itself
            enqueue()

        return capture_graph(CudaDevice(0), stream, drop_and_enqueue)

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        rig = make_rig(capture=capture)
    finally:
        gc.set_threshold(*thresholds)
    assert states == [False] and gc.isenabled() and rig.program.captured_sizes == (1,)
    rig.program.close()
    gc.collect()
    assert rig.gpu.device_heap.blocks == {}


def test_memory_that_does_not_suffice_is_one_clear_error_and_a_smaller_batch_still_opens(
    make_rig: Callable[..., Rig],
) -> None:
    small = make_rig(batches=(1,))
    needed = small.gpu.device_heap.used_bytes
    small.program.close()
    with pytest.raises(
        DeviceError, match=r"expected \d+ free bytes on Fake GPU, got \d+ of \d+. Open with smaller batches"
    ):
        make_rig(batches=(1, 8), memory_bytes=needed)
    make_rig(batches=(1,), memory_bytes=needed).program.close()


def test_a_lost_device_is_one_clear_error_and_closing_still_works(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.gpu.machine.lost = CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified launch failure")
    with pytest.raises(DeviceError, match=r"cudaErrorLaunchFailure.*device='cpu'"):
        rig.program.enqueue(1)
    rig.program.close()


def test_tensors_share_memory(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("unmerged")
    steps = rig.program.find_steps(1)
    unshared = sum(array.nbytes for array in steps.tensors.values())
    print(f"{rig.program.buffer_bytes} bytes for tensors of {unshared} bytes")
    assert rig.program.buffer_bytes < 0.8 * unshared
    lifetimes = steps.find_lifetimes()
    assert lifetimes["smoothed"].last == len(steps.waves) and lifetimes["image"].first == 0
    rig.program.close()
