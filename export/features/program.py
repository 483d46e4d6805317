"""What a network with a pretrained backbone becomes in a bundle: one graph."""

from collections.abc import Callable

from torch import nn

from ndp_rt.export.features.settings import PretrainedSettings
from ndp_rt.export.models.family import ExportedModel, Stage
from ndp_rt.export.onnx.batch_norm import fold_batch_norms
from ndp_rt.export.onnx.graphs import round_to_half
from ndp_rt.export.onnx.pads import merge_pads
from ndp_rt.export.training.checkpoint import load_network
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, TrainedRun
from ndp_rt.program.program import DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec


def export_run(
    run: TrainedRun, make: Callable[[str, int, int], nn.Module], *, rewrite: bool, weights: str
) -> ExportedModel:
    """Return the graph and program of a finished run.

    Args:
        run: finished.
        make: makes the network of the backbone's name and the images' height and width, for the weights to be loaded
            into: image [n, 3, h, w] to a tuple of the map [n, 1, h, w].
        rewrite: merge pads into convolutions; batch norms are folded either way, as exporters do by themselves.
        weights: fp32 or fp16, as `Family.make_export` has it.

    Raises:
        RunError: its weights are missing, damaged or of another network.
    """
    size = run.contract.height_px, run.contract.width_px
    assert isinstance(run.settings, PretrainedSettings)
    trained = make(run.settings.backbone, *size)
    load_network(run.folder / WEIGHTS_FILE, trained)
    stored = fold_batch_norms(trained)
    if weights == "fp16":
        round_to_half(stored)
    image = TensorSpec(name="image", shape=(None, 3, *size))
    anomaly_map = TensorSpec(name="map", shape=(None, 1, *size))
    program = Program(steps=(Step(engine="fused"),), outputs={"map": "map"})
    return ExportedModel(
        stages=(Stage(name="fused", module=stored, inputs=(image,), outputs=(anomaly_map,)),),
        programs={"cpu": {"fused": program}, "cuda": {"fused": program}},
        decision=DecisionRules(smooth="mean_median", score="max"),
        largest_score=1.0,
        trained=trained,
        stored=stored,
        rewrites=("fold_batch_norm", "merge_pads") if rewrite else (),
        finish_graph=merge_pads if rewrite else None,
        provenance={"backbone": run.document.get("backbone")},
    )
