"""Settings of training that follow from the machine."""

from dataclasses import replace

import pytest

from ndp_rt.devices.machine import find_cpu
from ndp_rt.export.models.memseg.settings import MemSegSettings
from ndp_rt.export.training import settings


@pytest.mark.parametrize(
    ("has_bf16", "device", "given", "expected"),
    [
        (True, "cpu", None, "bf16"),
        (False, "cpu", None, "fp32"),
        (False, "cuda", None, "bf16"),
        (False, "cpu", "bf16", "bf16"),
        (True, "cpu", "fp32", "fp32"),
    ],
)
def test_mixed_precision_is_chosen_where_the_device_has_it(
    has_bf16: bool, device: str, given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("avx2", "avx512_bf16") if has_bf16 else ("avx2",)
    monkeypatch.setattr(settings, "find_cpu", lambda: replace(find_cpu(), isa_flags=flags))
    made = MemSegSettings(device=device, **({} if given is None else {"precision": given}))
    assert made.precision == made.to_json()["precision"] == expected
