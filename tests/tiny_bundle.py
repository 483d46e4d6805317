"""A bundle of a very small network with both plans, made without PyTorch: random weights, 64 x 64 pixels, 60 KB.

The network has the real one's tensors, names and RBFRM, with one convolution where the real one has a block. Its golden
vectors come from onnx's reference evaluator, which is plain NumPy.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save

from ndp_rt.bundle import Bundle, write_bundle
from ndp_rt.kernels.fuse_maps.definition import MAP_WEIGHTS
from ndp_rt.kernels.rbfrm.definition import NORM_EPS, split_patches
from ndp_rt.kernels.score.definition import score
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.program.manifest import BundleManifest, InputContract, ModelSpec, StageSpec, ThresholdSpec, read_model
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.program.version1 import describe_ndpnet

SIDE = 64
CHANNELS = (4, 4, 4, 4, 4)
LEVELS, SIZES = (3, 4, 5), (2, 4)
WEIGHTS_FILE = "weights.bin"


class GraphWriter:
    """Collects nodes and weights of one ONNX graph; weights go to one external file, shared by all graphs."""

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.used: dict[str, NDArray[Any]] = {}

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.used[name] = value
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def conv(self, x: str, name: str, output: str, stride: int = 1) -> str:
        x = self.add("Conv", [x, self.weight(name)], f"{output}_conv", strides=[stride] * 2, pads=[1] * 4)
        return self.add("Relu", [x], output)

    def encode(self, image: str, prefix: str, level_count: int) -> None:
        x = image
        for level in range(1, level_count + 1):
            x = self.conv(x, f"encoder_{level}", f"{prefix}{level}", stride=1 if level == 1 else 2)

    def repair(self, level: int, size: int, features: NDArray[Any]) -> None:
        """Add RBFRM as a convolution, a softmax and a transposed convolution."""
        f, tag = f"f{level}", f"r{level}k{size}"
        c = features.shape[1]
        patches = split_patches(features, size)[0].reshape(-1, c, size, size)
        unit = (
            patches
            / np.maximum(np.linalg.norm(patches.reshape(len(patches), -1), axis=1), NORM_EPS)[:, None, None, None]
        )
        ones = self.constant(f"{tag}_ones", np.ones((1, c, size, size), np.float32))
        stride = [size, size]
        square = self.add("Mul", [f, f], f"{tag}_square")
        norm = self.add("Conv", [square, ones], f"{tag}_norm2", strides=stride)
        norm = self.add("Sqrt", [norm], f"{tag}_norm")
        norm = self.add("Max", [norm, self.constant("eps", np.float32([NORM_EPS]))], f"{tag}_norm_held")
        bank = self.constant(f"{tag}_unit", unit.astype(np.float32))
        cosine = self.add("Conv", [f, bank], f"{tag}_product", strides=stride)
        cosine = self.add("Div", [cosine, norm], f"{tag}_cosine")
        weights = self.add("Softmax", [cosine], f"{tag}_weights", axis=1)
        raw = self.constant(f"{tag}_raw", patches.astype(np.float32))
        self.add("ConvTranspose", [weights, raw], tag, strides=stride)

    def decode(self) -> None:
        total = ""
        for level in LEVELS:
            x = self.add("Sum", [f"f{level}", *(f"r{level}k{size}" for size in SIZES)], f"sum{level}")
            scales = self.constant(f"scales{level}", np.float32([1, 1, 2 ** (level - 1), 2 ** (level - 1)]))
            x = self.add(
                "Resize",
                [x, "", scales],
                f"up{level}",
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
            total = x if not total else self.add("Add", [total, x], f"total{level}")
        x = self.add("Conv", [total, self.weight("last")], "last_conv", pads=[1] * 4)
        self.add("Sigmoid", [x], "reconstruction")

    def segment(self) -> None:
        total = ""
        for level, weight in zip((1, 2, 3), MAP_WEIGHTS, strict=True):
            x = self.add("Concat", [f"f{level}", f"g{level}"], f"pair{level}", axis=1)
            x = self.add("Conv", [x, self.weight(f"dsm_{level}")], f"logits{level}", pads=[1] * 4)
            x = self.add("Sigmoid", [x], f"am{level}")
            scales = self.constant(f"map_scales{level}", np.float32([1, 1, 2 ** (level - 1), 2 ** (level - 1)]))
            x = self.add(
                "Resize", [x, "", scales], f"am_up{level}", mode="linear", coordinate_transformation_mode="half_pixel"
            )
            share = self.constant(f"share{level}", np.float32([weight]))
            x = self.add("Mul", [x, share], f"am_part{level}")
            name = "map" if level == 3 else f"am_total{level}"
            total = x if not total else self.add("Add", [total, x], name)


def find_shapes() -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every tensor between stages."""
    shapes: dict[str, tuple[int | None, ...]] = {
        "image": (None, 3, SIDE, SIDE),
        "reconstruction": (None, 3, SIDE, SIDE),
        "map": (None, 1, SIDE, SIDE),
    }
    for level, c in enumerate(CHANNELS, start=1):
        shape = (None, c, SIDE >> (level - 1), SIDE >> (level - 1))
        names = [f"f{level}", f"g{level}", *(f"r{level}k{size}" for size in SIZES)]
        shapes.update(dict.fromkeys(names, shape))
    return shapes


