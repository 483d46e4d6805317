"""From a typed ONNX file to a network of one batch size that can be built."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backends.tensorrt.adapter import (
    PRODUCT_LAYERS,
    describe_parser_error,
    find_quantized,
    make_network,
    read_types,
)
from ndp_rt.engines.backends.tensorrt.library import describe
from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log
from ndp_rt.errors import EngineError
from ndp_rt.program.tensors import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
PRODUCT_TYPES = {"FLOAT": "f32", "HALF": "f16", "BF16": "bf16", "INT8": "i8"}


class ParsedNetwork:
    """A network and the parser that owns its weights, so that both live until it is built."""

    def __init__(self, lib: Any, builder: "trt.Builder", onnx_path: Path) -> None:
        """Parse a file; its external data lies beside it.

        Raises:
            EngineError: the parser refuses it; the message has all its complaints.
        """
        self._lib = lib
        self.network: trt.INetworkDefinition = make_network(lib, builder)
        self._parser: trt.OnnxParser = lib.OnnxParser(self.network, get_log(lib))
        before = get_log(lib).error_count
        if not self._parser.parse_from_file(str(onnx_path)):
            complaints = [describe_parser_error(lib, self._parser.get_error(i)) for i in range(self._parser.num_errors)]
            raise EngineError(
                f"{describe(lib)} cannot read {onnx_path}: {'; '.join(complaints) or describe_errors(lib, before)}."
            )

    def fix_batch(self, builder: "trt.Builder", config: "trt.IBuilderConfig", batch: int) -> None:
        """Give every input its one shape, and all that goes in and out the dense layout.

        Raises:
            EngineError: an input's batch is fixed at another number.
        """
        lib = self._lib
        network, linear = self.network, 1 << int(lib.TensorFormat.LINEAR)
        profile: trt.IOptimizationProfile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor: trt.ITensor = network.get_input(index)
            tensor.allowed_formats = linear
            shape = tuple(tensor.shape)
            if shape[0] not in (-1, batch) or -1 in shape[1:]:
                raise EngineError(
                    f"expected input '{tensor.name}' with a first axis that may be {batch} and fixed ones behind it, "
                    f"got shape {list(shape)}."
                )
            fixed = (batch, *shape[1:])
            profile.set_shape(tensor.name, fixed, fixed, fixed)
        for index in range(network.num_outputs):
            given: trt.ITensor = network.get_output(index)
            given.allowed_formats = linear
        before = get_log(lib).error_count
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"TensorRT refuses batch {batch}: {describe_errors(lib, before)}.")

    def describe(self, batch: int) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        """Return the inputs and outputs for one batch size.

        Raises:
            EngineError: one is of a type that engines have not.
        """
        network = self.network
        inputs = [self._describe_tensor(network.get_input(index), batch) for index in range(network.num_inputs)]
        outputs = [self._describe_tensor(network.get_output(index), batch) for index in range(network.num_outputs)]
        return {one.name: one for one in inputs}, {one.name: one for one in outputs}

    def _describe_tensor(self, tensor: "trt.ITensor", batch: int) -> TensorSpec:
        dtype: trt.DataType = tensor.dtype
        return TensorSpec(
            name=tensor.name, shape=(batch, *tuple(tensor.shape)[1:]), dtype=name_dtype(dtype.name, tensor.name)
        )

    def count_products(self) -> dict[str, dict[str, int]]:
        """Return how many of the network's layers multiply in which type, by kind."""
        network, types = self.network, read_types(self._lib, self.network)
        quantized, counts = find_quantized(network), dict[str, Counter[str]]()
        for index in range(network.num_layers):
            layer: trt.ILayer = network.get_layer(index)
            kind: trt.LayerType = layer.type
            first: trt.ITensor = layer.get_input(0)
            if kind.name in PRODUCT_LAYERS:
                name = "INT8" if first.name in quantized else types.get(first.name, "unknown")
                own = counts.setdefault(PRODUCT_LAYERS[kind.name], Counter())
                own[PRODUCT_TYPES.get(name, name.lower())] += 1
        return {kind: dict(sorted(own.items())) for kind, own in sorted(counts.items())}


def name_dtype(name: str, tensor: str) -> str:
    """Return a TensorRT type's name as ours.

    Raises:
        EngineError: engines have no such type at their borders.
    """
    if name not in DTYPES:
        raise EngineError(
            f"expected {' or '.join(DTYPES)} as the type of '{tensor}', which goes in or out, got {name}."
        )
    return DTYPES[name]
