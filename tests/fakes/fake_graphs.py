"""Typed stages as `fake_tensorrt` reads them: JSON in the producer's name of an ONNX file that holds nothing else."""

import json
from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle
from ndp_rt.bundle.open import hash_file
from ndp_rt.engines.stage_files import STAGES_FILE, STAGES_FORMAT, STAGES_FORMAT_VERSION, StageFolder, open_stages

TYPES = {"fp32": "FLOAT", "tf32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "HALF"}
BORDERS = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float16"}
SIDE = 64


def make_graph(precision: str, cast_kind: str = "CAST") -> dict[str, Any]:
    """Return a stage with two convolutions and a matrix product, and a product and a softmax in a float32 island.

    Args:
        precision: of everything outside the island.
        cast_kind: what the parser makes of a Cast: "CAST", or "IDENTITY" with its type set in 8.5.
    """
    kind = TYPES[precision]
    layers = [
        {"kind": "CONVOLUTION", "name": "conv1", "inputs": ["image"], "output": "c1", "dtype": kind},
        {"kind": "ACTIVATION", "name": "relu1", "inputs": ["c1"], "output": "a1", "dtype": kind},
        {"kind": "DECONVOLUTION", "name": "up", "inputs": ["a1"], "output": "reconstruction", "dtype": kind},
        {"kind": cast_kind, "name": "in", "inputs": ["c1"], "output": "i1", "dtype": "FLOAT", "is_set": True},
        {"kind": "CONVOLUTION", "name": "squares", "inputs": ["i1"], "output": "i2", "dtype": "FLOAT"},
        {"kind": "SOFTMAX", "name": "softmax", "inputs": ["i2"], "output": "i3", "dtype": "FLOAT"},
        {"kind": cast_kind, "name": "out", "inputs": ["i3"], "output": "h1", "dtype": kind, "is_set": True},
        {"kind": "MATRIX_MULTIPLY", "name": "product", "inputs": ["h1"], "output": "m1", "dtype": kind},
        {"kind": cast_kind, "name": "last", "inputs": ["m1"], "output": "am1", "dtype": "FLOAT", "is_set": True},
    ]
    if precision == "int8":  # up to opset 18, quantized values come back as float32
        layers[0].update(inputs=["d"], output="c0", dtype="FLOAT")
        cast = {"kind": cast_kind, "name": "half", "inputs": ["c0"], "output": "c1", "dtype": kind, "is_set": True}
        layers.insert(1, cast)
        layers.insert(0, {"kind": "DEQUANTIZE", "name": "dq", "inputs": ["q"], "output": "d", "dtype": "FLOAT"})
        layers.insert(0, {"kind": "QUANTIZE", "name": "q", "inputs": ["image"], "output": "q", "dtype": "INT8"})
    layers.insert(2, {"kind": "CONSTANT", "name": "shape", "inputs": [], "output": "s", "dtype": "INT32"})
    return {
        "inputs": [{"name": "image", "dtype": kind, "shape": [-1, 3, SIDE, SIDE]}],
        "layers": layers,
        "outputs": ["reconstruction", "am1"],
    }


def write_graph(path: Path, graph: dict[str, Any]) -> Path:
    """Write a graph as the one field of a ModelProto, and return the path."""
    text = json.dumps(graph).encode()
    length, sizes = len(text), b""
    while length >= 0x80:
        sizes += bytes([length & 0x7F | 0x80])
        length >>= 7
    path.write_bytes(b"\x12" + sizes + bytes([length]) + text)
    return path


def write_fake_stages(bundle: Bundle, precision: str, folder: Path, *, plan: str = "staged") -> StageFolder:
    """Write a folder as `stage_files.write_stages` does, of stages for the fake."""
    folder.mkdir(parents=True)
    stages = {}
    for name in bundle.manifest.programs["cuda"][plan].stages:
        path = write_graph(folder / f"{name}.onnx", make_graph(precision))
        dims = {"image": {"dtype": BORDERS[precision], "dims": ["n", 3, SIDE, SIDE]}}
        stages[name] = {"file": path.name, "sha256": hash_file(path), "inputs": dims, "outputs": {}}
    document = {
        "format": STAGES_FORMAT,
        "format_version": STAGES_FORMAT_VERSION,
        "bundle_name": bundle.manifest.name,
        "bundle_fingerprint": bundle.fingerprint,
        "precision": precision,
        "plan": plan,
        "stages": stages,
    }
    (folder / STAGES_FILE).write_text(json.dumps(document))
    return open_stages(folder)
