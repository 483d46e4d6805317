"""The machine's measured ceiling: the most that one product reaches through a backend, and what a copy reaches.

Products are timed exactly as engines run them: compiled and loaded by the backend in the precision and with the threads
of the row that the ceiling is held against. The best of all repeats counts, since a ceiling is a maximum: whatever else
the machine did can only have slowed the others.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.devices.cuda.driver import CudaDevice, translate_errors
from ndp_rt.devices.cuda.memory import STAGING_BYTES, DeviceMemory, PinnedMemory, copy_and_wait
from ndp_rt.engines.backend import DeviceBackend, EngineOptions, HostBackend
from ndp_rt.errors import EngineError, InputError
from ndp_rt.files import make_temporary_folder
from ndp_rt.graphs.half_types import narrow
from ndp_rt.graphs.products import make_convolution, make_product
from ndp_rt.graphs.quantised import name_layers, quantise
from ndp_rt.graphs.typed import make_typed
from ndp_rt.program.manifest import INT8_PRECISIONS

FloatArray = NDArray[np.float32]
RunOnce = Callable[[], float]  # one product; returns its seconds

KERNEL = 3  # side of a convolution's kernel
WARM_UP_S, MEASURE_S = 0.05, 0.15  # of each product: all of them together take a second or two
MIN_RUN_COUNT = 3
TOO_LONG_S = 0.1  # of one run: MIN_RUN_COUNT and a warm-up of a longer one would take half a second
ENQUEUE_COUNT = 10  # products between two events, so that launching costs nothing beside them
TOO_LONG_ON_DEVICE_S = TOO_LONG_S / 2  # of each of ENQUEUE_COUNT
COPY_BYTES = 128 * 2**20  # a thread's array: past every cache, also where a core has 32 MiB for itself
COPY_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product of three sides, or the 3 x 3 convolution of a square image that is one.

    Attributes:
        side: of a product's matrices; channels in and out of a convolution.
        image_px: side of the convolution's image; 0: a product.
    """

    side: int
    image_px: int = 0

    @property
    def flop_count(self) -> int:
        """Operations, a multiply-add counted as 2."""
        if self.image_px:
            return 2 * self.image_px**2 * (KERNEL * self.side) ** 2
        return 2 * self.side**3

    @property
    def batch(self) -> int:
        """The length of the graph's batch axis."""
        return 1 if self.image_px else self.side

    def __str__(self) -> str:
        if self.image_px:
            return f"convolution 3 x 3, {self.side} channels, {self.image_px} x {self.image_px} px"
        return f"product {self.side} x {self.side} x {self.side}"

    def make_weights(self, rng: np.random.Generator) -> FloatArray:
        """Return random weights, since a product with zeros takes less current and may run at a higher clock."""
        shape = (self.side, self.side, KERNEL, KERNEL) if self.image_px else (self.side, self.side)
        scale = np.sqrt(self.side * (KERNEL**2 if self.image_px else 1))  # so that sums stay near 1
        return np.asarray(rng.standard_normal(shape, np.float32) / scale, np.float32)

    def make_graph(self, rng: np.random.Generator) -> Any:
        """Return it as an onnx.ModelProto."""
        weights = self.make_weights(rng)
        return make_convolution(weights, self.image_px, self.image_px) if self.image_px else make_product(weights)


