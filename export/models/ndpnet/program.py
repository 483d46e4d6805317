"""What a trained NDP-Net becomes in a bundle: its graphs, the reference as an asset, and the programs."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import ImageFileError, RunError
from ndp_rt.export.models.family import Asset, ExportedModel
from ndp_rt.export.models.ndpnet.graphs import build_stages
from ndp_rt.export.models.ndpnet.network import REPAIRED_LEVELS, NDPNet
from ndp_rt.export.models.ndpnet.rewrites import REWRITES, duplicate_shared_biases
from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
from ndp_rt.export.models.ndpnet.training import REFERENCE_PICTURE
from ndp_rt.export.training.checkpoint import load_network
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, TrainedRun
from ndp_rt.images.read import read_image
from ndp_rt.program.manifest import read_model
from ndp_rt.program.version1 import describe_ndpnet


def export_run(run: TrainedRun, *, rewrite: bool, weights: str) -> ExportedModel:
    """Return the graphs, assets and programs of a finished run.

    Raises:
        RunError: a file of the run is missing, damaged or of another network.
    """
    picture, recorded = read_reference(run), run.document.get("reference") or {}
    return dataclasses.replace(
        export_network(read_network(run), rewrite=rewrite, weights=weights),
        pictures={"reference": picture},
        reference={"source": recorded.get("name"), "rule": recorded.get("rule")},
        provenance={key: run.document[key] for key in ("vgg", "teacher") if key in run.document},
        files={REFERENCE_PICTURE: run.folder / REFERENCE_PICTURE},
    )


def export_network(model: NDPNet, *, rewrite: bool, weights: str = "fp32") -> ExportedModel:
    """Return the graphs, assets and programs of a network in eval mode, its reference set."""
    stages = build_stages(model, rewrite=rewrite, weights=weights)
    stored = stages["fused"].module
    described = read_model(describe_ndpnet({name: stage.spec.to_json() for name, stage in stages.items()}))
    features = {f"f{level}": getattr(stored, f"reference_{level}").numpy() for level in REPAIRED_LEVELS}
    return ExportedModel(
        stages=tuple(stages.values()),
        derived_stages={name: spec for name, spec in described["stages"].items() if spec.parts},
        programs=described["programs"],
        decision=described["decision"],
        assets={"reference": Asset(spec=described["assets"]["reference"], tensors=features)},
        largest_score=1.0,
        trained=model,
        stored=stored,
        rewrites=REWRITES if rewrite else (),
        finish_graph=duplicate_shared_biases if rewrite else None,
        width=model.encoder.width,
    )


def read_network(run: TrainedRun) -> NDPNet:
    """Return the run's network in eval mode, the reference's features included.

    Raises:
        RunError: its weights are missing, damaged or of another network.
    """
    assert isinstance(run.settings, NdpNetSettings)
    model = NDPNet(run.settings.width, run.contract.height_px, run.contract.width_px)
    load_network(run.folder / WEIGHTS_FILE, model)
    return model


def read_reference(run: TrainedRun) -> NDArray[np.uint8]:
    """Return the run's reference image, RGB [h, w, 3] at the network's size.

    Raises:
        RunError: it is missing, damaged, or of another size.
    """
    path, size = run.folder / REFERENCE_PICTURE, (run.contract.height_px, run.contract.width_px, 3)
    try:
        picture = read_image(path)
    except ImageFileError as error:
        raise RunError(f"{run.folder.path}: the run is damaged ({error!s}). Train again.") from error
    if picture.dtype != np.uint8 or picture.shape != size:
        raise RunError(f"{path}: expected uint8 {list(size)}, got {picture.dtype} {list(picture.shape)}. Train again.")
    return picture.astype(np.uint8, copy=False)
