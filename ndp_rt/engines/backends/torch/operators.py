"""The ONNX operators of our families and of imported models, as PyTorch calls, settled before they run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from torch.nn import functional

from ndp_rt.errors import EngineError

Run = Callable[..., Any]  # a tensor; a tuple of them for a node with several outputs

TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,  # of indices
}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What is known of a node before it runs."""

    kind: str
    attributes: Mapping[str, Any]
    parameters: Sequence[NDArray[Any] | None]  # the constant inputs after the data; None: left out
    shape: Sequence[int | None]  # of the first result; None: not known

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or what it is where the node has none."""
        return self.attributes.get(name, default)

    def parameter(self, place: int) -> NDArray[Any] | None:
        """Return a parameter, None where the node has none."""
        return self.parameters[place] if place < len(self.parameters) else None

    def find_shape(self) -> list[int]:
        """Return the shape of the first result, which has to be known."""
        known = [size for size in self.shape if size is not None]
        self.check("sizes that are not known", len(self.shape) - len(known), 0)
        return known

    def need(self, **allowed: Any) -> None:
        """Refuse attributes that are there with another value than the one that is computed."""
        for name, value in allowed.items():
            self.check(name, self.get(name, value), value)

    def check(self, name: str, found: Any, allowed: Any) -> None:
        """Refuse another value than the one that is computed."""
        if found != allowed:
            raise EngineError(
                f"expected {name} = {allowed!r} of a {self.kind}, got {found!r}. Export the bundle again, or use "
                "another backend."
            )


Build = Callable[[Settled], Run]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Makes a call of a node.

    `build` returns a function of its data: the first `data_count` inputs (None: all of them). With `has_out` that
    function also takes `out`, the tensor to write.
    """

    build: Build
    data_count: int | None = None
    has_out: bool = False


def find_operator(node: NodeProto) -> Operator:
    """Return the operator of a node.

    Raises:
        EngineError: none that is known; the message names it and those that are.
    """
    operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        raise EngineError(
            f"node '{node.name or node.output[0]}' is a {node.op_type}, which backend torch-cuda does not run; it runs "
            f"{', '.join(OPERATORS)}. Export the bundle again, or use --backend tensorrt."
        )
    return operator


def read_attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name, words as str."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _read_window(node: Settled) -> dict[str, Any]:
    """Return stride, padding and dilation of a convolution or pool as torch's keywords."""
    node.need(auto_pad="NOTSET", ceil_mode=0, storage_order=0)
    pads = list(node.get("pads", [0, 0, 0, 0]))
    node.check("pads", pads, pads[:2] * 2)
    return {
        "stride": tuple(node.get("strides", (1, 1))),
        "padding": tuple(pads[:2]),
        "dilation": tuple(node.get("dilations", (1, 1))),
    }


def _in_float32_on_cpu(run: Run) -> Run:
    """Let float16 convolutions compute in float32 on the CPU and round at the end, as tensor cores do.

    oneDNN has no float16 convolution without AVX512-FP16 or AMX, and PyTorch's own loop is some 200 times slower
    (143 ms against 0.7 ms for 32 channels of 64 x 64, 3 x 3). The CPU is where tests and measurements run.
    """

    def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        if x.device.type != "cpu" or x.dtype != torch.float16:
            return run(x, weight, bias)
        wide = run(x.float(), weight.float(), None if bias is None else bias.float())
        return wide.to(torch.float16)

    return convolve


def _conv(node: Settled) -> Run:
    top, left, bottom, right = node.get("pads", [0, 0, 0, 0])
    is_even = (top, left) == (bottom, right)
    bare = node if is_even else dataclasses.replace(node, attributes={**node.attributes, "pads": [0, 0, 0, 0]})
    run = _in_float32_on_cpu(partial(torch.conv2d, groups=node.get("group", 1), **_read_window(bare)))
    if is_even:
        return run

    def pad_and_convolve(x: torch.Tensor, *weights: torch.Tensor | None) -> Any:
        return run(functional.pad(x, (left, right, top, bottom)), *weights)

    return pad_and_convolve


