"""Exports anomalib's models with its own tools and random weights, and writes down what they give.

    pip install -e '.[peers]' onnx onnxscript timm
    python -m tests.importing.anomalib_exports exports [NAME ...]
    python -m tests.importing.anomalib_exports tests/data/anomalib --small

Each model becomes exports/NAME/model.onnx, and exports/NAME/given.npz with two images and what anomalib computes for
them: `raw_map` and `raw_score` by its model alone, before its post-processor normalises them, and `map` and `score` by
all of it. Nothing is fetched: backbones have random weights. `tests.importing.anomalib_table` reads the folder.
`--small` makes the models that `tests/importing/test_anomalib.py` brings in: of timm's smallest backbone, for 64 px.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

MODEL_FILE, GIVEN_FILE = "model.onnx", "given.npz"
SEED, IMAGE_COUNT, PATCH_COUNT = 0, 2, 400
USUAL_SIDE_PX, SMALL_SIDE_PX = 256, 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is made, filled and exported."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    side_px: int = USUAL_SIDE_PX
    fill: Callable[[Any, Any], None] = lambda module, images: None  # what training would have left
    export: Mapping[str, Any] = field(default_factory=dict)  # keywords of to_onnx
    note: str = "as it is"


def fill_padim(module: Any, images: Any) -> None:
    """Fit Gaussians to a few noisy images."""
    import torch

    module.model.train()
    for _ in range(4):
        module.model(torch.rand_like(images.repeat(4, 1, 1, 1)))
    module.model.fit() if hasattr(module.model, "fit") else module.fit()
    module.model.eval()


def fill_bank(module: Any, images: Any) -> None:
    """Give PatchCore so many patches of noise in its memory, of the features' size."""
    import torch

    module.model.train()
    features = module.model(images)
    module.model.eval()
    bank = torch.rand(PATCH_COUNT, features.shape[1]) * features.std() + features.mean()
    module.model.memory_bank = bank


def fill_embeddings(module: Any, images: Any) -> None:
    """Give AnomalyDINO the images' own patches as memory."""
    module.model.train()
    module.model(images.flip(-1))
    module.model.fit()
    module.model.eval()


def fill_efficientad(module: Any, images: Any) -> None:
    """Set the teacher's mean and standard deviation, and the quantiles of both maps, to those of noise."""
    import torch

    model = module.model
    features = model.teacher(images)
    model.mean_std["mean"].copy_(features.mean((0, 2, 3), keepdim=True))
    model.mean_std["std"].copy_(features.std((0, 2, 3), keepdim=True))
    for name, one in zip(("st", "ae"), model.get_maps(images), strict=True):
        for quantile, share in (("qa", 0.9), ("qb", 0.995)):
            model.quantiles[f"{quantile}_{name}"].copy_(torch.tensor(np.quantile(one.numpy(), share)))


FIXED = {"dynamic_shapes": None}
MODELS: Mapping[str, Recipe] = {
    "Stfpm": Recipe(),
    "Fastflow": Recipe(arguments={"pre_trained": False}),
    "Padim": Recipe(fill=fill_padim),
    "EfficientAd": Recipe(fill=fill_efficientad),
    "ReverseDistillation": Recipe(),
    "Supersimplenet": Recipe(),
    "Patchcore": Recipe(fill=fill_bank, export=FIXED, note="`dynamic_shapes=None`"),
    "Dinomaly": Recipe(side_px=392, export=FIXED, note="`input_size=(392, 392)`, `dynamic_shapes=None`"),
    "FoundAD": Recipe(
        arguments={"encoder_name": "dinov2_vit_small_14", "image_size": 224},
        side_px=224,
        export=FIXED,
        note='`encoder_name="dinov2_vit_small_14"`, `image_size=224`, `dynamic_shapes=None`',
    ),
    "AnomalyDINO": Recipe(side_px=252, export=FIXED, fill=fill_embeddings, note="`dynamic_shapes=None`, 252 px"),
    "Fre": Recipe(),
    "Ganomaly": Recipe(),
    "Uflow": Recipe(export=FIXED, note="`dynamic_shapes=None`"),
    "InpFormer": Recipe(side_px=392, export=FIXED, note="`dynamic_shapes=None`"),
    "Glass": Recipe(),
}
TINY = {"backbone": "test_efficientnet", "layers": ["blocks.1", "blocks.2"]}
SMALL: Mapping[str, Recipe] = {
    "Stfpm": Recipe(arguments=TINY, side_px=SMALL_SIDE_PX),
    "Padim": Recipe(arguments={**TINY, "n_features": 8}, side_px=SMALL_SIDE_PX, fill=fill_padim),
    "Patchcore": Recipe(arguments=TINY, side_px=SMALL_SIDE_PX, fill=fill_bank, export=FIXED),
}


