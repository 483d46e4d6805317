"""What a trained MemSeg of preset `paper` becomes in a bundle: two graphs, the memory between them, one program."""

from ndp_rt.errors import RunError
from ndp_rt.export.models.family import Asset, ExportedModel, Stage
from ndp_rt.export.models.memseg.paper.network import STRIDES, MemSegPaper, merge_softmax
from ndp_rt.export.models.memseg.paper.settings import PaperSettings
from ndp_rt.export.models.memseg.paper.training import TOP_COUNT
from ndp_rt.export.onnx.batch_norm import fold_batch_norms
from ndp_rt.export.onnx.graphs import round_to_half
from ndp_rt.export.onnx.pads import merge_pads
from ndp_rt.export.training.checkpoint import load_network
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, TrainedRun
from ndp_rt.program.program import AssetSpec, DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec

MEMORY = "memory"


def export_run(run: TrainedRun, *, rewrite: bool, weights: str) -> ExportedModel:
    """Return the graphs, the memory and the program of a finished run.

    Args:
        run: finished.
        rewrite: merge the softmax into the last convolution, and pads into convolutions; batch norms are folded either
            way, as exporters do by themselves.
        weights: fp32 or fp16, as `Family.make_export` has it.

    Raises:
        RunError: its weights are missing, damaged or of another network.
    """
    settings, size = run.settings, (run.contract.height_px, run.contract.width_px)
    assert isinstance(settings, PaperSettings)
    count = run.document.get("memory_count")
    if not isinstance(count, int) or count < 1:
        raise RunError(f"{run.folder.path}: run.json: expected memory_count from 1, got {count}. Train again.")
    trained = MemSegPaper(settings.backbone, *size, memory=settings.memory, count=count)
    load_network(run.folder / WEIGHTS_FILE, trained)
    return export_network(
        trained, size, rewrite=rewrite, weights=weights, provenance={"backbone": run.document.get("backbone")}
    )


def export_network(
    trained: MemSegPaper, size: tuple[int, int], *, rewrite: bool, weights: str = "fp32", provenance: dict[str, object]
) -> ExportedModel:
    """Return the graphs, the memory and the program of a network in eval mode, for images of `size`."""
    stored = fold_batch_norms(trained)
    assert isinstance(stored, MemSegPaper)
    if rewrite:
        merge_softmax(stored.segmentation)
    if weights == "fp16":
        round_to_half(stored)
    image = TensorSpec(name="image", shape=(None, 3, *size))
    anomaly_map = TensorSpec(name="map", shape=(None, 1, *size))
    features, smoothed, differences = _describe_tensors(stored, size)
    remembered = {one.name: level for one, level in zip(smoothed, stored.memory.levels, strict=True)}
    asset = AssetSpec(
        file=f"{MEMORY}.safetensors",
        tensors={name: TensorSpec(name=name, shape=tuple(level.shape)) for name, level in remembered.items()},
    )
    compare = (
        Step(op=stored.memory.op, reads=(one.name, f"{MEMORY}.{one.name}"), writes=(difference.name,))
        for one, difference in zip(smoothed, differences, strict=True)
    )
    program = Program(
        steps=(Step(engine="encoder"), *compare, Step(engine="segmentation")), outputs={"map": anomaly_map.name}
    )
    stages = (
        Stage(name="encoder", module=stored.encoder, inputs=(image,), outputs=(*features, *smoothed)),
        Stage(
            name="segmentation",
            module=stored.segmentation,
            inputs=(*features, *differences),
            outputs=(anomaly_map,),
        ),
    )
    return ExportedModel(
        stages=stages,
        programs={"cpu": {"staged": program}, "cuda": {"staged": program}},
        decision=DecisionRules(smooth="none", score="top_k_mean", k=min(TOP_COUNT, size[0] * size[1])),
        largest_score=1.0,
        trained=trained,
        stored=stored,
        assets={MEMORY: Asset(spec=asset, tensors={name: level.numpy() for name, level in remembered.items()})},
        rewrites=("fold_batch_norm", "merge_softmax", "merge_pads") if rewrite else (),
        finish_graph=merge_pads if rewrite else None,
        provenance=provenance,
    )


def _describe_tensors(
    model: MemSegPaper, size: tuple[int, int]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specs of f0 to f3, s1 to s3 and d1 to d3."""
    channels = model.encoder.backbone.channels
    sides = [tuple(side // stride for side in size) for stride in STRIDES]
    shapes = [(None, c, *side) for c, side in zip(channels, sides, strict=True)]
    features = tuple(TensorSpec(name=f"f{number}", shape=shape) for number, shape in enumerate(shapes))
    smoothed = tuple(TensorSpec(name=f"s{number}", shape=shape) for number, shape in enumerate(shapes) if number)
    differences = tuple(
        TensorSpec(name=f"d{number}", shape=(None, model.memory.count_channels(c), *side))
        for number, (c, side) in enumerate(zip(channels, sides, strict=True))
        if number
    )
    return features, smoothed, differences
