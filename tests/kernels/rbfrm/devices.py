"""Where rbfrm runs: bfloat16 needs tensor cores of compute capability 8.0."""

import pytest

from tests.kernels.conftest import ARCHITECTURES


def on_every_device(*dtypes: str) -> pytest.MarkDecorator:
    """Run a test for each element type on every `device` that has it."""
    on_gpu = [pytest.param(dtype, "gpu", marks=pytest.mark.gpu) for dtype in dtypes]
    forms = [(dtype, name) for dtype in dtypes for name in ARCHITECTURES if (dtype, name) != ("bfloat16", "sm75")]
    return pytest.mark.parametrize(("dtype", "device"), [*forms, *on_gpu], indirect=["device"])
