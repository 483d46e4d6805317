"""Puts what a stranger's model expects of its image, and does to its results, into its graph.

A bundle's image is float32 [n, 3, h, w], RGB, 0 to 1; its map is float32 [n, 1, h, w].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import remove_unused, rename_tensors, set_nodes
from ndp_rt.importing.model import list_sizes
from ndp_rt.importing.terms import Convention, ImageInput
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE

PREFIX = "model/"  # of everything that the model brings
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as cv2.COLOR_RGB2GRAY


def add_prefix(model: ModelProto, image: ImageInput, convention: Convention) -> None:
    """Let a model take a bundle's image: its own tensors get PREFIX, and the new first nodes make its input.

    Raises:
        InputError: a grey image for a model of three channels, or numbers for another count of channels.
    """
    graph = model.graph
    own = {name for node in graph.node for name in (*node.input, *node.output) if name}
    own |= {tensor.name for tensor in graph.initializer} | {value.name for value in (*graph.input, *graph.output)}
    rename_tensors(graph, {name: PREFIX + name for name in own})
    for node in graph.node:
        node.name = PREFIX + (node.name or next(iter(node.output), ""))
    writer = _Writer(model, "image")
    tensor = writer.change_colour(IMAGE, image.channels, convention.colour)
    if convention.scale != 1:
        tensor = writer.add("Mul", [tensor, writer.store("white", np.float32(convention.scale))])
    for kind, name, values in (("Sub", "mean", convention.mean), ("Div", "std", convention.std)):
        if len(values) not in (0, 1, image.channels):
            raise InputError(f"{name}: expected 1 or {image.channels} numbers, got {len(values)}.")
        if values:
            tensor = writer.add(kind, [tensor, writer.store(name, np.array(values, np.float32).reshape(1, -1, 1, 1))])
    if image.layout == "nhwc":
        tensor = writer.add("Transpose", [tensor], perm=[0, 2, 3, 1])
    if image.kind == TensorProto.UINT8:
        tensor = writer.add("Round", [tensor])
    if image.kind != TensorProto.FLOAT:
        tensor = writer.add("Cast", [tensor], to=image.kind)
    writer.nodes.append(helper.make_node("Identity", [tensor], [PREFIX + image.name], name="to_model"))
    set_nodes(model, [*writer.nodes, *graph.node])
    del graph.input[:]
    del graph.value_info[:]
    shape = ["n", 3, image.height_px, image.width_px]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, shape))


def add_difference(model: ModelProto, image: ImageInput, picture: str, result: str) -> None:
    """Add an output: how far a picture that a model makes is from its image, absolute, the mean over channels.

    Args:
        model: with its prefix.
        image: that it takes.
        picture: an output of the image's sizes.
        result: the name of the new one, [n, 1, h, w].
    """
    writer, sides = _Writer(model, "difference"), []
    for name in (picture, image.name):
        side = writer.add("Cast", [PREFIX + name], to=TensorProto.FLOAT)
        sides.append(writer.add("Transpose", [side], perm=[0, 3, 1, 2]) if image.layout == "nhwc" else side)
    difference = writer.add("Abs", [writer.add("Sub", sides)])
    mean = writer.store("mean_of_channels", np.full((1, image.channels, 1, 1), 1 / image.channels, np.float32))
    writer.nodes.append(helper.make_node("Conv", [difference, mean], [PREFIX + result], name="difference"))
    set_nodes(model, [*model.graph.node, *writer.nodes])
    shape = ["n", 1, image.height_px, image.width_px]
    model.graph.output.append(helper.make_tensor_value_info(PREFIX + result, TensorProto.FLOAT, shape))


def set_outputs(
    model: ModelProto, tensor: str, result: ValueInfoProto, own_score: tuple[str, int] | None = None
) -> tuple[int, int]:
    """Make a tensor of the model the output `map`, and return its height and width; others go.

    Args:
        model: with its prefix.
        tensor: a map or a score.
        result: its type, and its shape for one image.
        own_score: a score, and its type, that becomes a second output, OWN_SCORE [n].
    """
    kind, sizes = result.type.tensor_type.elem_type, list_sizes(result)
    writer = _Writer(model, "result")
    if kind != TensorProto.FLOAT:
        tensor = writer.add("Cast", [tensor], to=TensorProto.FLOAT)
    count = len(sizes)
    if count == 4 and sizes[1] != 1:
        tensor, height, width = writer.add("Transpose", [tensor], perm=[0, 3, 1, 2]), sizes[1], sizes[2]
    elif count == 4:
        height, width = sizes[2], sizes[3]
    else:
        height, width = (sizes[1], sizes[2]) if count == 3 else (1, 1)
        target = writer.store("map_shape", np.array([-1, 1, height or 1, width or 1], np.int64))
        tensor = writer.add("Reshape", [tensor, target])
    writer.nodes.append(helper.make_node("Identity", [tensor], [MAP], name="to_map"))
    outputs = [helper.make_tensor_value_info(MAP, TensorProto.FLOAT, ["n", 1, height, width])]
    if own_score is not None:
        score, score_kind = own_score
        if score_kind != TensorProto.FLOAT:
            score = writer.add("Cast", [score], to=TensorProto.FLOAT)
        shape = writer.store("score_shape", np.array([-1], np.int64))
        writer.nodes.append(helper.make_node("Reshape", [score, shape], [OWN_SCORE], name="to_score"))
        outputs.append(helper.make_tensor_value_info(OWN_SCORE, TensorProto.FLOAT, ["n"]))
    graph = model.graph
    set_nodes(model, [*graph.node, *writer.nodes])
    del graph.output[:]
    graph.output.extend(outputs)
    remove_unused(model)
    _remove_identities(graph)
    onnx.checker.check_model(model, full_check=False)
    return height or 1, width or 1


def _remove_identities(graph: GraphProto) -> None:
    """Let nodes read and write without the Identity nodes between them, which not every backend runs."""
    makers = {name: node for node in graph.node for name in node.output}
    results = {value.name for value in graph.output}
    kept, names = [], dict[str, str]()
    for node in graph.node:
        if node.op_type != "Identity":
            kept.append(node)
            continue
        source, target = names.get(node.input[0], node.input[0]), node.output[0]
        if target not in results:
            names[target] = source
        elif source in makers and source not in results and source not in names:
            names[source] = target  # the node that made it makes the result
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    rename_tensors(graph, {name: _follow(names, name) for name in names})


def _follow(names: Mapping[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name


def drop_output(model: ModelProto, name: str) -> None:
    """Remove an output, if it is there, and what made it alone."""
    kept = [value for value in model.graph.output if value.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    remove_unused(model)


class _Writer:
    """Collects new nodes, and stores their constants in a model; tensors' names begin with a word of its own."""

    def __init__(self, model: ModelProto, word: str) -> None:
        self._model, self._word = model, word
        self.nodes: list[NodeProto] = []

    def store(self, name: str, values: Any) -> str:
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"adapt/{self._word}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def change_colour(self, image: str, channels: int, colour: str) -> str:
        """Return the image [n, c, h, w] in a colour, as the channels of RGB multiplied by a matrix."""
        if (channels == 1) != (colour == "grey"):
            expected = "grey" if channels == 1 else "rgb or bgr"
            raise InputError(f"colour: expected {expected} for a model of {channels} channels, got {colour}.")
        if colour == "rgb":
            return image
        if colour == "bgr":
            return self.add("Gather", [image, self.store("bgr", np.array([2, 1, 0], np.int64))], axis=1)
        return self.add("Conv", [image, self.store("grey", GREY.reshape(1, 3, 1, 1))])
