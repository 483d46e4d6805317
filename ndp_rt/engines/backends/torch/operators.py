"""The ONNX operators that bundles use, as PyTorch calls: everything that does not depend on data is settled once."""

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

Run = Callable[..., torch.Tensor]
Attributes = Mapping[str, Any]
Parameters = Sequence[NDArray[Any] | None]  # the constant inputs after the data; None stands for one that is left out

TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
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
        EngineError: none of bundles' own; the message names it and those that are known.
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

    def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
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

    def pad_and_convolve(x: torch.Tensor, *weights: torch.Tensor | None) -> torch.Tensor:
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


def _reshape(found: Attributes, parameters: Parameters) -> Run:
    _need("Reshape", found, {"allowzero": 0})
    sizes = _list(parameters)

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
    if index is None or index.ndim != 0:
        raise EngineError("expected a Gather of one constant index, got several. Export the bundle again.")
    return partial(torch.select, dim=found.get("axis", 0), index=int(index))


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


# What plain and rewritten exports use (tests/engines/backends/test_torch_operators.py collects it), and the tests'
# tiny bundle.
OPERATORS: dict[str, Operator] = {
    "Add": Operator(build=_simple(torch.add), has_out=True),
    "AveragePool": Operator(build=_average_pool),
    "Cast": Operator(build=_cast),
    "Clip": Operator(build=_clip, data_count=1, has_out=True),
    "Concat": Operator(build=_concat),
    "Conv": Operator(build=_conv),
    "ConvTranspose": Operator(build=_conv_transpose),
    "DepthToSpace": Operator(build=_depth_to_space),
    "Div": Operator(build=_simple(torch.div), has_out=True),
    "Exp": Operator(build=_simple(torch.exp), has_out=True),
    "Expand": Operator(build=_expand, data_count=1),
    "Gather": Operator(build=_gather, data_count=1),
    "MatMul": Operator(build=_simple(torch.matmul)),
    "Max": Operator(build=_chain(torch.maximum)),
    "MaxPool": Operator(build=_max_pool),
    "Mul": Operator(build=_simple(torch.mul), has_out=True),
    "Neg": Operator(build=_simple(torch.neg), has_out=True),
    "Reciprocal": Operator(build=_simple(torch.reciprocal), has_out=True),
    "ReduceL2": Operator(build=_reduce(torch.linalg.vector_norm), data_count=1),
    "ReduceMean": Operator(build=_reduce(torch.mean), data_count=1),
    "ReduceSum": Operator(build=_reduce(torch.sum), data_count=1),
    "Relu": Operator(build=_simple(_relu), has_out=True),
    "Reshape": Operator(build=_reshape, data_count=1),
    "Resize": Operator(build=_resize, data_count=1),
    "Sigmoid": Operator(build=_simple(torch.sigmoid), has_out=True),
    "Softmax": Operator(build=_softmax),
    "Sqrt": Operator(build=_simple(torch.sqrt), has_out=True),
    "Sub": Operator(build=_simple(torch.sub), has_out=True),
    "Sum": Operator(build=_chain(torch.add)),
    "Transpose": Operator(build=_transpose),
    "Unsqueeze": Operator(build=_unsqueeze, data_count=1),
}
