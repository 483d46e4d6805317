"""PyTorch's own ceiling on a CPU: the products of `ndp_rt.bench.ceiling` by torch.mm and conv2d, eager."""

import contextlib
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn import functional

from ndp_rt.bench.ceiling import HOST_PRODUCTS, KERNEL, Ceiling, Product, RunOnce, search_ceiling
from ndp_rt.bench.rivals.pytorch import hold_threads
from ndp_rt.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_torch_ceiling(precision: str, threads: int | None, products: Iterable[Product] = HOST_PRODUCTS) -> Ceiling:
    """Measure what PyTorch reaches on the CPU with so many threads.

    Raises:
        InputError: another precision.
    """
    if precision not in DTYPES:
        raise InputError(f"PyTorch: expected one of the precisions {', '.join(DTYPES)}, got '{precision}'.")

    @contextlib.contextmanager
    def open_product(product: Product) -> Iterator[RunOnce]:
        rng = np.random.default_rng(0)
        shape = (product.batch, product.side, *([product.image_px] * 2 if product.image_px else []))
        arrays = (rng.standard_normal(shape, np.float32), product.make_weights(rng))
        values, weights = (torch.from_numpy(array).to(DTYPES[precision]) for array in arrays)
        if product.image_px:  # the layout in which its libraries compute convolutions
            values, weights = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (values, weights))

        def run_once() -> float:
            start = time.perf_counter()
            if product.image_px:
                functional.conv2d(values, weights, padding=KERNEL // 2)
            else:
                torch.mm(values, weights)
            return time.perf_counter() - start

        yield run_once

    count = torch.get_num_threads() if threads is None else threads
    with hold_threads(threads), torch.inference_mode():
        return search_ceiling(products, open_product, f"pytorch {precision}, {count} thread{'s' if count > 1 else ''}")
