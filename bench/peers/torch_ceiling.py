"""PyTorch's own ceiling: the products of `ndp_rt.bench.ceiling` by torch.mm and conv2d, eager."""

import contextlib
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn import functional

from ndp_rt.bench.ceiling import DEVICE_PRODUCTS, HOST_PRODUCTS, KERNEL, Ceiling, Product, RunOnce, search_ceiling
from ndp_rt.bench.peers.torch_peers import set_switches
from ndp_rt.errors import DeviceError, EngineError, InputError

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def measure_torch_ceiling(
    precision: str, threads: int | None, device: str = "cpu", products: Iterable[Product] | None = None
) -> Ceiling:
    """Measure what PyTorch reaches.

    Args:
        precision: fp32, tf32, fp16 or bf16.
        threads: on the CPU; set for the measurement and put back. None: as many as are set.
        device: "cpu" or "cuda".
        products: to try; None: those of `ndp_rt.bench.ceiling` for the device.

    Raises:
        InputError: another precision.
        DeviceError: no GPU for PyTorch.
        EngineError: PyTorch refuses every product.
    """
    if precision not in DTYPES:
        raise InputError(f"precision is '{precision}'; PyTorch takes {', '.join(DTYPES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"PyTorch {torch.__version__} finds no GPU. Use device 'cpu', or install a driver.")
    on_gpu = device == "cuda"
    before = torch.get_num_threads()
    count = before if threads is None else threads

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        rng = np.random.default_rng(0)
        dtype, place = DTYPES[precision], torch.device(device)
        weights = torch.from_numpy(product.make_weights(rng)).to(place, dtype)
        shape = (product.batch, product.side, *([product.image_px] * 2 if product.image_px else []))
        values = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(place, dtype)
        if product.image_px:  # the layout in which its libraries compute convolutions
            values, weights = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (values, weights))

        def run_once() -> float:
            start = time.perf_counter()
            if product.image_px:
                functional.conv2d(values, weights, padding=KERNEL // 2)
            else:
                torch.mm(values, weights)
            if on_gpu:
                torch.cuda.synchronize()
            return time.perf_counter() - start

        try:
            yield run_once
        except RuntimeError as error:
            raise EngineError(f"PyTorch refuses {product} in {precision}: {' '.join(str(error).split())}") from error

    words = f"pytorch {precision}" + ("" if on_gpu else f", {count} thread{'s' if count > 1 else ''}")
    if on_gpu:
        words += f" on {torch.cuda.get_device_name()}"
    chosen = products if products is not None else (DEVICE_PRODUCTS if on_gpu else HOST_PRODUCTS)
    torch.set_num_threads(count)
    try:
        with torch.inference_mode(), set_switches(torch, allows_tf32=precision == "tf32"):
            return search_ceiling(chosen, open_product, words)
    finally:
        torch.set_num_threads(before)
