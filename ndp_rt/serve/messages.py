"""The protocol's messages for gRPC, made from the table below when this module is imported.

The Open Inference Protocol (github.com/kserve/open-inference-protocol) and, for loading and unloading, Triton's
repository extension. They lie in a pool of descriptors of their own: a program that also imports a client of Triton or
KServe would have two messages of one name in protobuf's common one.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = "inference.GRPCInferenceService"
PARAMETERS = "map InferParameter"
METADATA = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")}
TENSOR = {**METADATA, "parameters": (4, PARAMETERS), "contents": (5, "InferTensorContents")}
NAMED = {"name": (1, "string"), "version": (2, "string")}
IN_REPOSITORY = {"repository_name": (1, "string"), "model_name": (2, "string")}

# Message: field: (number, type).
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "InferParameter": {
        "bool_param": (1, "bool"),
        "int64_param": (2, "int64"),
        "string_param": (3, "string"),
        "double_param": (4, "double"),
        "uint64_param": (5, "uint64"),
    },
    "InferTensorContents": {
        "bool_contents": (1, "repeated bool"),
        "int_contents": (2, "repeated int32"),
        "int64_contents": (3, "repeated int64"),
        "uint_contents": (4, "repeated uint32"),
        "uint64_contents": (5, "repeated uint64"),
        "fp32_contents": (6, "repeated float"),
        "fp64_contents": (7, "repeated double"),
        "bytes_contents": (8, "repeated bytes"),
    },
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": NAMED,
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**NAMED, "extensions": (3, "repeated string")},
    "ModelMetadataRequest": NAMED,
    "ModelMetadataResponse.TensorMetadata": METADATA,
    "ModelMetadataResponse": {
        "name": (1, "string"),
        "versions": (2, "repeated string"),
        "platform": (3, "string"),
        "inputs": (4, "repeated ModelMetadataResponse.TensorMetadata"),
        "outputs": (5, "repeated ModelMetadataResponse.TensorMetadata"),
    },
    "ModelInferRequest.InferInputTensor": TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": {"name": (1, "string"), "parameters": (2, PARAMETERS)},
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, PARAMETERS),
        "inputs": (5, "repeated ModelInferRequest.InferInputTensor"),
        "outputs": (6, "repeated ModelInferRequest.InferRequestedOutputTensor"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "ModelInferResponse.InferOutputTensor": TENSOR,
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, PARAMETERS),
        "outputs": (5, "repeated ModelInferResponse.InferOutputTensor"),
        "raw_output_contents": (6, "repeated bytes"),
    },
    "RepositoryIndexRequest": {"repository_name": (1, "string"), "ready": (2, "bool")},
    "RepositoryIndexResponse.ModelIndex": {**NAMED, "state": (3, "string"), "reason": (4, "string")},
    "RepositoryIndexResponse": {"models": (1, "repeated RepositoryIndexResponse.ModelIndex")},
    "RepositoryModelLoadRequest": IN_REPOSITORY,
    "RepositoryModelLoadResponse": {},
    "RepositoryModelUnloadRequest": IN_REPOSITORY,
    "RepositoryModelUnloadResponse": {},
}
ONE_OF = {"InferParameter": "parameter_choice"}  # of all of its fields one is set
Field = descriptor_pb2.FieldDescriptorProto


def make_classes() -> dict[str, Any]:
    """Return the class of each message by its name."""
    file = descriptor_pb2.FileDescriptorProto(name="ndp_rt/open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(MESSAGES, key=lambda name: name.count(".")):  # what holds others comes first
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        if name in ONE_OF:
            made[name].oneof_decl.add(name=ONE_OF[name])
        for field, (number, words) in MESSAGES[name].items():
            _add_field(made[name], name, field, number, words)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in made}


def _add_field(message: Any, message_name: str, field: str, number: int, words: str) -> None:
    kind, is_repeated = words.rpartition(" ")[2], " " in words
    added = message.field.add(name=field, number=number)
    added.label = Field.LABEL_REPEATED if is_repeated else Field.LABEL_OPTIONAL
    if words.startswith("map "):  # in a file's descriptor a map is a list of messages of two fields
        entry = f"{field.title().replace('_', '')}Entry"
        pair = message.nested_type.add(name=entry)
        pair.options.map_entry = True
        _add_field(pair, "", "key", 1, "string")
        _add_field(pair, "", "value", 2, kind)
        kind = f"{message_name}.{entry}"
    if kind[0].isupper():
        added.type, added.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        added.type = getattr(Field, f"TYPE_{kind.upper()}")
    if message_name in ONE_OF:
        added.oneof_index = 0


CLASSES = make_classes()
