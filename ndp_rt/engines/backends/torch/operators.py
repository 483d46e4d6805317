"""The ONNX operators of our families and of imported models, as PyTorch calls, settled before they run."""

import math
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
Attributes = Mapping[str, Any]
Parameters = Sequence[NDArray[Any] | None]  # the constant inputs after the data; None stands for one that is left out

TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,  # of indices
}


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Makes a call of a node.

    `build` takes the node's attributes and parameters and returns a function of its data: the first `data_count`
    inputs (None: all of them). With `has_out` that function also takes `out`, the tensor to write.
    """

    build: Callable[[Attributes, Parameters], Run]
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


def _need(kind: str, found: Attributes, allowed: Mapping[str, Any]) -> None:
    """Refuse attributes that are there with another value than the one that is computed."""
    for name, value in allowed.items():
        if found.get(name, value) != value:
            raise EngineError(
                f"expected {name} = {value!r} of a {kind}, got {found[name]!r}. Export the bundle again, or use "
                "another backend."
            )


def _read_window(kind: str, found: Attributes) -> dict[str, Any]:
    """Return stride, padding and dilation of a convolution or pool as torch's keywords."""
    _need(kind, found, {"auto_pad": "NOTSET", "ceil_mode": 0, "storage_order": 0})
    pads = list(found.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise EngineError(
            f"expected a {kind} with two axes padded alike at both ends, got pads {pads}. Export the bundle again, or "
            "use another backend."
        )
    return {
        "stride": tuple(found.get("strides", (1, 1))),
        "padding": tuple(pads[:2]),
        "dilation": tuple(found.get("dilations", (1, 1))),
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


def _conv(found: Attributes, _: Parameters) -> Run:
    top, left, bottom, right = found.get("pads", [0, 0, 0, 0])
    is_even = (top, left) == (bottom, right)
    window = _read_window("Conv", found if is_even else {**found, "pads": [0, 0, 0, 0]})
    run = _in_float32_on_cpu(partial(torch.conv2d, groups=found.get("group", 1), **window))
    if is_even:
        return run

    def pad_and_convolve(x: torch.Tensor, *weights: torch.Tensor | None) -> Any:
        return run(functional.pad(x, (left, right, top, bottom)), *weights)

    return pad_and_convolve


def _conv_transpose(found: Attributes, _: Parameters) -> Run:
    _need("ConvTranspose", found, {"output_padding": [0, 0], "output_shape": None})
    window = _read_window("ConvTranspose", found)
    return _in_float32_on_cpu(partial(torch.conv_transpose2d, groups=found.get("group", 1), **window))


def _max_pool(found: Attributes, _: Parameters) -> Run:
    return partial(functional.max_pool2d, kernel_size=tuple(found["kernel_shape"]), **_read_window("MaxPool", found))


def _average_pool(found: Attributes, _: Parameters) -> Run:
    window = _read_window("AveragePool", found)
    _need("AveragePool", {"dilations": list(window.pop("dilation"))}, {"dilations": [1, 1]})
    counts = bool(found.get("count_include_pad", 0))
    return partial(functional.avg_pool2d, kernel_size=tuple(found["kernel_shape"]), count_include_pad=counts, **window)


def _resize(found: Attributes, parameters: Parameters) -> Run:
    """Return nearest or bilinear interpolation, as PyTorch's own exporter writes them."""
    roi, scales, sizes = (*parameters, None, None, None)[:3]
    whole = {
        "mode": "nearest",
        "coordinate_transformation_mode": "half_pixel",
        "nearest_mode": "round_prefer_floor",
        "roi": None if roi is None or roi.size == 0 else roi.tolist(),
        **found,
    }
    _need("Resize", whole, {"roi": None, "axes": None, "antialias": 0, "exclude_outside": 0})
    if whole["mode"] == "nearest":
        _need("Resize", whole, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})
        run = partial(functional.interpolate, mode="nearest")
    else:
        _need("Resize", whole, {"mode": "linear", "coordinate_transformation_mode": "half_pixel"})
        run = partial(functional.interpolate, mode="bilinear", align_corners=False)
    if sizes is not None and sizes.size == 4:
        return partial(run, size=tuple(int(size) for size in sizes[2:]))
    if scales is None or scales.size != 4 or any(scales[:2] != 1):
        raise EngineError(
            f"expected a Resize with four scales, the first two 1, got {scales}. Export the bundle again."
        )
    return partial(run, scale_factor=tuple(float(scale) for scale in scales[2:]))


def _clip(_: Attributes, parameters: Parameters) -> Run:
    low, high = (None if bound is None else float(bound) for bound in (*parameters, None, None)[:2])
    return partial(torch.clamp, min=low, max=high)


def _reduce(run: Callable[..., torch.Tensor]) -> Callable[[Attributes, Parameters], Run]:
    def build(found: Attributes, parameters: Parameters) -> Run:
        # The axes are an attribute in some opsets and an input in others.
        axes = parameters[0] if parameters and parameters[0] is not None else found.get("axes")
        if axes is None:
            raise EngineError("a reduction over all axes is not taken. Export the bundle again.")
        return partial(run, dim=tuple(int(axis) for axis in axes), keepdim=bool(found.get("keepdims", 1)))

    return build


def _find_best(run: Run) -> Callable[[Attributes, Parameters], Run]:
    def build(found: Attributes, _: Parameters) -> Run:
        _need("search", found, {"select_last_index": 0})
        return partial(run, dim=found.get("axis", 0), keepdim=bool(found.get("keepdims", 1)))

    return build


def _top_k(found: Attributes, parameters: Parameters) -> Run:
    (count,) = _list(parameters)
    return partial(torch.topk, k=count, dim=found.get("axis", -1), largest=bool(found.get("largest", 1)))


def _pad(found: Attributes, parameters: Parameters) -> Run:
    pads, value, axes = (*parameters, None, None)[:3]
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = found.get("mode", "constant")
    _need("Pad", {"axes": None if axes is None else axes.tolist(), "mode": mode in modes}, {"axes": None, "mode": True})
    assert pads is not None
    ends = [int(one) for one in pads.reshape(2, -1).T[::-1].ravel()]  # before and after, of the last axis first
    if mode != "constant":  # PyTorch pads by an image's own values in its last two axes alone
        _need("Pad", {"pads": any(ends[4:])}, {"pads": False})
        return partial(functional.pad, pad=ends[:4], mode=modes[mode])
    return partial(functional.pad, pad=ends, value=0.0 if value is None else float(value))


def _pow(_: Attributes, parameters: Parameters) -> Run:
    (exponent,) = parameters
    _need("Pow", {"exponent": "several" if exponent is None or exponent.size != 1 else "one"}, {"exponent": "one"})
    assert exponent is not None
    return partial(torch.pow, exponent=float(exponent.item()))


def _flatten(found: Attributes, _: Parameters) -> Run:
    axis = found.get("axis", 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(found: Attributes, parameters: Parameters) -> Run:
    axes = found["axes"] if "axes" in found else _list(parameters)
    return partial(torch.squeeze, dim=tuple(axes))


def _reshape(found: Attributes, parameters: Parameters) -> Run:
    sizes = _list(parameters)
    _need("Reshape", found if 0 in sizes else {}, {"allowzero": 0})

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)])

    return reshape


