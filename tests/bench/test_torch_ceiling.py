"""PyTorch's ceiling: it runs the same products, and leaves PyTorch's settings as they were."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ndp_rt.bench import ceiling
from ndp_rt.bench.ceiling import Ceiling, Product
from ndp_rt.bench.rivals.torch_ceiling import measure_torch_ceiling
from ndp_rt.bench.timed import probe
from ndp_rt.errors import InputError

pytestmark = pytest.mark.torch

SMALL = (Product(side=16), Product(side=4, image_px=8))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "WARM_UP_S", 0.0)
    monkeypatch.setattr(ceiling, "MEASURE_S", 0.0)


@pytest.mark.parametrize("product", SMALL)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_product_is_run_in_each_precision(product: Product, precision: str) -> None:
    found = measure_torch_ceiling(precision, 1, products=[product])
    assert found.gflop_per_s > 0 and found.note.startswith(f"pytorch {precision}, 1 thread: {product}")


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    measure_torch_ceiling("fp32", before + 1, products=SMALL)
    assert torch.get_num_threads() == before


def test_what_pytorch_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="got 'int8'"):
        measure_torch_ceiling("int8", 1)


def test_on_a_gpu_it_is_what_the_torch_cuda_backend_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(backend: Any, device: Any, precision: str) -> Ceiling:
        return Ceiling(gflop_per_s=1.0, size="small", note=f"{backend.name} {precision}")

    monkeypatch.setattr(probe, "CudaDevice", lambda index: SimpleNamespace(activate=lambda: None))
    monkeypatch.setattr(ceiling, "measure_device_ceiling", measure)
    assert probe.measure_ceiling(probe.TORCH, "bf16", None, "cuda:0")["note"] == "torch-cuda bf16"
