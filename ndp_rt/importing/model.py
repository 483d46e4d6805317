"""Reads a stranger's ONNX model: its image, its map, its score, and what of it cannot be brought in."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper, version_converter

from ndp_rt.config import MAX_SIDE_PX
from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import load_model
from ndp_rt.importing.terms import ImageInput

OPSETS = (11, 21)  # that can be read; older ones are raised to 17, the first that typed graphs start from
TYPED_OPSET = 17
OWN_DOMAINS = ("", "ai.onnx")
# What no engine of ours runs, or does not give the same twice.
REFUSED = {
    **dict.fromkeys(("If", "Loop", "Scan"), "its graph branches or loops, and engines run every node once"),
    **dict.fromkeys(("NonMaxSuppression",), "it gives boxes, as many as it finds, and no anomaly map"),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
        "it is random, and one image would have many scores",
    ),
    **dict.fromkeys(
        ("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SplitToSequence", "SequenceMap", "Optional"),
        "it makes lists of tensors, which no engine has",
    ),
}
IMAGE_TYPES = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}  # and float16, which becomes float32
RESULT_TYPES = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
Sizes = tuple[int | None, ...]


def read_model(path: Path) -> ModelProto:
    """Read a model with its weights, in an opset that typed graphs can be made of.

    Raises:
        BundleError: it cannot be read.
        InputError: an operator that cannot be brought in, or another opset; the message names the node.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected an ONNX file, got nothing or a folder.")
    model = load_model(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _widen(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS), 0)
    for node in model.graph.node:
        _check_node(path, node)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise InputError(
            f"{path}: expected ONNX opset {OPSETS[0]} to {OPSETS[1]}, got {opset}. Export it with opset_version=17."
        )
    if opset < TYPED_OPSET:
        try:
            model = version_converter.convert_version(model, TYPED_OPSET)
        except Exception as error:  # whatever onnx's C++ raises
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: opset {opset} cannot be raised to {TYPED_OPSET} ({reason}). Export it with opset_version=17."
            ) from error
    return model


def _widen(model: ModelProto) -> None:
    """Turn float16 into float32, in place: engines choose their precision themselves."""
    graph, half = model.graph, TensorProto.FLOAT16
    constants = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in (*graph.initializer, *constants):
        if tensor.data_type == half:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = TensorProto.FLOAT
    del graph.value_info[:]


def _check_node(path: Path, node: NodeProto) -> None:
    called = f"node '{node.name or next(iter(node.output), '')}' of type {node.op_type}"
    if node.domain not in OWN_DOMAINS:
        raise InputError(
            f"{path}: expected operators of ONNX alone, got {called} of domain '{node.domain}', whose code is not in "
            "the file. Export the model without it."
        )
    if node.op_type in REFUSED:
        raise InputError(f"{path}: cannot be brought in: {called}: {REFUSED[node.op_type]}. Export it without.")


def describe(value: ValueInfoProto) -> str:
    """Return a tensor as words: image float32 [n, 3, 256, 256]."""
    kind = value.type.tensor_type
    names = {**IMAGE_TYPES, **RESULT_TYPES}
    sizes = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in kind.shape.dim)
    known = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return f"{value.name} {names.get(kind.elem_type, known.get(kind.elem_type, 'unknown'))} [{sizes}]"


def list_sizes(value: ValueInfoProto) -> Sizes:
    """Return a tensor's dims, None where one is open."""
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)


def _list(values: Iterable[ValueInfoProto]) -> str:
    return "; ".join(map(describe, values)) or "none"


