"""Checkpoints: what goes in comes out, a damaged file says so, a failed write leaves the old file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ndp_rt.errors import RunError, StorageError
from ndp_rt.export.training.checkpoint import (
    load_tensors,
    pack_state,
    save_tensors,
    unpack_modules,
    unpack_optimizer,
    write_atomically,
)

pytestmark = pytest.mark.torch


def make_trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 2, 5, 5).cumsum(3)).square().sum().backward()
    optimizer.step()


def test_a_restored_state_steps_on_as_the_saved_one(tmp_path: Path) -> None:
    model, optimizer = make_trained(0)
    save_tensors(tmp_path / "c", pack_state({"model": model}, optimizer), {"step": 3})
    restored, other_optimizer = make_trained(1)
    tensors, header = load_tensors(tmp_path / "c")
    unpack_modules({"model": restored}, tensors)
    unpack_optimizer(other_optimizer, tensors)
    assert header == {"step": 3}
    for _ in range(2):
        step(model, optimizer)
        step(restored, other_optimizer)
    others = restored.state_dict()
    assert all(torch.equal(tensor, others[name]) for name, tensor in model.state_dict().items())


@pytest.mark.nightly
def test_equal_states_are_equal_files_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from ndp_rt.export.training.checkpoint import save_tensors; "
        "save_tensors(Path(sys.argv[1]), {'b': torch.ones(3), 'a': torch.arange(5)}, {'ü': 1, 'a': [2]})"
    )
    for index in range(4):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / f"{index}")], check=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    tensors, header = load_tensors(tmp_path / "0")
    assert header == {"ü": 1, "a": [2]} and torch.equal(tensors["a"], torch.arange(5))


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_damaged_or_missing_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "checkpoint.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors"):
        load_tensors(path)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c"
    save_tensors(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="cannot be read"):
        load_tensors(path)


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    model, _ = make_trained(0)
    with pytest.raises(RunError, match="another network"):
        unpack_modules({"model": model}, {"model.0.weight": torch.ones(1)})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
