"""The ceiling: the best of repeats wins, backends are asked as engines are, and the figures are those of the clock."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bench import ceiling as module
from ndp_rt.bench.ceiling import (
    DEVICE_PRODUCTS,
    HOST_PRODUCTS,
    Product,
    RunOnce,
    find_best_s,
    list_host_products,
    make_host_graph,
    measure_copy_gbyte_per_s,
    measure_device_ceiling,
    measure_host_ceiling,
    search_ceiling,
)
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.torch.backend import TorchCudaBackend
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.registry import find_device_backend, find_host_backend
from ndp_rt.errors import EngineError, InputError
from tests.fakes.fake_cupy import FakeCuda

SMALL = (Product(side=16), Product(side=4, image_px=8))


class FakeClock:
    """A clock that every look moves on, and runs that take what a list says, its last entry for ever."""

    def __init__(self, *run_s: float, look_s: float = 0.0) -> None:
        self.now_s, self.run_s, self.run_count, self.look_s = 0.0, list(run_s), 0, look_s

    def __call__(self) -> float:
        self.now_s += self.look_s
        return self.now_s

    def run_once(self) -> float:
        seconds = self.run_s[min(self.run_count, len(self.run_s) - 1)]
        self.run_count += 1
        self.now_s += seconds
        return seconds


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for as short as can be."""
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    monkeypatch.setattr(module, "MEASURE_S", 0.0)


@pytest.mark.parametrize("product", [Product(side=5), Product(side=3, image_px=7)])
def test_a_product_counts_its_multiply_adds_twice(product: Product, rng: np.random.Generator) -> None:
    weights = product.make_weights(rng)
    per_row = weights.size  # each row, or pixel, meets each weight once
    assert product.flop_count == 2 * per_row * (product.image_px**2 or product.side)


def test_products_come_smallest_first_so_that_too_large_ones_are_known() -> None:
    for products in ([one for one in HOST_PRODUCTS if not one.image_px], DEVICE_PRODUCTS):
        assert [one.flop_count for one in products] == sorted(one.flop_count for one in products)


def test_the_fastest_run_after_the_warm_up_counts() -> None:
    clock = FakeClock(0.001, 0.06, 0.05, 0.06, 0.04, 0.07)
    assert find_best_s(clock.run_once, clock) == 0.04  # the first two, one of them faster, were the warm-up's


def test_a_run_longer_than_the_time_is_still_repeated() -> None:
    clock = FakeClock(3.0, 2.0, 1.0)
    assert find_best_s(clock.run_once, clock) == 1.0
    assert clock.run_count == 1 + module.MIN_RUN_COUNT


def test_the_product_with_the_highest_rate_wins_and_one_that_is_refused_is_passed_over() -> None:
    seconds = {16: 1e-6, 32: 4e-6, 64: 64e-6}

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        if product.side == 8:
            raise EngineError("too small")
        yield FakeClock(seconds[product.side]).run_once

    products = [Product(side=side) for side in (8, 16, 32, 64)]
    found = search_ceiling(products, open_product, "a fake", clock=FakeClock(look_s=0.1))
    assert found.gflop_per_s == pytest.approx(2 * 32**3 / 4e-6 * 1e-9)
    assert found.size == "product 32 x 32 x 32" and found.note.startswith("a fake: product 32 x 32 x 32")


def test_a_product_that_would_take_too_long_is_not_begun() -> None:
    opened = []

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        opened.append(product.side)
        yield FakeClock(product.flop_count * 1e-6).run_once  # 10^6 FLOP a second

    search_ceiling([Product(side=side) for side in (8, 16, 64)], open_product, "slow", clock=FakeClock(look_s=0.1))
    assert opened == [8, 16]