# Small ones run in a core's own cache, and often enough to meet a moment when nothing else runs; large ones feed many
# cores. Some libraries multiply faster in a convolution than in a product: a network's share then stays below 1.
HOST_PRODUCTS = (
    Product(side=256),
    Product(side=512),
    Product(side=1024),
    Product(side=2048),
    Product(side=64, image_px=64),
    Product(side=128, image_px=32),
    Product(side=256, image_px=32),
)
# Engines have convolutions alone in int8. The larger one spends less of its time on rounding its input to int8.
INT8_PRODUCTS = (*(product for product in HOST_PRODUCTS if product.image_px), Product(side=512, image_px=32))
INT8_LIMIT = 4.0  # of normally distributed inputs: the |value| that becomes 127
DEVICE_PRODUCTS = (Product(side=2048), Product(side=4096), Product(side=8192))


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most that was reached, a multiply-add counted as 2; `size` of the product in words, `note` a sentence."""

    gflop_per_s: float
    size: str
    note: str


def list_host_products(precision: str) -> tuple[Product, ...]:
    """Return the products that are tried on a CPU, the smaller ones first."""
    return INT8_PRODUCTS if precision in INT8_PRECISIONS else HOST_PRODUCTS


def make_host_graph(product: Product, precision: str, rng: np.random.Generator) -> Any:
    """Return a product as an onnx.ModelProto, in int8 as an engine has its convolutions: rounded in front of each."""
    graph = product.make_graph(rng)
    if precision not in INT8_PRECISIONS:
        return graph
    return quantise(graph, dict.fromkeys(name_layers(graph), INT8_LIMIT))


@contextlib.contextmanager
def compiling(backend: Any, graph: Any, options: EngineOptions) -> Iterator[Any]:
    """Give a graph's engine, compiled and loaded past the cache, and close it."""
    with make_temporary_folder("ceiling") as name:
        path, artifact = Path(name) / "product.onnx", Path(name) / "engine"
        path.write_bytes(graph.SerializeToString())
        artifact.mkdir()
        backend.compile(path, artifact, options)
        with contextlib.closing(backend.load(artifact, options)) as engine:
            yield engine


def measure_host_ceiling(
    backend: HostBackend, precision: str, threads: int | None, products: Iterable[Product] | None = None
) -> Ceiling:
    """Measure what a backend on the CPU reaches.

    That of "mixed" is an int8 product's: the most that any of its layers could reach.

    Args:
        backend: such as `ndp_rt.engines.registry.find_backend("openvino")`.
        precision: that it offers.
        threads: of its engines; None: as many as it chooses.
        products: to try, the smaller ones first; None: `list_host_products`.

    Raises:
        MissingExtraError: the backend is not installed.
        InputError: a precision that it does not offer.
        EngineError: it refuses every product.
    """

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        rng = np.random.default_rng(0)
        options = EngineOptions(precision=precision, batch=product.batch, threads=threads, rewrites=False)
        with compiling(backend, make_host_graph(product, precision, rng), options) as engine:
            inputs = {name: rng.standard_normal(spec.with_batch(1), np.float32) for name, spec in engine.inputs.items()}
            outputs = {name: np.empty(spec.with_batch(1), np.float32) for name, spec in engine.outputs.items()}

            def run_once() -> float:
                start = time.perf_counter()
                engine.run(inputs, outputs)
                return time.perf_counter() - start

            yield run_once

    words = "its own choice of threads" if threads is None else f"{threads} thread{'s' if threads > 1 else ''}"
    words = f"{backend.name} {precision}, {words}"
    if precision == "mixed":
        words += " (by a product in int8, the fastest that its layers compute in)"
    return search_ceiling(list_host_products(precision) if products is None else products, open_product, words)


def measure_device_ceiling(
    backend: DeviceBackend, device: CudaDevice, precision: str, products: Iterable[Product] = DEVICE_PRODUCTS
) -> Ceiling:
    """Measure what a backend on a GPU reaches; arguments as for `measure_host_ceiling`.

    int8 engines quantise by nodes that a single product has not, so their ceiling is float16's.

    Raises:
        MissingExtraError, DeviceError, InputError: as `DeviceBackend.compile`.
        EngineError: it refuses every product.
    """
    typed = "fp16" if precision == "int8" else precision

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        rng = np.random.default_rng(0)
        device.activate()
        options = EngineOptions(precision=typed, batch=product.batch, device_index=device.index)
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(compiling(backend, make_typed(product.make_graph(rng), typed), options))
            stream = device.cupy.cuda.Stream(non_blocking=True)
            pointers, staging = {}, PinnedMemory(device, STAGING_BYTES)
            stack.callback(staging.close)
            for spec in (*engine.inputs.values(), *engine.outputs.values()):
                values = narrow(rng.standard_normal(spec.with_batch(1), np.float32), spec.dtype)
                memory = DeviceMemory(device, values.nbytes, f"'{spec.name}' of a product")
                stack.callback(memory.close)
                copy_and_wait(device, memory.pointer, values, stream, staging, to_device=True)
                pointers[spec.name] = memory.pointer
            engine.bind(pointers)
            stack.callback(stream.synchronize)
            yield make_device_run(device, stream, lambda: engine.enqueue(stream.ptr))

    words = f"{backend.name} {precision} on {device.name}"
    if typed != precision:
        words += f" (by a product in {typed}, which is what a single product can be given)"
    return search_ceiling(products, open_product, words, too_long_s=TOO_LONG_ON_DEVICE_S)


