"""What a trained toy becomes in a bundle: two graphs, the memory as an asset that stays, one program a device."""

import copy

from ndp_rt.export.models.family import Asset, ExportedModel, Stage
from ndp_rt.export.onnx.graphs import round_to_half
from ndp_rt.export.training.checkpoint import load_network
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, TrainedRun
from ndp_rt.program.program import AssetSpec, DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec
from toy_memory.network import CHANNELS, STRIDE, ToyNet
from toy_memory.training import ToySettings

TOP_COUNT = 20


def export_run(run: TrainedRun, weights: str) -> ExportedModel:
    """Return the graphs, asset and program of a finished run."""
    assert isinstance(run.settings, ToySettings)
    trained = ToyNet(run.settings.memory_count)
    load_network(run.folder / WEIGHTS_FILE, trained)
    stored = copy.deepcopy(trained)
    if weights == "fp16":
        round_to_half(stored)
    height_px, width_px = run.contract.height_px, run.contract.width_px
    image = TensorSpec(name="image", shape=(None, 3, height_px, width_px))
    features = TensorSpec(name="features", shape=(None, CHANNELS, height_px // STRIDE, width_px // STRIDE))
    distance = TensorSpec(name="distance", shape=(None, 1, *features.shape[2:]))
    anomaly_map = TensorSpec(name="map", shape=(None, 1, height_px, width_px))
    patches = TensorSpec(name="patches", shape=tuple(stored.patches.shape))
    nearest = Step(op="nearest_patch", reads=("features", "memory.patches"), writes=("distance",))
    program = Program(steps=(Step(engine="extract"), nearest, Step(engine="head")), outputs={"map": "map"})
    return ExportedModel(
        stages=(
            Stage(name="extract", module=stored.features, inputs=(image,), outputs=(features,)),
            Stage(name="head", module=stored.head, inputs=(features, distance), outputs=(anomaly_map,)),
        ),
        programs={"cpu": {"staged": program}, "cuda": {"staged": program}},
        decision=DecisionRules(smooth="none", score="top_k_mean", k=TOP_COUNT),
        trained=trained,
        stored=stored,
        assets={
            "memory": Asset(
                spec=AssetSpec(file="memory.safetensors", tensors={"patches": patches}),
                tensors={"patches": stored.patches.numpy()},
            )
        },
    )