def test_where_nothing_runs_the_reason_is_said() -> None:
    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        raise EngineError("no such operator")
        yield

    with pytest.raises(EngineError, match="with a fake: no such operator"):
        search_ceiling(SMALL, open_product, "a fake")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_backend_on_the_host_runs_products_and_convolutions(backend: str) -> None:
    for product in SMALL:
        found = measure_host_ceiling(find_host_backend(backend), "fp32", 1, [product])
        assert found.gflop_per_s > 0 and found.size == str(product)
        assert found.note.startswith(f"{backend} fp32, 1 thread: ")


@pytest.mark.usefixtures("quick")
def test_a_precision_that_the_backend_lacks_is_refused_as_it_refuses_it() -> None:
    with pytest.raises(InputError, match="expected precision fp32 for backend onnxruntime, got 'bf16'"):
        measure_host_ceiling(find_host_backend("onnxruntime"), "bf16", 1, SMALL)


@pytest.mark.skipif(not find_cpu().has_bf16, reason="needs a CPU with AVX512-BF16 or AMX")
def test_bf16_has_a_higher_ceiling_than_fp32_where_the_processor_has_it() -> None:
    products = [Product(side=512)]
    wide, narrow = (measure_host_ceiling(find_host_backend("openvino"), one, 1, products) for one in ("fp32", "bf16"))
    assert narrow.gflop_per_s > 1.3 * wide.gflop_per_s  # 1.9 times on an idle Zen 4


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("precision", "words"), [("int8", "1 thread: "), ("mixed", "by a product in int8")])
def test_the_ceiling_of_int8_is_a_convolutions_whose_input_and_weights_are_rounded(precision: str, words: str) -> None:
    found = measure_host_ceiling(find_host_backend("openvino"), precision, 1, [Product(side=32, image_px=8)])
    assert found.gflop_per_s > 0 and found.note.startswith(f"openvino {precision}, 1 thread") and words in found.note
    assert all(product.image_px for product in list_host_products(precision))
    assert list_host_products("bf16") == HOST_PRODUCTS


def test_openvino_multiplies_in_int8_what_the_ceiling_gives_it(tmp_path: Path, rng: np.random.Generator) -> None:
    path, artifact = tmp_path / "product.onnx", tmp_path / "engine"
    path.write_bytes(make_host_graph(Product(side=32, image_px=8), "int8", rng).SerializeToString())
    options, backend = EngineOptions(precision="int8", threads=1), find_host_backend("openvino")
    engine = compile_engine(backend.name, path, artifact, options)
    try:
        backend.check_precision(engine.precision_by_layer_type(), "int8")  # raises where no layer is in int8
    finally:
        engine.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("precision", "words"), [("fp32", "fake fp32 on"), ("int8", "by a product in fp16")])
def test_a_backend_on_a_gpu_is_timed_by_events_and_frees_everything(
    fake_gpu: FakeCuda, precision: str, words: str
) -> None:
    backend, product = find_device_backend("fake"), Product(side=16)
    found = measure_device_ceiling(backend, CudaDevice(0), precision, [product])
    event_ms = 1.0  # what the fake's events say, of ENQUEUE_COUNT products
    assert found.gflop_per_s == pytest.approx(product.flop_count * module.ENQUEUE_COUNT / (event_ms * 1e-3) * 1e-9)
    assert words in found.note
    assert fake_gpu.device_heap.blocks == fake_gpu.pinned_heap.blocks == {}


@pytest.mark.torch
@pytest.mark.usefixtures("quick", "fake_gpu")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_backend_of_pytorch_takes_products_of_each_type(precision: str) -> None:
    found = measure_device_ceiling(TorchCudaBackend("cpu"), CudaDevice(0), precision, [Product(side=16)])
    assert found.note.startswith(f"torch-cuda {precision} on")


@pytest.mark.parametrize("threads", [1, 2])
def test_copies_are_counted_read_and_written(threads: int) -> None:
    rate = measure_copy_gbyte_per_s(threads, 2**20)
    assert 0.0 < rate < 5000


def test_no_thread_copies_nothing() -> None:
    with pytest.raises(InputError, match="got 0"):
        measure_copy_gbyte_per_s(0)