def _conv_transpose(node: Settled) -> Run:
    node.need(output_padding=[0, 0], output_shape=None)
    return _in_float32_on_cpu(partial(torch.conv_transpose2d, groups=node.get("group", 1), **_read_window(node)))


def _max_pool(node: Settled) -> Run:
    return partial(functional.max_pool2d, kernel_size=tuple(node.attributes["kernel_shape"]), **_read_window(node))


def _average_pool(node: Settled) -> Run:
    node.need(dilations=[1, 1])
    window = _read_window(node) | {"kernel_size": tuple(node.attributes["kernel_shape"])}
    del window["dilation"]
    return partial(functional.avg_pool2d, count_include_pad=bool(node.get("count_include_pad", 0)), **window)


def _resize(node: Settled) -> Run:
    """Return nearest or bilinear interpolation, as PyTorch's own exporter writes them."""
    roi, scales, sizes = (node.parameter(place) for place in range(3))
    node.check("roi", None if roi is None or roi.size == 0 else roi.tolist(), None)
    node.need(axes=None, antialias=0, exclude_outside=0)
    mode, coordinates = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        node.check("coordinate_transformation_mode", coordinates, "asymmetric")
        node.check("nearest_mode", node.get("nearest_mode", "round_prefer_floor"), "floor")
        run = partial(functional.interpolate, mode="nearest")
    else:
        node.check("mode", mode, "linear")
        node.check("coordinate_transformation_mode", coordinates, "half_pixel")
        run = partial(functional.interpolate, mode="bilinear", align_corners=False)
    if sizes is not None and sizes.size == 4:
        return partial(run, size=tuple(int(size) for size in sizes[2:]))
    factors = [] if scales is None else scales.tolist()
    node.check("scales", factors, [1, 1, *factors[2:4]])
    return partial(run, scale_factor=tuple(factors[2:]))


def _clip(node: Settled) -> Run:
    low, high = (None if bound is None else float(bound) for bound in (node.parameter(0), node.parameter(1)))
    return partial(torch.clamp, min=low, max=high)


def _reduce(run: Run) -> Build:
    def build(node: Settled) -> Run:
        # The axes are an attribute in some opsets and an input in others.
        given = node.parameter(0)
        axes = node.get("axes", None) if given is None else given
        if axes is None:
            raise EngineError("a reduction over all axes is not taken. Export the bundle again.")
        return partial(run, dim=tuple(int(axis) for axis in axes), keepdim=bool(node.get("keepdims", 1)))

    return build