@contextmanager
def without_downloads() -> Iterator[None]:
    """Let timm and torchvision make networks with random weights, and anomalib fetch nothing."""
    import timm

    make = timm.create_model

    def create(*names: Any, **settings: Any) -> Any:
        return make(*names, **{**settings, "pretrained": False})

    with patch.object(timm, "create_model", create), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def build(name: str, recipe: Recipe) -> Any:
    """Return one of anomalib's models, filled, with thresholds in its post-processor, in eval mode."""
    import anomalib.models
    import torch

    torch.manual_seed(SEED)
    np.random.seed(SEED)
    model = getattr(anomalib.models, name)
    arguments = {**recipe.arguments, "visualizer": False, "evaluator": False}
    if recipe.side_px < USUAL_SIDE_PX:
        arguments["pre_processor"] = model.configure_pre_processor((recipe.side_px, recipe.side_px))
    module = model(**arguments).eval()
    with torch.no_grad():
        images = module.pre_processor(make_images(recipe.side_px)) if module.pre_processor else None
        recipe.fill(module, images)
        found = module.model(images)
        maps = found.anomaly_map if found.anomaly_map is not None else found.pred_score
        score = found.pred_score if found.pred_score is not None else maps.amax()
        post = module.post_processor
        for kind, values in (("image", score), ("pixel", maps)):
            low, high = float(values.min()), float(values.max())
            margin = max(high - low, abs(high) / 2)  # a narrower range would enlarge roundings
            getattr(post, f"{kind}_min").fill_(low - margin)
            getattr(post, f"{kind}_max").fill_(high + margin)
            getattr(post, f"_{kind}_threshold").fill_((low + high) / 2)
    return module


def make_images(side_px: int) -> Any:
    """Return float32 [2, 3, h, w], 0 to 1, of whole 255ths, as photographs have."""
    import torch

    rng = np.random.default_rng(SEED)
    pictures = rng.integers(0, 256, (IMAGE_COUNT, 3, side_px, side_px), dtype=np.uint8)
    return torch.from_numpy(pictures.astype(np.float32) / 255)


def export(name: str, recipe: Recipe, folder: Path) -> Path:
    """Write a model, and what anomalib gives for two images, and return its path."""
    import torch

    place = folder / name
    module, images = build(name, recipe), make_images(recipe.side_px)
    with torch.no_grad():
        raw, whole = module.model(module.pre_processor(images)), module(images)
    place.mkdir(parents=True, exist_ok=True)
    written = module.to_onnx(place, input_size=(recipe.side_px, recipe.side_px), **recipe.export)
    for path in written.parent.iterdir():
        path.replace(place / path.name)
    given = {"images": images, "raw_map": raw.anomaly_map, "raw_score": raw.pred_score}
    given |= {"map": whole.anomaly_map, "score": whole.pred_score}
    np.savez_compressed(place / GIVEN_FILE, **{key: one.numpy() for key, one in given.items() if one is not None})
    return place / MODEL_FILE


def main() -> None:
    """Export the models that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--small", action="store_true", help=f"small ones, of {', '.join(SMALL)}")
    args = parser.parse_args()
    recipes = SMALL if args.small else MODELS
    with without_downloads():
        for name in args.names or recipes:
            try:
                print(export(name, recipes[name], args.folder), flush=True)
            except Exception as error:  # whatever anomalib or PyTorch's exporter raises of one model
                print(f"{name}: not exported: {type(error).__name__}: {str(error)[:300]}", flush=True)


if __name__ == "__main__":
    main()