def make_stage(name: str, inputs: list[str], outputs: list[str]) -> StageSpec:
    shapes = find_shapes()
    return StageSpec(
        file=f"{name}.onnx",
        inputs={n: TensorSpec(name=n, shape=shapes[n]) for n in inputs},
        outputs={n: TensorSpec(name=n, shape=shapes[n]) for n in outputs},
    )


STAGES = {
    "encoder": make_stage("encoder", ["image"], [f"f{level}" for level in range(1, 6)]),
    "decoder": make_stage(
        "decoder",
        [f"f{level}" for level in LEVELS] + [f"r{level}k{size}" for level in LEVELS for size in SIZES],
        ["reconstruction"],
    ),
    "head": make_stage("head", ["reconstruction"], ["g1", "g2", "g3"]),
    "segmentation": make_stage("segmentation", ["f1", "f2", "f3", "g1", "g2", "g3"], ["map"]),
    "fused": make_stage("fused", ["image"], ["map", "reconstruction"]),
}


def make_weights(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    shapes = {f"encoder_{level}": (4, 3 if level == 1 else 4, 3, 3) for level in range(1, 6)}
    shapes |= {f"dsm_{level}": (1, 8, 3, 3) for level in (1, 2, 3)}
    shapes["last"] = (3, 4, 3, 3)
    return {name: rng.normal(0, 0.25, shape).astype(np.float32) for name, shape in shapes.items()}


def make_model(writer: GraphWriter, stage: StageSpec, name: str, store: bytearray | None) -> onnx.ModelProto:
    """Return the model; with `store`, weights of 64 bytes and more are appended there as external data."""

    def value(spec: TensorSpec) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, spec.to_dims())

    tensors = [numpy_helper.from_array(np.asarray(array), key) for key, array in writer.used.items()]
    for tensor in tensors:
        if store is not None and len(tensor.raw_data) >= 64:
            onnx.external_data_helper.set_external_data(tensor, WEIGHTS_FILE, len(store), len(tensor.raw_data))
            store += tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    inputs, outputs = ([value(spec) for spec in specs.values()] for specs in (stage.inputs, stage.outputs))
    graph = helper.make_graph(writer.nodes, name, inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def make_writers(weights: dict[str, NDArray[Any]], reference: dict[str, NDArray[Any]]) -> dict[str, GraphWriter]:
    writers = {name: GraphWriter(weights) for name in STAGES}
    writers["encoder"].encode("image", "f", 5)
    writers["decoder"].decode()
    writers["head"].encode("reconstruction", "g", 3)
    writers["segmentation"].segment()
    fused = writers["fused"]
    fused.encode("image", "f", 5)
    for level in LEVELS:
        for size in SIZES:
            fused.repair(level, size, reference[f"f{level}"])
    fused.decode()
    fused.encode("reconstruction", "g", 3)
    fused.segment()
    return writers


def make_tiny_bundle(path: Path, *, seed: int = 0, map_shift: float = 0.0, vector_count: int = 2) -> Bundle:
    """Write a tiny bundle to `path`; `map_shift` makes its golden maps wrong by that much."""
    rng = np.random.default_rng(seed)
    weights = make_weights(rng)
    encoder = GraphWriter(weights)
    encoder.encode("image", "f", 5)
    run = ReferenceEvaluator(make_model(encoder, STAGES["encoder"], "encoder", None))
    picture = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    features = run.run(None, {"image": picture.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)})
    reference = {f"f{level}": features[level - 1] for level in LEVELS}
    writers, store = make_writers(weights, reference), bytearray()
    image = rng.integers(0, 256, (vector_count, 3, SIDE, SIDE)).astype(np.float32) / np.float32(255)
    fused = ReferenceEvaluator(make_model(writers["fused"], STAGES["fused"], "fused", None))
    maps = fused.run(["map"], {"image": image})[0]
    models = {name: make_model(writer, STAGES[name], name, store) for name, writer in writers.items()}
    golden = {
        "image": image,
        "map": maps + np.float32(map_shift),
        "score": score(smooth(maps)).astype(np.float32),
        "raw_0": picture,
        "raw_0_expected": picture.transpose(2, 0, 1).astype(np.float32) / np.float32(255),
    }
    files: dict[str, bytes | Path] = {f"{name}.onnx": model.SerializeToString() for name, model in models.items()}
    files |= {
        WEIGHTS_FILE: bytes(store),
        "reference.safetensors": save(reference),
        "reference.png": b"not looked at by the runtime",
        "golden.safetensors": save({name: np.ascontiguousarray(array) for name, array in golden.items()}),
    }
    manifest = BundleManifest(
        name=path.stem,
        model=ModelSpec(family="ndpnet", preset="tiny", width=4),
        input=InputContract(height_px=SIDE, width_px=SIDE),
        **read_model(describe_ndpnet({name: stage.to_json() for name, stage in STAGES.items()})),
        thresholds={"fp32": ThresholdSpec(value=0.6, source="manual")},
        provenance={"seed": seed},
    )
    return write_bundle(path, manifest_without_files=manifest, files=files)
