"""The fake TensorRT's logger, network and ONNX parser."""

import json
import weakref
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

from tests.fakes.fake_tensorrt_base import Faked


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    _lib: Any = None

    def __init__(self) -> None:
        self._is_made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    _lib: Any = None

    def __init__(self) -> None:
        self._is_made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(Faked):
    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __bytes__(self) -> bytes:
        return self._content

    @property
    def nbytes(self) -> int:
        return len(self._content)


class ITensor(Faked):
    __slots__ = ("_dtype", "_format", "_name", "_shape")

    def __init__(self, name: str, dtype: str, shape: Iterable[int]) -> None:
        self._name, self._dtype, self._shape, self._format = name, dtype, tuple(shape), 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def dtype(self) -> Any:
        return self._lib.DataType[self._dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def allowed_formats(self) -> int:
        return self._format

    @allowed_formats.setter
    def allowed_formats(self, formats: int) -> None:
        self._format = formats


class ILayer(Faked):
    __slots__ = ("_inputs", "_is_set", "_kind", "_name", "_outputs", "_precision", "_set_type")

    def __init__(self, kind: str, name: str, inputs: list[Any], output: Any, is_set: bool) -> None:
        self._kind, self._name, self._inputs, self._outputs = kind, name, inputs, [output]
        self._precision: Any = None
        self._set_type: Any = None
        self._is_set = is_set

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> Any:
        return self._lib.LayerType[self._kind]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return 1

    def get_input(self, index: int) -> Any:
        return self._inputs[index] if index < len(self._inputs) else None

    def get_output(self, index: int) -> Any:
        return self._outputs[index] if index < 1 else None

    @property
    def precision(self) -> Any:
        return self._precision

    @precision.setter
    def precision(self, dtype: Any) -> None:
        self._precision = dtype

    def set_output_type(self, index: int, dtype: Any) -> None:
        self._set_type = dtype

    def output_type_is_set(self, index: int) -> bool:
        return self._is_set or self._set_type is not None


class INetworkDefinition(Faked):
    __slots__ = ("_flags", "_inputs", "_layers", "_outputs", "_parser", "_types")

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []
        self._types: dict[str, str] = {}  # as the file says, whatever the tensors say
        self._parser: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class ParserError(Faked):
    __slots__ = ("_index", "_text")

    def __init__(self, index: int, text: str) -> None:
        self._index, self._text = index, text

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return f"node_{self._index}"


class OnnxParser(Faked):
    __slots__ = ("_errors", "_network")

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._errors = network, []
        network._parser = weakref.ref(self)

    def parse_from_file(self, model: str) -> bool:
        content = Path(model).read_bytes()
        document = json.loads(content[content.index(b'{"') :])
        self._errors = [self._lib.ParserError(i, text) for i, text in enumerate(document.get("errors", []))]
        if self._errors:
            return False
        lib, network = self._lib, self._network
        is_typed = lib.__version__.split(".")[0] not in ("8", "9")
        tensors: dict[str, Any] = {}
        for one in document["inputs"]:
            tensors[one["name"]] = lib.ITensor(one["name"], one["dtype"], one["shape"])
            network._inputs.append(tensors[one["name"]])
            network._types[one["name"]] = one["dtype"]
        for one in document["layers"]:
            knows_own = is_typed or one["kind"] in ("CONSTANT", "CAST", "DEQUANTIZE", "QUANTIZE") or one.get("is_set")
            shape = next((tensors[name].shape for name in one["inputs"]), (1,))
            tensors[one["output"]] = lib.ITensor(one["output"], one["dtype"] if knows_own else "FLOAT", shape)
            inputs = [tensors[name] for name in one["inputs"]]
            layer = lib.ILayer(one["kind"], one["name"], inputs, tensors[one["output"]], one.get("is_set", False))
            network._layers.append(layer)
            network._types[one["output"]] = one["dtype"]
        for name in document["outputs"]:
            given = lib.ITensor(
                name, network._types[name], tensors[name].shape
            )  # its type is the file's in any version
            network._outputs.append(given)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]
