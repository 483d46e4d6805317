"""What a trained MemSeg becomes in a bundle: one graph."""

from typing import cast

from ndp_rt.export.models.family import ExportedModel, Stage
from ndp_rt.export.models.memseg.network import MemSegLite
from ndp_rt.export.models.memseg.settings import MemSegSettings
from ndp_rt.export.onnx.batch_norm import fold_batch_norms
from ndp_rt.export.onnx.graphs import round_to_half
from ndp_rt.export.onnx.pads import merge_pads
from ndp_rt.export.training.checkpoint import load_network
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, TrainedRun
from ndp_rt.program.program import DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec


def export_run(run: TrainedRun, weights: str) -> ExportedModel:
    """Return the graph and program of a finished run.

    Raises:
        RunError: its weights are missing, damaged or of another network.
    """
    assert isinstance(run.settings, MemSegSettings)
    size = run.contract.height_px, run.contract.width_px
    trained = MemSegLite(run.settings.backbone, *size)
    load_network(run.folder / WEIGHTS_FILE, trained)
    stored = cast(MemSegLite, fold_batch_norms(trained))
    if weights == "fp16":
        round_to_half(stored)
    image = TensorSpec(name="image", shape=(None, 3, *size))
    anomaly_map = TensorSpec(name="map", shape=(None, 1, *size))
    program = Program(steps=(Step(engine="fused"),), outputs={"map": "map"})
    return ExportedModel(
        stages=(Stage(name="fused", module=stored, inputs=(image,), outputs=(anomaly_map,)),),
        programs={"cpu": {"fused": program}, "cuda": {"fused": program}},
        decision=DecisionRules(smooth="mean_median", score="max"),
        trained=trained,
        stored=stored,
        rewrites=("fold_batch_norm", "merge_pads"),
        finish_graph=merge_pads,
        provenance={"backbone": run.document.get("backbone")},
    )
