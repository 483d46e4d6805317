"""An ONNX stage of one batch size as a list of PyTorch calls: settled once, run again and again on bound tensors."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper

from ndp_rt.engines.backends.torch.operators import TORCH_TYPES, Run, Settled, find_operator, read_attributes
from ndp_rt.errors import EngineError
from ndp_rt.graphs.folding import infer


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call: the slots that it reads and writes, and those that nothing needs after it."""

    run: Run
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    spent: tuple[int, ...] = ()
    has_out: bool
    op_type: str
    name: str
    dtypes: tuple[torch.dtype, ...]  # that the graph gives the results

    def apply(self, values: Any) -> None:
        """Compute the results from what `values`, a list or dict by slot, holds, and put them there."""
        found = self.run(*[values[slot] for slot in self.sources])
        for slot, result in zip(self.targets, (found,) if len(self.targets) == 1 else found, strict=True):
            values[slot] = result


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Facts of one run: the element types that each operator gave, and the most memory that lay between them."""

    counts: Mapping[str, Mapping[torch.dtype, int]]
    peak_bytes: int


Watch = Callable[[Step, Sequence[torch.Tensor | None]], None]


class TorchProgram:
    """A stage's calls with its constants on one device."""

    def __init__(self, model: ModelProto, device: torch.device, *, channels_last: bool) -> None:
        """Move the constants to the device and settle every call.

        Args:
            model: one in which every shape is fixed (`graph_folding.fix_batch`).
            device: that runs it.
            channels_last: hold the weights of convolutions so that PyTorch computes them in [n, h, w, c].

        Raises:
            EngineError: an operator, an attribute or a type that is not taken.
        """
        graph = model.graph
        self._device = device
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._slots: dict[str, int] = {}
        self._values: list[torch.Tensor | None] = []
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.weight_bytes = 0
        self.inputs = {value.name: self._find_slot(value.name) for value in graph.input}
        self.outputs = {value.name: self._find_slot(value.name) for value in graph.output}
        inferred = infer(model).graph
        types = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
        steps = [
            self._make_step(node, [types.get(name, TypeProto.Tensor()) for name in node.output]) for node in graph.node
        ]
        constant_slots = {index for index, value in enumerate(self._values) if value is not None}
        self.steps = _mark_spent(steps, constant_slots | set(self.inputs.values()) | set(self.outputs.values()))
        del self._constants

    @property
    def constants(self) -> dict[int, torch.Tensor]:
        """The weights, by slot."""
        return {slot: value for slot, value in enumerate(self._values) if value is not None}

    def run(self, bound: Mapping[int, torch.Tensor], watch: Watch | None = None) -> None:
        """Put all calls on the current stream.

        Args:
            bound: the tensor of every slot of an input or output; outputs are overwritten.
            watch: is given each call, before what nothing needs after it is let go; no call writes to `bound` itself.
        """
        values: list[Any] = [*self._values]
        for slot, tensor in bound.items():
            values[slot] = tensor
        for step in self.steps:
            if step.has_out and step.targets[0] in bound and watch is None:
                step.run(*[values[slot] for slot in step.sources], out=bound[step.targets[0]])
            else:
                step.apply(values)
                if watch is not None:
                    watch(step, values)
                for slot in bound.keys() & step.targets:
                    values[slot] = bound[slot].copy_(values[slot])
            for slot in step.spent:
                values[slot] = None

    def examine(self, bound: Mapping[int, torch.Tensor]) -> Examination:
        """Run once, and check on the way that every call gives the types that the graph says.

        Raises:
            EngineError: one gives another type.
        """
        counts: dict[str, Counter[torch.dtype]] = {}
        foreign = {_find_address(tensor) for tensor in (*self.constants.values(), *bound.values())}
        peak_bytes = 0

        def watch(step: Step, values: Sequence[torch.Tensor | None]) -> None:
            nonlocal peak_bytes
            results = [tensor for slot in step.targets if (tensor := values[slot]) is not None]
            for result, dtype in zip(results, step.dtypes, strict=True):
                if result.dtype != dtype:
                    raise EngineError(
                        f"PyTorch {torch.__version__} gives {result.dtype} for node '{step.name}' ({step.op_type}), "
                        f"the graph says {dtype}. Use another version of PyTorch, or report this."
                    )
            if results[0].is_floating_point():
                counts.setdefault(step.op_type, Counter())[results[0].dtype] += 1
            alive = {_find_address(one): one.untyped_storage().nbytes() for one in values if one is not None}
            peak_bytes = max(peak_bytes, sum(size for address, size in alive.items() if address not in foreign))

        self.run(bound, watch)
        return Examination(counts=counts, peak_bytes=peak_bytes)

    def _find_slot(self, name: str) -> int:
        if name not in self._slots:
            self._slots[name] = len(self._values)
            self._values.append(None)
        return self._slots[name]

    def _make_step(self, node: NodeProto, types: Sequence[TypeProto.Tensor]) -> Step:
        operator, label = find_operator(node), f"node '{node.name or node.output[0]}' ({node.op_type})"
        count = len(node.input) if operator.data_count is None else operator.data_count
        data, parameters = [name for name in node.input[:count] if name], node.input[count:]
        computed = [name for name in parameters if name and name not in self._constants]
        if computed:
            raise EngineError(
                f"{label}: expected a constant as parameter '{computed[0]}', got one that is computed while it runs. "
                "Export the bundle again."
            )
        kinds = [found.elem_type for found in types]
        if not set(kinds) <= set(TORCH_TYPES):
            names = ", ".join(map(TensorProto.DataType.Name, kinds))
            raise EngineError(f"{label}: expected floats or int64 as its output, got {names}. Export the bundle again.")
        for name in data:
            if name in self._constants and self._values[self._find_slot(name)] is None:
                self._values[self._find_slot(name)] = self._load_constant(self._constants[name], node)
        settled = Settled(
            kind=node.op_type,
            attributes=read_attributes(node),
            parameters=[numpy_helper.to_array(self._constants[name]) if name else None for name in parameters],
            shape=[dim.dim_value if dim.HasField("dim_value") else None for dim in types[0].shape.dim],
        )
        return Step(
            run=operator.build(settled),
            sources=tuple(map(self._find_slot, data)),
            targets=tuple(map(self._find_slot, node.output)),
            has_out=operator.has_out,
            op_type=node.op_type,
            name=node.name or node.output[0],
            dtypes=tuple(TORCH_TYPES[kind] for kind in kinds),
        )

    def _load_constant(self, tensor: TensorProto, reader: NodeProto) -> torch.Tensor:
        if tensor.data_type not in TORCH_TYPES:
            kind = TensorProto.DataType.Name(tensor.data_type)
            raise EngineError(f"expected floats or int64 as '{tensor.name}', got {kind}. Export the bundle again.")
        if tensor.data_type == TensorProto.BFLOAT16:  # which NumPy lacks; `typed_graph` writes raw data
            bits = torch.from_numpy(np.frombuffer(tensor.raw_data, np.int16).copy())
            value = bits.view(torch.bfloat16).reshape(tuple(tensor.dims))
        else:
            value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        is_filter = value.ndim == 4 and reader.op_type in ("Conv", "ConvTranspose")
        value = value.to(self._device, memory_format=self._layout if is_filter else torch.contiguous_format)
        self.weight_bytes += value.numel() * value.element_size()
        return value


def _mark_spent(steps: Sequence[Step], kept: set[int]) -> list[Step]:
    """Return the steps, each with the slots whose last use it is, except for those that are kept."""
    marked = []
    needed = set(kept)
    for step in reversed(steps):
        used = {*step.sources, *step.targets}
        marked.append(dataclasses.replace(step, spent=tuple(sorted(used - needed))))
        needed |= used
    return marked[::-1]


def _find_address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