def _expand(_: Attributes, parameters: Parameters) -> Run:
    sizes = _list(parameters)

    def expand(x: torch.Tensor) -> torch.Tensor:
        return x.expand(np.broadcast_shapes(x.shape, tuple(sizes)))

    return expand


def _unsqueeze(_: Attributes, parameters: Parameters) -> Run:
    axes = _list(parameters)

    def unsqueeze(x: torch.Tensor) -> torch.Tensor:
        rank = x.ndim + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _gather(found: Attributes, parameters: Parameters) -> Run:
    (index,) = parameters
    axis = found.get("axis", 0)
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


def _gather_nd(found: Attributes, _: Parameters) -> Run:
    _need("GatherND", found, {"batch_dims": 0})
    return lambda x, index: x[tuple(index.unbind(-1))]


def _transpose(found: Attributes, _: Parameters) -> Run:
    return partial(torch.permute, dims=tuple(found["perm"]))


def _concat(found: Attributes, _: Parameters) -> Run:
    axis = found["axis"]
    return lambda *tensors: torch.cat(tensors, dim=axis)


def _depth_to_space(found: Attributes, _: Parameters) -> Run:
    _need("DepthToSpace", {"mode": "DCR", **found}, {"mode": "CRD"})
    return partial(functional.pixel_shuffle, upscale_factor=found["blocksize"])


def _softmax(found: Attributes, _: Parameters) -> Run:
    return partial(torch.softmax, dim=found.get("axis", -1))


def _cast(found: Attributes, _: Parameters) -> Run:
    _need("Cast", {"to": found["to"] in TORCH_TYPES}, {"to": True})
    dtype = TORCH_TYPES[found["to"]]
    return lambda x: x.to(dtype)


def _chain(run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Attributes, Parameters], Run]:
    return lambda found, parameters: lambda *tensors: reduce(run, tensors)


def _simple(run: Run) -> Callable[[Attributes, Parameters], Run]:
    return lambda found, parameters: run


def _relu(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.clamp_min(x, 0, out=out)  # what torch.relu calls, which takes no `out`


def _list(parameters: Parameters) -> list[int]:
    (values,) = parameters
    assert values is not None
    return [int(value) for value in np.atleast_1d(values)]


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
    "Concat": Operator(build=_concat),
    "Conv": Operator(build=_conv),
    "ConvTranspose": Operator(build=_conv_transpose),
    "DepthToSpace": Operator(build=_depth_to_space),
    "Expand": Operator(build=_expand, data_count=1),
    "Flatten": Operator(build=_flatten),
    "Gather": Operator(build=_gather, data_count=1),
    "GatherND": Operator(build=_gather_nd),
    "MatMul": Operator(build=_simple(torch.matmul)),
    "Max": Operator(build=_chain(torch.maximum)),
    "MaxPool": Operator(build=_max_pool),
    "Pad": Operator(build=_pad, data_count=1),
    "Pow": Operator(build=_pow, data_count=1, has_out=True),
    "Reshape": Operator(build=_reshape, data_count=1),
    "Resize": Operator(build=_resize, data_count=1),
    "Softmax": Operator(build=_softmax),
    "Squeeze": Operator(build=_squeeze, data_count=1),
    "Sum": Operator(build=_chain(torch.add)),
    "TopK": Operator(build=_top_k, data_count=1),
    "Transpose": Operator(build=_transpose),
    "Unsqueeze": Operator(build=_unsqueeze, data_count=1),
}
