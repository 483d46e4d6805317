"""anomalib's models fitted to good images, all with one pretrained backbone: the one that ndp-rt's own models use."""

import importlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ndp_rt.bench.rivals.torch_anomalib import SEED, AnomalibModule, find_kind, holding_quiet
from ndp_rt.errors import DataError
from ndp_rt.export.data.images import GoodImages, to_network
from ndp_rt.export.features.coreset import choose_coreset
from ndp_rt.export.features.weights import BACKBONES, load_backbone
from ndp_rt.images.listing import list_folder
from ndp_rt.program.manifest import InputContract

BACKBONE = "lite0"
STRIDES = (4, 8, 16)
LAYERS = ("groups.1", "groups.2", "groups.4")  # of the backbone, with these strides
EMBED_BATCH = 8
FEATURE_COUNT = 100  # of PaDiM's channels: what its paper keeps of ResNet-18's
CORESET_SHARE = 0.01  # PatchCore's smallest; 0.1 takes a hundred times as long to choose
STUDENT_STEPS, STUDENT_BATCH = 300, 8


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is made and fitted; anomalib's defaults but for the backbone, and what is said here."""

    fit: Callable[[Any, Tensor], str]  # takes the model and images [n, 3, h, w], 0 to 1; says what it did
    layers: tuple[str, ...] = LAYERS
    arguments: Mapping[str, Any] = field(default_factory=dict)


def fit_gaussians(module: Any, images: Tensor) -> str:
    """Show a model every image, and let it make its Gaussians of what it kept."""
    for batch in torch.split(images, EMBED_BATCH):
        module.model(batch)
    module.fit()
    return f"Gaussians of {FEATURE_COUNT} channels"


def fit_bank(module: Any, images: Tensor) -> str:
    """Show a model every image, and fill its bank with the coreset of what it kept.

    anomalib's own search projects features to at least 240 dimensions, here more than they have, and takes ten times
    as long (2.7.0).
    """
    for batch in torch.split(images, EMBED_BATCH):
        module.model(batch)
    rows = torch.vstack(module.model.embedding_store)
    module.model.embedding_store.clear()
    module.model.memory_bank = rows[
        choose_coreset(rows, int(len(rows) * CORESET_SHARE), int(torch.randint(len(rows), ())))
    ]
    return f"a bank of {len(module.model.memory_bank)} x {rows.shape[1]}, {CORESET_SHARE:.0%} of all patches"


def fit_student(module: Any, images: Tensor) -> str:
    """Teach a student with random weights the backbone's features, with the model's own loss and optimiser."""
    components = importlib.import_module("anomalib.models.components")
    # anomalib makes teacher and student of the one module that it is given.
    fresh = BACKBONES[BACKBONE].make(STRIDES)
    student = components.TimmFeatureExtractor(fresh, layers=LAYERS, requires_grad=True).train()
    module.model.student_model = student.to(memory_format=torch.channels_last)
    parts = [module.model.teacher_model(batch) for batch in torch.split(images, EMBED_BATCH)]
    wanted = {layer: torch.cat([part[layer] for part in parts]) for layer in LAYERS}
    optimiser = module.configure_optimizers()
    losses = []
    for _ in range(STUDENT_STEPS):
        chosen = torch.randint(len(images), (STUDENT_BATCH,))
        batch = images[chosen].contiguous(memory_format=torch.channels_last)
        loss = module.loss({layer: features[chosen] for layer, features in wanted.items()}, student(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    student.eval()
    return f"{STUDENT_STEPS} steps of {STUDENT_BATCH} images, loss {losses[0]:.3g} to {losses[-1]:.3g}"


RECIPES: Mapping[str, Recipe] = {
    "Padim": Recipe(fit=fit_gaussians, arguments={"n_features": FEATURE_COUNT}),
    "Patchcore": Recipe(fit=fit_bank, layers=LAYERS[1:]),
    "Stfpm": Recipe(fit=fit_student),
}


def build_fitted(name: str, data: Path, contract: InputContract) -> tuple[AnomalibModule, dict[str, Any]]:
    """Fit a model to the good training images of a folder in MVTec AD's layout; the same at every call.

    Args:
        name: one of RECIPES.
        data: with train/good.
        contract: the size that the model works at.

    Returns:
        The module, and what a record says of it.

    Raises:
        DataError: the folder has no good images, or one cannot be read.
        EngineError: the installed anomalib has no such model.
        MissingExtraError: the package with the backbone's weights is not installed.
    """
    folder = data / "train" / "good"
    paths = list_folder(folder).files if folder.is_dir() else ()
    if not paths:
        raise DataError(f"--fit {data}: expected good images in train/good, got none. Give a folder of that layout.")
    start, recipe = time.monotonic(), RECIPES[name]
    read = GoodImages(paths, contract)
    images = torch.from_numpy(to_network([read[index] for index in range(len(read))]))
    with holding_quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        random.seed(SEED)  # Padim draws its channels with it
        parts = dict.fromkeys(("pre_processor", "post_processor", "evaluator", "visualizer"), False)
        backbone = load_backbone(BACKBONE, None, STRIDES)
        module = find_kind(name)(backbone=backbone, layers=list(recipe.layers), **recipe.arguments, **parts)
        module.model.training = True  # its own flag: the backbone stays in eval mode
        how = recipe.fit(module, images)
        module.model.training = False
    return AnomalibModule(module).eval(), {
        "weights": f"fitted to {len(paths)} images of {data.resolve().name}, backbone {BACKBONE}",
        "filled": how,
        "fit_s": round(time.monotonic() - start, 1),
        "input_px": [contract.height_px, contract.width_px],
    }
