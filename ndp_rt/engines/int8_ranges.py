"""Measures on images the largest value that each convolution reads: int8 steps are chosen by it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.bundle.int8_layers import Int8Layers
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.registry import choose_backend
from ndp_rt.engines.spec import CPU
from ndp_rt.errors import EngineError, InputError
from ndp_rt.files import make_temporary_folder
from ndp_rt.graphs.folding import load_model
from ndp_rt.graphs.quantised import SMALLEST_STEP, STEPS, name_layers


def measure_all_layers(bundle: Bundle, images: FloatArray) -> Int8Layers:
    """Return every layer as one that computes in int8, with ranges from images [k, 3, h, w], preprocessed.

    Raises:
        InputError: images of another shape or type.
    """
    contract = bundle.manifest.input
    wanted = (3, contract.height_px, contract.width_px)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.float32 or not len(images):
        raise InputError(
            f"expected calibration images float32 [k, {wanted[0]}, {wanted[1]}, {wanted[2]}], k from 1, preprocessed, "
            f"got {images.dtype} {list(images.shape)}."
        )
    limits = measure_limits(bundle, images)
    return Int8Layers(limits=limits, chosen={"int8": tuple(limits)})


def measure_limits(
    bundle: Bundle,
    images: Iterable[FloatArray],
    *,
    threads: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return the largest |value| that each layer reads on any of the images, by `quantised_graph.name_layers`.

    The fused graph runs in float32 with one more output for each tensor, so images are looked at one by one.

    Args:
        images: float32 [3, h, w], preprocessed; the good surface, and defects: their features are up to three times as
            large, and what a limit cuts off is what the network would have found them by.
        threads: of the engine.
        on_image: called after each image.

    Raises:
        InputError: no images.
        EngineError: the graph cannot be compiled with more outputs, or a value is NaN or infinite.
    """
    model = load_model(bundle.stage_path(bundle.manifest.find_single_stage()))
    layers = name_layers(model)
    read = {node.input[0]: f"largest_{index}" for index, node in enumerate(layers.values())}
    del model.graph.output[:]
    for tensor, name in read.items():
        model.graph.node.append(helper.make_node("Abs", [tensor], [f"{name}_abs"]))
        model.graph.node.append(helper.make_node("ReduceMax", [f"{name}_abs"], [name], keepdims=1))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, 1]))
    outputs = {name: np.zeros((1, 1, 1, 1), np.float32) for name in read.values()}
    largest = dict.fromkeys(read.values(), STEPS * SMALLEST_STEP)  # of zeros alone
    count = 0
    with make_temporary_folder("ranges") as folder:
        path = Path(folder) / "ranges.onnx"
        path.write_bytes(model.SerializeToString())
        engine = compile_engine(choose_backend(CPU).name, path, Path(folder) / "engine", EngineOptions(threads=threads))
        try:
            for count, image in enumerate(images, start=1):
                engine.run({"image": np.ascontiguousarray(image[None])}, outputs)
                for name, value in outputs.items():
                    if not np.isfinite(value).all():
                        raise EngineError(f"image {count}: a layer reads NaN or infinity. Train again.")
                    largest[name] = max(largest[name], float(value.max()))
                on_image()
        finally:
            engine.close()
    if not count:
        raise InputError("expected at least one calibration image, got none. Some dozens make sense.")
    return {name: largest[read[node.input[0]]] for name, node in layers.items()}
