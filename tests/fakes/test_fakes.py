"""The fakes notice what they are there to notice, and have the real CuPy's names and signatures."""

import importlib.util
import inspect
from typing import Any

import numpy as np
import pytest

from tests.fakes.fake_cupy import DEVICE_TO_HOST, HOST_TO_DEVICE, FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError

SEEDS = range(8)


def make_streams(gpu: FakeCuda, count: int) -> list[Any]:
    return [gpu.module.cuda.Stream(non_blocking=True) for _ in range(count)]


def send(seed: int, *, waits: bool) -> int:
    """Upload a byte on one stream, download it on another, and return what arrived."""
    gpu = FakeCuda(seed=seed)
    runtime, (up, down) = gpu.module.cuda.runtime, make_streams(gpu, 2)
    host, device = runtime.hostAlloc(2, 0), runtime.malloc(1)
    block = gpu.pinned_heap.blocks[host]
    block[:] = 7, 0
    runtime.memcpyAsync(device, host, 1, HOST_TO_DEVICE, up.ptr)
    if waits:
        down.wait_event(up.record())
    runtime.memcpyAsync(host + 1, device, 1, DEVICE_TO_HOST, down.ptr)
    down.synchronize()
    return int(block[1])


def test_a_missing_wait_shows_as_stale_data() -> None:
    assert {send(seed, waits=True) for seed in SEEDS} == {7}
    assert any(send(seed, waits=False) != 7 for seed in SEEDS)


def overwrite(seed: int, *, waits: bool) -> int:
    """Upload a byte, download it on another stream, upload the next one to its place; return what arrived first."""
    gpu = FakeCuda(seed=seed)
    runtime, (up, down) = gpu.module.cuda.runtime, make_streams(gpu, 2)
    host, device = runtime.hostAlloc(3, 0), runtime.malloc(1)
    block = gpu.pinned_heap.blocks[host]
    block[:] = 7, 8, 0
    runtime.memcpyAsync(device, host, 1, HOST_TO_DEVICE, up.ptr)
    down.wait_event(up.record())
    runtime.memcpyAsync(host + 2, device, 1, DEVICE_TO_HOST, down.ptr)
    if waits:
        up.wait_event(down.record())
    runtime.memcpyAsync(device, host + 1, 1, HOST_TO_DEVICE, up.ptr)
    up.synchronize()
    down.synchronize()
    return int(block[2])


def test_memory_that_is_used_again_too_early_shows() -> None:
    assert {overwrite(seed, waits=True) for seed in SEEDS} == {7}
    assert any(overwrite(seed, waits=False) == 8 for seed in SEEDS)


def test_a_graph_runs_branches_in_any_order_and_refuses_those_that_are_not_joined() -> None:
    orders = set()
    for seed in SEEDS:
        gpu, ran = FakeCuda(seed=seed), []
        main, branch = make_streams(gpu, 2)
        main.begin_capture(1)
        branch.wait_event(main.record())
        main.add(lambda: ran.append("main"))  # noqa: B023
        branch.add(lambda: ran.append("branch"))  # noqa: B023
        main.wait_event(branch.record())
        main.add(lambda: ran.append("end"))  # noqa: B023
        graph = main.end_capture()
        assert ran == []
        for _ in range(2):
            graph.launch(main)
        main.synchronize()
        assert len(ran) == 6 and ran[2] == ran[5] == "end"
        orders |= {tuple(ran[:3]), tuple(ran[3:])}
    assert len(orders) == 2
    main.begin_capture(1)
    branch.wait_event(main.record())
    branch.add(lambda: None)
    with pytest.raises(CUDARuntimeError, match="not joined"):
        main.end_capture()


def test_what_cuda_forbids_while_capturing_is_refused() -> None:
    gpu = FakeCuda()
    (stream,) = make_streams(gpu, 1)
    for forbidden in (stream.synchronize, lambda: gpu.module.cuda.runtime.malloc(1)):
        stream.begin_capture(1)
        with pytest.raises(CUDARuntimeError, match="while capturing"):
            forbidden()
        with pytest.raises(CUDARuntimeError, match="while capturing"):
            stream.end_capture()
    stream.begin_capture(1)
    assert stream.end_capture() is not None


def test_copies_outside_of_allocations_and_from_pageable_memory_are_refused() -> None:
    gpu = FakeCuda()
    runtime, (stream,) = gpu.module.cuda.runtime, make_streams(gpu, 1)
    host, device = runtime.hostAlloc(8, 0), runtime.malloc(8)
    pageable = np.zeros(8, np.uint8)
    for dst, src, size in (
        (device, host, 9),
        (device + 4, host, 8),
        (host, host, 8),
        (device, pageable.ctypes.data, 8),
    ):
        with pytest.raises(CUDARuntimeError):
            runtime.memcpyAsync(dst, src, size, HOST_TO_DEVICE, stream.ptr)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="needs CuPy: pip install cupy-cuda13x")
def test_the_fake_has_the_names_and_arguments_of_the_real_cupy() -> None:
    import cupy

    fake = FakeCuda().module
    for name in vars(fake.cuda.runtime):
        assert hasattr(cupy.cuda.runtime, name), f"cupy.cuda.runtime.{name}"
    for name in vars(fake.cuda):
        assert name.startswith("__") or name == "runtime" or hasattr(cupy.cuda, name), f"cupy.cuda.{name}"
    (stream,) = make_streams(FakeCuda(), 1)
    pairs = (
        (stream, cupy.cuda.Stream, ("synchronize", "use", "record", "wait_event", "begin_capture", "end_capture")),
        (stream.record(), cupy.cuda.Event, ("record", "synchronize")),
    )
    for ours, theirs, names in pairs:
        for name in names:
            assert hasattr(ours, name) and hasattr(theirs, name), f"{theirs.__name__}.{name}"
    first_line = cupy.RawModule.__doc__.splitlines()[0]  # compiled code states its signature there
    for argument in inspect.signature(FakeCuda()._make_raw_module).parameters:
        assert f" {argument}=" in first_line or f"({argument}" in first_line, (argument, first_line)