def find_image(
    path: Path,
    model: ModelProto,
    *,
    name: str | None = None,
    layout: str | None = None,
    open_px: tuple[int, int] | None = None,
    batch: int = 1,
) -> ImageInput:
    """Return the image that a model takes.

    Args:
        path: for messages.
        model: the model.
        name: of the input; None: it is the only one.
        layout: "nchw" or "nhwc"; None: by which axis has 1 or 3 values.
        open_px: height and width where the model leaves them open; None: it does not.
        batch: how many images it may be fixed to.

    Raises:
        InputError: another number or kind of inputs, another fixed batch, or a size that is open.
    """
    weights = {tensor.name for tensor in model.graph.initializer}  # which old files list as inputs too
    inputs = [value for value in model.graph.input if value.name not in weights]
    found = [value for value in inputs if name in (None, value.name)]
    if len(found) != 1 or len(inputs) != 1:
        wanted = "one input, the image" if name is None else f"the image '{name}' as the one input"
        raise InputError(f"{path}: expected {wanted}, got {_list(inputs)}. Export it with the image alone.")
    value, sizes = found[0], list_sizes(found[0])
    kind = value.type.tensor_type.elem_type
    if kind not in IMAGE_TYPES or len(sizes) != 4:
        raise InputError(
            f"{path}: expected an image {', '.join(IMAGE_TYPES.values())} [n, c, h, w] or [n, h, w, c], got "
            f"{describe(value)}."
        )
    if (sizes[0] or batch) != batch:
        raise InputError(
            f"{path}: expected a model of {batch} image{'s' if batch > 1 else ''}, or of any number, got "
            f"{describe(value)}. Export it for so many (anomalib: model.to_onnx(..., dynamic_shapes=None), for 1)."
        )
    fits = [one for one, axis in (("nchw", 1), ("nhwc", 3)) if sizes[axis] in (1, 3)]
    if layout is None and len(fits) != 1:
        raise InputError(
            f"{path}: expected an image with 1 or 3 channels in one place, got {describe(value)}. Tell ndp-rt import "
            "by --layout nchw or nhwc."
        )
    layout = layout or fits[0]
    channels, height, width = (sizes[axis] for axis in ((1, 2, 3) if layout == "nchw" else (3, 1, 2)))
    if channels not in (None, 1, 3):
        raise InputError(f"{path}: expected an image with 1 or 3 channels, got {describe(value)}, {layout}.")
    if open_px is None and (height is None or width is None):
        raise InputError(f"{path}: leaves the size of its image open: {describe(value)}. Say --size HEIGHTxWIDTH.")
    height_px, width_px = (fixed or size for fixed, size in zip((height, width), open_px or (0, 0), strict=True))
    if not all(1 <= side <= MAX_SIDE_PX for side in (height_px, width_px)):
        raise InputError(f"{path}: expected an image of 1 to {MAX_SIDE_PX} px a side, got {height_px}x{width_px}.")
    return ImageInput(
        name=value.name, kind=kind, layout=layout, channels=channels or 3, height_px=height_px, width_px=width_px
    )


def find_results(
    path: Path, outputs: Sequence[ValueInfoProto], image: ImageInput, map_name: str | None, score_name: str | None
) -> tuple[ValueInfoProto | None, ValueInfoProto | None]:
    """Return the anomaly map and the score among a model's outputs, whose shapes are known; None for what it lacks.

    A map is [n, 1, h, w], [n, h, w, 1] or, in the image's proportions, [n, h, w], floating point, of more than one
    pixel; a score has one value.

    Args:
        path: for messages.
        outputs: with shapes for one image.
        image: that they are results of.
        map_name: of the map; None: it is the only output like one, or the only one called so.
        score_name: likewise.

    Raises:
        InputError: there is neither, or several could be it; the message lists them.
    """
    floats = [value for value in outputs if value.type.tensor_type.elem_type in RESULT_TYPES]
    found_map = _choose(path, "map", map_name, outputs, [value for value in floats if is_map(list_sizes(value), image)])
    found_score = _choose(path, "score", score_name, outputs, [value for value in floats if _is_score(value)])
    if found_map is None and found_score is None:
        raise InputError(
            f"{path}: expected an anomaly map [n, 1, h, w] or a score [n] among the outputs, got {_list(outputs)}. Of "
            "a model that paints its image again, say --map difference:OUTPUT; one of boxes has to compute a map."
        )
    return found_map, found_score


def is_map(sizes: Sizes, image: ImageInput) -> bool:
    """Tell whether a result for one image is a picture of one channel; a table, such as one of boxes, is none."""
    if len(sizes) == 3 and sizes[0] == 1 and 1 not in sizes[1:]:
        h, w = sizes[1] or 0, sizes[2] or 0
        # A side is off by a pixel at most where a stride does not divide the image's.
        return abs(h * image.width_px - w * image.height_px) <= image.height_px + image.width_px
    return len(sizes) == 4 and sizes[0] == 1 and 1 in (sizes[1], sizes[3]) and (sizes[2] or 0) > 1


def _is_score(value: ValueInfoProto) -> bool:
    return all(size == 1 for size in list_sizes(value))


def _choose(
    path: Path, what: str, name: str | None, outputs: Sequence[ValueInfoProto], fitting: Sequence[ValueInfoProto]
) -> ValueInfoProto | None:
    if name is not None:
        chosen = next((value for value in fitting if value.name == name), None)
        if chosen is None:
            raise InputError(f"{path}: expected a {what} called '{name}', got the outputs {_list(outputs)}.")
        return chosen
    if len(fitting) > 1:
        called = [value for value in fitting if what in value.name]
        if len(called) != 1:
            raise InputError(f"{path}: several outputs may be the {what}: {_list(fitting)}. Say --{what} NAME.")
        return called[0]
    return fitting[0] if fitting else None
