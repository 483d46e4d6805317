"""PyTorch's own ceiling: the products of `ndp_rt.bench.ceiling` by torch.mm and conv2d, eager."""

import contextlib
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn import functional

from ndp_rt.bench.ceiling import DEVICE_PRODUCTS, HOST_PRODUCTS, KERNEL, Ceiling, Product, RunOnce, search_ceiling
from ndp_rt.bench.rivals.pytorch import find_no_gpu, hold_threads, set_switches
from ndp_rt.errors import DeviceError, EngineError, InputError

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def measure_torch_ceiling(
    precision: str, threads: int | None, device: str = "cpu", products: Iterable[Product] | None = None
) -> Ceiling:
    """Measure what PyTorch reaches on "cpu" or "cuda" with so many threads, by `products` or those of the device.

    Raises:
        InputError: another precision.
        DeviceError: no GPU for PyTorch.
        EngineError: PyTorch refuses every product.
    """
    on_gpu = device == "cuda"
    reason = find_no_gpu() if on_gpu else None
    if precision not in DTYPES:
        raise InputError(f"PyTorch: expected one of the precisions {', '.join(DTYPES)}, got '{precision}'.")
    if reason is not None:
        raise DeviceError(reason)

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        rng = np.random.default_rng(0)
        shape = (product.batch, product.side, *([product.image_px] * 2 if product.image_px else []))
        arrays = (rng.standard_normal(shape, np.float32), product.make_weights(rng))
        values, weights = (torch.from_numpy(array).to(device, DTYPES[precision]) for array in arrays)
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

    count = torch.get_num_threads() if threads is None else threads
    where = f" on {torch.cuda.get_device_name()}" if on_gpu else f", {count} thread{'s' if count > 1 else ''}"
    chosen = products if products is not None else (DEVICE_PRODUCTS if on_gpu else HOST_PRODUCTS)
    with hold_threads(threads), torch.inference_mode(), set_switches(torch, allows_tf32=precision == "tf32"):
        return search_ceiling(chosen, open_product, f"pytorch {precision}{where}")
