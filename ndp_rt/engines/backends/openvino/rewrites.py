"""Changes OpenVINO's own graph before it is compiled: how maps are enlarged, and which layers stay in float32."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.files import make_temporary_folder
from ndp_rt.graphs.winograd_rule import PREFIX

DEPTHWISE = "GroupConvolution"
CONVOLUTIONS = ("Convolution", DEPTHWISE)
KEPT = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:dynamic"}
BILINEAR = ("linear", "linear_onnx")
MOST_PRODUCTS = 1024  # for each pixel of an enlarged map; they take longer than Interpolate from about here on


def enlarge_by_products(model: Any) -> None:
    """Replace the bilinear enlargement of maps, [n, 1, h, w], by two products with matrices, in place; exact.

    OpenVINO 2026.4 takes longer for it than for any convolution of EfficientNet-Lite0: docs/rewrites.md.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Interpolate" or not _is_enlarged_map(node):
            continue
        source = node.input_value(0)
        (*_, h, w), (*_, rows, columns) = (list(port.get_shape()) for port in (source, node.output(0)))
        left = opset13.constant(make_enlargement(h, rows // h))
        right = opset13.constant(make_enlargement(w, columns // w))
        wide = opset13.matmul(source, right, transpose_a=False, transpose_b=True)
        product = opset13.matmul(left, wide, transpose_a=False, transpose_b=False)
        product.set_friendly_name(node.get_friendly_name())
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(product.output(0))


def make_enlargement(side: int, factor: int) -> FloatArray:
    """Return the matrix [factor * side, side] that enlarges a line of pixels bilinearly, its ends repeated."""
    places = (np.arange(factor * side) + 0.5) / factor - 0.5
    distances = np.abs(places.clip(0, side - 1)[:, None] - np.arange(side))
    return np.maximum(0.0, 1.0 - distances).astype(np.float32)


def _is_enlarged_map(node: Any) -> bool:
    before, after = (tuple(port.get_shape()) for port in (node.input_value(0), node.output(0)))
    attributes = node.get_attributes()
    return (
        len(before) == 4
        and before[1] == 1
        and before[:2] == after[:2]
        and all(new % old == 0 for new, old in zip(after[2:], before[2:], strict=True))
        and attributes["mode"] in BILINEAR
        and attributes["coordinate_transformation_mode"] == "half_pixel"
        and not attributes["antialias"]
        and _count_products(before[2:], after[2:]) <= MOST_PRODUCTS
    )


def _count_products(before: tuple[int, ...], after: tuple[int, ...]) -> float:
    """Return the multiplications of the two products for each pixel of the enlarged map; grows with the map's sides."""
    (h, w), (rows, columns) = before, after
    return (h * w * columns + rows * h * columns) / (rows * columns)


def keep_contrast(core: Any, model: Any) -> Any:
    """Return the model with three layers that compute in float32 where the rest computes in bfloat16.

    They are the first depthwise convolution and the ones before and after it. Such kernels take a pixel's neighbours
    off it: in EfficientNet-Lite0 a surface's contrast is there the small difference of products 16 times as large as
    the pixels, and bfloat16's rounding of these made nine tenths of the maps' error (docs/rewrites.md).

    A model without such a layer, or with these layers in int8, comes back as it is.
    """
    names = _find_contrast_layers(model)
    if not names:
        return model
    import openvino

    with make_temporary_folder("openvino") as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.serialize(model, xml, weights)
        tree = ElementTree.parse(xml)
        for layer in tree.iterfind("./layers/layer"):
            if layer.get("name") in names:
                facts = layer.find("rt_info")
                if facts is None:
                    facts = ElementTree.Element("rt_info")
                    layer.insert(next(place for place, one in enumerate(layer) if one.tag == "input"), facts)
                # What OpenVINO's own passes mark layers with, 2026.1 or later; a version without it computes in bf16.
                ElementTree.SubElement(facts, "attribute", KEPT)
        return core.read_model(ElementTree.tostring(tree.getroot()), weights.read_bytes())


def _find_contrast_layers(model: Any) -> set[str]:
    """Return the names of the layers of `keep_contrast`."""
    layers = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in CONVOLUTIONS and PREFIX not in node.get_friendly_name()
    ]
    first = next((place for place, node in enumerate(layers) if node.get_type_name() == DEPTHWISE), None)
    if first is None:
        return set()
    chosen = layers[max(0, first - 1) : first + 2]
    return {node.get_friendly_name() for node in chosen} if all(map(_has_plain_weights, chosen)) else set()


def _has_plain_weights(node: Any) -> bool:
    source = node.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Reshape"):  # of weights in float16, and of groups
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "Constant" and source.get_element_type().is_real())
