"""int8 written into a graph as QuantizeLinear and DequantizeLinear around its convolutions, by ONNX Runtime's tool.

Symmetric, weights by output channel, activations by tensor, ranges from calibration images. What reads the image or the
reconstruction stays in half precision (three channels bring no speed, and both encoder passes have to treat their input
alike), so do the convolutions in front of a sigmoid, whose one number a pixel is the result, and those of RBFRM.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from ndp_rt.bundle import Bundle
from ndp_rt.engines.base import one_line
from ndp_rt.engines.gpu_stages import make_gpu_stages
from ndp_rt.engines.typed_graph import find_islands
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.kernels.host import PreparedReference, Rbfrm

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, FloatArray]

QUANTISED = ("Conv", "ConvTranspose")
PICTURES = ("image", "reconstruction")
REMEDY = "pip install 'ndp-rt[onnxruntime]'"


def quantise_stages(bundle: Bundle, plan: str, images: FloatArray) -> dict[str, ModelProto]:
    """Return the graphs of a GPU plan in float32 with Q/DQ nodes; `typed_graph.make_typed` gives them their types.

    Args:
        bundle: opened.
        plan: one of `ndp_rt.specs.GPU_PLAN_STAGES`.
        images: [k, 3, h, w], preprocessed; the good surface, and defects where there are pictures of some. Ranges are
            the smallest and largest values that they give.

    Raises:
        InputError: another plan, or images of another shape.
        BundleError: a stage cannot be read or cut.
        MissingExtraError: ONNX Runtime is not installed.
        EngineError: its quantiser refuses a graph, or nothing can be quantised.
    """
    contract = bundle.manifest.input
    wanted = (3, contract.height_px, contract.width_px)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.float32 or not len(images):
        raise InputError(
            f"calibration images are {images.dtype} {list(images.shape)}; float32 [k, {wanted[0]}, {wanted[1]}, "
            f"{wanted[2]}], k from 1, preprocessed, is taken."
        )
    runtime = _import()
    models = make_gpu_stages(bundle, plan)
    sessions = {
        name: runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for name, model in models.items()
    }
    reference = bundle.reference()
    quantised = {
        name: quantise(model, _iterate_inputs(name, sessions, reference, images)) for name, model in models.items()
    }
    if not any(node.op_type == "QuantizeLinear" for model in quantised.values() for node in model.graph.node):
        raise EngineError(f"{bundle.path}: no convolution of it can be quantised. Use --precision fp16.")
    return quantised


def quantise(model: ModelProto, inputs: Iterator[Tensors]) -> ModelProto:
    """Return one graph with Q/DQ nodes.

    Args:
        model: float32, constants folded.
        inputs: its inputs by name, for each calibration image.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        EngineError: its quantiser refuses the graph.
    """
    runtime = _import()
    from onnxruntime import quantization
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands out the inputs, image by image."""

        def get_next(self) -> Tensors | None:
            return next(inputs, None)

    source = ModelProto()
    source.CopyFrom(model)
    names = _name_nodes(source)
    add_pre_process_metadata(source)  # constants are folded; without the mark the tool asks for it in the root log
    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,  # TensorRT adds it in float
        "AddQDQPairToWeight": True,  # which TensorRT of every version reads
        "OpTypesToExcludeOutputQuantization": list(QUANTISED),  # rounded after the ReLU, once
    }
    with tempfile.TemporaryDirectory(prefix="ndp-rt-int8-") as folder:
        path = Path(folder) / "quantised.onnx"
        try:
            quantization.quantize_static(
                source,
                str(path),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_exclude=[names[output] for output in find_half_convolutions(model)],
                extra_options=options,
            )
        except Exception as error:  # its exceptions share no base below Exception
            raise EngineError(
                f"ONNX Runtime {runtime.__version__} cannot quantise stage '{model.graph.name}': {one_line(error)}. "
                "Use --precision fp16."
            ) from error
        quantised = ModelProto.FromString(path.read_bytes())
    return _clean(quantised, model)


def find_half_convolutions(model: ModelProto) -> set[str]:
    """Return the results of the convolutions that stay in half precision."""
    islands = find_islands(model)
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = set()
    for node in model.graph.node:
        if node.op_type in QUANTISED:
            result = node.output[0]
            touches_island = bool({node.input[0], result} & islands) or any(
                reader.output[0] in islands and reader.op_type != "Sigmoid" for reader in readers.get(result, [])
            )
            ends_in_sigmoid = any(reader.op_type == "Sigmoid" for reader in readers.get(result, []))
            if node.input[0] in PICTURES or ends_in_sigmoid or touches_island:
                kept.add(result)
    return kept


def _iterate_inputs(
    stage: str, sessions: Mapping[str, Any], reference: Tensors, images: FloatArray
) -> Iterator[Tensors]:
    """Yield what a stage reads, image by image, by running the float32 stages before it."""
    prepared: dict[str, Rbfrm] = {}
    for image in images:
        tensors: dict[str, FloatArray] = {"image": image[None]}
        for name, session in sessions.items():
            needed = [node.name for node in session.get_inputs()]
            for one in needed:
                if one not in tensors:
                    tensors[one] = _repair(one, tensors, reference, prepared)
            inputs = {one: tensors[one] for one in needed}
            if name == stage:
                yield inputs
                break
            results = [node.name for node in session.get_outputs()]
            tensors.update(zip(results, session.run(results, inputs), strict=True))


def _repair(name: str, tensors: Tensors, reference: Tensors, prepared: dict[str, Rbfrm]) -> FloatArray:
    """Return r<level>k<K>: f<level> rebuilt from the reference's patches."""
    level, size = name[1:].split("k")
    features = tensors[f"f{level}"]
    if name not in prepared:
        prepared[name] = Rbfrm(PreparedReference(reference[f"f{level}"], int(size)), *features.shape[2:])
    out = np.empty_like(features)
    prepared[name](features, out)
    return out


def _name_nodes(model: ModelProto) -> dict[str, str]:
    """Give every node the name of its first result, and return the names by result."""
    for node in model.graph.node:
        node.name = node.output[0]
    return {node.output[0]: node.name for node in model.graph.node}


def _clean(quantised: ModelProto, model: ModelProto) -> ModelProto:
    """Return the tool's graph under the names and versions of the graph that it was given."""
    del quantised.graph.value_info[:]
    quantised.graph.name = model.graph.name
    return helper.make_model(
        quantised.graph,
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"int8 needs ONNX Runtime's quantiser ({error}). Install it with: {REMEDY}") from error
    return onnxruntime
