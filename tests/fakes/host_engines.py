"""Device engines on the fake GPU: a typed stage, run on the CPU when its stream's turn comes."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import ClosedError, EngineError, InputError
from ndp_rt.program.tensors import TensorSpec
from tests.fakes.fake_streams import Machine

ELEMENTS = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class HostEngine:
    """A `ndp_rt.engines.engine.DeviceEngine` by ONNX Runtime: reads and writes the addresses it was bound to."""

    held_bytes = 0

    def __init__(self, path: Path, batch: int, machine: Machine) -> None:
        import onnxruntime  # not at the top: conftest.py comes here, on machines that run real engines alone too

        self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._machine = machine
        self.inputs = {node.name: _describe(node, batch) for node in self._session.get_inputs()}
        self.outputs = {node.name: _describe(node, batch) for node in self._session.get_outputs()}
        self._pointers: dict[str, int] = {}
        self.enqueue_count = 0
        self.refuses = False

    def bind(self, pointers: Mapping[str, int]) -> None:
        missing = [name for name in (*self.inputs, *self.outputs) if name not in pointers]
        if missing:
            raise InputError(f"no address for {', '.join(missing)}")
        assert all(pointer % 256 == 0 for pointer in pointers.values())
        self._pointers = dict(pointers)

    def enqueue(self, stream: int) -> None:
        if self._session is None:
            raise ClosedError("the engine is closed")
        if self.refuses:
            raise EngineError("the engine refuses")
        self.enqueue_count += 1
        self._machine.add(stream, self._run)

    def _run(self) -> None:
        feeds = {name: view(self._pointers[name], spec).copy() for name, spec in self.inputs.items()}
        results = self._session.run(list(self.outputs), feeds)
        for (name, spec), result in zip(self.outputs.items(), results, strict=True):
            view(self._pointers[name], spec)[...] = result

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        return {}

    def close(self) -> None:
        self._session = None


def view(pointer: int, spec: TensorSpec) -> NDArray[Any]:
    """Return the memory of a tensor as a NumPy array."""
    shape = tuple(size for size in spec.shape if size is not None)
    dtype = np.dtype(spec.dtype)
    block = (ctypes.c_uint8 * (prod(shape) * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(block, dtype).reshape(shape)


def _describe(node: Any, batch: int) -> TensorSpec:
    shape = tuple(batch if isinstance(size, str) else int(size) for size in node.shape)
    return TensorSpec(name=node.name, shape=shape, dtype=ELEMENTS[node.type])
