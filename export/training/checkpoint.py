"""Training state on disk: safetensors with the counters in its header, written atomically."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ndp_rt.engines.engine import one_line
from ndp_rt.errors import RunError, StorageError

FORMAT = "ndp-rt checkpoint 1"
REMEDY = "Train again without --resume."  # for a run's own checkpoint
_LENGTH_BYTES = 8


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new, nothing between.

    Raises:
        StorageError: no space, no permission, a read-only folder.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}. Free some space or give another folder."
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header of JSON values as one safetensors file, atomically."""
    dense = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, "header": json.dumps(header)}
    write_atomically(path, _order_metadata(save(dense, metadata=metadata)))


def _order_metadata(content: bytes) -> bytes:
    """Return a safetensors file with its metadata in order, so that equal states are equal files.

    The library (0.8) writes it in the order of a hash map, another one in each process.
    """
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # the format's alignment of what follows
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[start:]


def load_tensors(
    path: Path, *, remedy: str = REMEDY, is_wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what save_tensors wrote: the tensors whose names are wanted, and the header.

    Raises:
        RunError: the file is missing, damaged, or something else; its message ends with `remedy`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if is_wanted(name)]  # noqa: SIM118 - not a mapping
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} cannot be read as a checkpoint: {error}. {remedy}") from error
    if metadata.get("format") != FORMAT:
        raise RunError(f"{path}: expected format '{FORMAT}', got '{metadata.get('format')}'. {remedy}")
    return tensors, json.loads(metadata["header"])


def load_network(path: Path, model: nn.Module, *, remedy: str = "Train again.") -> None:
    """Load the network of a run's final weights, or of its checkpoint, into `model`, which is left in eval mode.

    `model` may be on PyTorch's device "meta": it gets its memory here.

    Raises:
        RunError: missing or damaged weights, those of another network, or such as are not finite; with `remedy`.
    """
    tensors, header = load_tensors(path, remedy=remedy)
    start = "model." if "state" in header else ""  # of a checkpoint, which holds more than the network
    own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    try:
        model.load_state_dict(own, assign=True)
    except RuntimeError as error:  # PyTorch's message names every tensor, on a line each
        what = one_line(error)
        raise RunError(f"{path} does not hold the weights that its record says ({what:.200}). {remedy}") from error
    bad = [name for name, tensor in own.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise RunError(f"{path}: {', '.join(bad[:3])} hold values that are not finite. {remedy}")
    model.eval()


def pack_state(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the modules' tensors under their prefixes and the optimizer's under `optimizer.<parameter number>.`."""
    tensors = {
        f"{prefix}.{name}": tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()
    }
    for number, entries in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{name}": value for name, value in entries.items()})
    return tensors


def unpack_modules(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Load what pack_state stored of the modules.

    Raises:
        RunError: the tensors are another network's.
    """
    for prefix, module in modules.items():
        start = f"{prefix}."
        state = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            what = one_line(error)
            raise RunError(f"the checkpoint is of another network ({prefix}): {what:.200}. {REMEDY}") from error


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load what pack_state stored of an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