def make_device_run(device: CudaDevice, stream: Any, enqueue: Callable[[], None]) -> RunOnce:
    """Return a function that puts ENQUEUE_COUNT times the same work on a stream and returns the seconds of one."""
    cuda = device.cupy.cuda
    begin, end = cuda.Event(), cuda.Event()

    def run_once() -> float:
        with translate_errors("timing a product"):
            begin.record(stream)
            for _ in range(ENQUEUE_COUNT):
                enqueue()
            end.record(stream)
            end.synchronize()
            return float(cuda.get_elapsed_time(begin, end)) * 1e-3 / ENQUEUE_COUNT

    return run_once


def search_ceiling(
    products: Iterable[Product],
    open_product: Callable[[Product], contextlib.AbstractContextManager[RunOnce]],
    words: str,
    *,
    too_long_s: float = TOO_LONG_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Ceiling:
    """Return the best of all products.

    A product that the backend refuses is passed over, and so is one that would take too long at the best rate so far.

    Args:
        products: the smaller ones first.
        open_product: gives a function that runs it once and returns its seconds.
        words: for the note: what runs them.
        too_long_s: of one run.
        clock: seconds; for tests.

    Raises:
        EngineError: none could be run; the message has the last reason.
    """
    best, refusal = 0.0, "there is none to try"  # FLOP a second
    winner: Product | None = None
    for product in products:
        if product.flop_count > too_long_s * best > 0:
            continue
        try:
            with open_product(product) as run_once:
                rate = product.flop_count / find_best_s(run_once, clock)
        except EngineError as error:
            refusal = str(error)
            continue
        if rate > best:
            best, winner = rate, product
    if winner is None:
        raise EngineError(f"no ceiling could be measured with {words}: {refusal}")
    return Ceiling(gflop_per_s=best * 1e-9, size=str(winner), note=f"{words}: {winner}, the best of all repeats")


def find_best_s(run_once: RunOnce, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of the fastest run after a warm-up."""
    best = float("inf")
    for limit_s, counts in ((WARM_UP_S, False), (MEASURE_S, True)):
        end, run_count = clock() + limit_s, 0
        while run_count < (MIN_RUN_COUNT if counts else 1) or clock() < end:
            seconds = run_once()
            run_count += 1
            best = min(best, seconds) if counts else best
    return max(best, 1e-9)  # a clock that did not move


def measure_copy_gbyte_per_s(threads: int, array_bytes: int = COPY_BYTES) -> float:
    """Return what threads reach that each copy an array of their own: 10^9 bytes a second, read and written together.

    The processor also reads the lines that it overwrites unless a copy goes past the caches; those are not counted.

    Raises:
        InputError: no thread.
    """
    if threads < 1:
        raise InputError(f"expected 1 thread or more, got {threads}.")
    arrays = [(np.zeros(array_bytes, np.uint8), np.ones(array_bytes, np.uint8)) for _ in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPY_REPEATS + 1):
            start = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), arrays))  # without the GIL
            seconds.append(time.perf_counter() - start)
    return 2e-9 * array_bytes * threads / min(seconds[1:])  # the first one warms up