def _find_best(run: Run) -> Build:
    def build(node: Settled) -> Run:
        node.need(select_last_index=0)
        return partial(run, dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return build


def _top_k(node: Settled) -> Run:
    axis = node.get("axis", -1)
    return partial(torch.topk, k=node.find_shape()[axis], dim=axis, largest=bool(node.get("largest", 1)))


def _pad(node: Settled) -> Run:
    pads, value, axes = (node.parameter(place) for place in range(3))
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = node.get("mode", "constant")
    node.check("axes", axes, None)
    node.check("mode", mode if mode not in modes else "known", "known")
    assert pads is not None
    ends = [int(one) for one in pads.reshape(2, -1).T[::-1].ravel()]  # before and after, of the last axis first
    if mode == "constant":
        return partial(functional.pad, pad=ends, value=0.0 if value is None else float(value))
    node.check("pads before the last two axes", any(ends[4:]), False)  # which PyTorch pads alone
    return partial(functional.pad, pad=ends[:4], mode=modes[mode])


def _pow(node: Settled) -> Run:
    (exponent,) = node.parameters
    assert exponent is not None
    node.check("exponents", exponent.size, 1)
    return partial(torch.pow, exponent=float(exponent.item()))


def _reshape(node: Settled) -> Run:
    shape = node.find_shape()
    return lambda x: x.reshape(shape)


def _expand(node: Settled) -> Run:
    shape = node.find_shape()
    return lambda x: x.expand(shape)


def _gather(node: Settled) -> Run:
    (index,) = node.parameters
    axis = node.get("axis", 0)
    if index is not None and index.ndim == 0:
        return partial(torch.select, dim=axis, index=int(index))
    if index is None or index.ndim != 1 or (index < 0).any():
        raise EngineError(f"expected a Gather by a row of indices from 0, got {index}. Export the bundle again.")
    rows = torch.from_numpy(np.array(index, np.int64))
    held: dict[torch.device, torch.Tensor] = {}  # filled by the first run, which comes before any capture

    def gather(x: torch.Tensor) -> torch.Tensor:
        if x.device not in held:
            held[x.device] = rows.to(x.device)
        return torch.index_select(x, axis, held[x.device])

    return gather


def _gather_nd(node: Settled) -> Run:
    node.need(batch_dims=0)
    return lambda x, index: x[tuple(index.unbind(-1))]


def _depth_to_space(node: Settled) -> Run:
    node.check("mode", node.get("mode", "DCR"), "CRD")
    return partial(functional.pixel_shuffle, upscale_factor=node.attributes["blocksize"])


def _cast(node: Settled) -> Run:
    kind = node.attributes["to"]
    node.check("to", kind if kind not in TORCH_TYPES else "known", "known")
    return lambda x: x.to(TORCH_TYPES[kind])


def _chain(run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Build:
    return lambda node: lambda *tensors: reduce(run, tensors)


def _simple(run: Run) -> Build:
    return lambda node: run


def _relu(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.clamp_min(x, 0, out=out)  # what torch.relu calls, which takes no `out`


CALLS: dict[str, Run] = {
    "Add": torch.add,
    "Div": torch.div,
    "Exp": torch.exp,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": _relu,
    "Sigmoid": torch.sigmoid,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
}
REDUCTIONS: dict[str, Run] = {
    "ReduceL2": torch.linalg.vector_norm,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceSum": torch.sum,
}
# What the graphs of our families and of tests/data/anomalib use (tests/engines/backends/test_torch_graphs.py).
OPERATORS: dict[str, Operator] = {
    **{kind: Operator(build=_simple(run), has_out=True) for kind, run in CALLS.items()},
    **{kind: Operator(build=_reduce(run), data_count=1) for kind, run in REDUCTIONS.items()},
    "ArgMax": Operator(build=_find_best(torch.argmax)),
    "ArgMin": Operator(build=_find_best(torch.argmin)),
    "AveragePool": Operator(build=_average_pool),
    "Cast": Operator(build=_cast),
    "Clip": Operator(build=_clip, data_count=1, has_out=True),
    "Concat": Operator(build=lambda node: lambda *tensors: torch.cat(tensors, dim=node.attributes["axis"])),
    "Conv": Operator(build=_conv),
    "ConvTranspose": Operator(build=_conv_transpose),
    "DepthToSpace": Operator(build=_depth_to_space),
    "Expand": Operator(build=_expand, data_count=1),
    "Flatten": Operator(build=_reshape, data_count=1),
    "Gather": Operator(build=_gather, data_count=1),
    "GatherND": Operator(build=_gather_nd),
    "MatMul": Operator(build=_simple(torch.matmul)),
    "Max": Operator(build=_chain(torch.maximum)),
    "MaxPool": Operator(build=_max_pool),
    "Pad": Operator(build=_pad, data_count=1),
    "Pow": Operator(build=_pow, data_count=1, has_out=True),
    "Reshape": Operator(build=_reshape, data_count=1),
    "Resize": Operator(build=_resize, data_count=1),
    "Softmax": Operator(build=lambda node: partial(torch.softmax, dim=node.get("axis", -1))),
    "Squeeze": Operator(build=_reshape, data_count=1),
    "Sum": Operator(build=_chain(torch.add)),
    "TopK": Operator(build=_top_k, data_count=1),
    "Transpose": Operator(build=lambda node: partial(torch.permute, dims=tuple(node.attributes["perm"]))),
    "Unsqueeze": Operator(build=_reshape, data_count=1),
}
