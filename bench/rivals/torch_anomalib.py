"""anomalib's models as one module each, filled as training would have filled them, with random numbers."""

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.errors import EngineError

TRAINING_IMAGE_COUNT = 200
SEED = 0
# What surrounds a model for training and reports; its own preprocessing stays.
WITHOUT = ("post_processor", "evaluator", "visualizer", "pre_trained")


class AnomalibModule(torch.nn.Module):
    """From images [n, 3, h, w], 0 to 1, to (map [n, 1, h, w], score [n]), through anomalib's own preprocessing."""

    def __init__(self, model: Any) -> None:
        """Take an AnomalibModule of anomalib's."""
        super().__init__()
        self.pre_processor, self.model = model.pre_processor or torch.nn.Identity(), model.model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(self.pre_processor(images))
        n, size = len(images), images.shape[-2:]
        if found.anomaly_map is None:
            return images.new_zeros((n, 1, *size)), found.pred_score.reshape(n)
        maps = found.anomaly_map.reshape(n, 1, *found.anomaly_map.shape[-2:])
        if maps.shape[-2:] != size:
            maps = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        scores = maps.amax(dim=(1, 2, 3)) if found.pred_score is None else found.pred_score.reshape(n)
        return maps, scores


def build_anomalib(name: str) -> tuple[AnomalibModule, str, tuple[int, ...]]:
    """Build one of anomalib's image models by its class's name, with random weights, the same at every call.

    Returns:
        The module, what it was filled with in words, and the size that its network sees, [h, w].

    Raises:
        EngineError: the installed version has none of that name.
    """
    kind = find_kind(name)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder, holding_quiet():
        torch.manual_seed(SEED)
        # Draem wants a folder of textures to train with, and would fetch one.
        module = AnomalibModule(kind(**choose_arguments(kind, folder))).eval()
        fill = FILLS.get(name)
        with torch.no_grad():
            given = module.pre_processor(torch.rand(1, 3, 256, 256))
            filled = "nothing but weights" if fill is None else fill(module.model, given)
    return module, filled, tuple(given.shape[-2:])


def find_kind(name: str) -> Any:
    """Return one of anomalib's image models, a class.

    Raises:
        EngineError: the installed version has none of that name.
    """
    kind = getattr(importlib.import_module("anomalib.models.image"), name, None)
    if kind is None:
        raise EngineError(f"anomalib has no image model {name}. Install another version, or leave it out.")
    return kind


@contextlib.contextmanager
def holding_quiet() -> Iterator[None]:
    """Let anomalib and what it uses say nothing but errors."""
    quiet = logging.getLogger("anomalib")
    level = quiet.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet.setLevel(logging.ERROR)
        try:
            yield
        finally:
            quiet.setLevel(level)


def choose_arguments(kind: Any, folder: str) -> dict[str, Any]:
    """Return the arguments that keep a model from fetching weights or data, as far as its class knows them."""
    import inspect

    known = inspect.signature(kind.__init__).parameters
    chosen: dict[str, Any] = {key: False for key in WITHOUT if key in known}
    return {**chosen, "dtd_dir": folder} if "dtd_dir" in known else chosen


def embed(model: Any, image: Tensor) -> Tensor:
    """Return what a model keeps of one image in training; it keeps nothing."""
    model.training = True  # its own flag: the layers stay in eval mode
    try:
        found: Tensor = model(image)
    finally:
        model.training = False
    for store in (getattr(model, name, None) for name in ("memory_bank", "embedding_store")):
        if isinstance(store, list):
            store.clear()
    return found


def fill_patchcore(model: Any, image: Tensor) -> str:
    """Fill the memory bank with as many patches as the default coreset ratio leaves of the training images."""
    ratio = 0.1
    patches = embed(model, image)
    count = int(len(patches) * TRAINING_IMAGE_COUNT * ratio)
    model.memory_bank = torch.rand(count, patches.shape[1])
    return f"a bank of {count} x {patches.shape[1]}: {ratio:.0%} of the patches of {TRAINING_IMAGE_COUNT} images"


def fill_padim(model: Any, image: Tensor) -> str:
    """Fill the mean and the inverse covariance of every place."""
    _, c, h, w = embed(model, image).shape
    model.gaussian.mean = torch.rand(c, h * w)
    factors = torch.rand(h * w, c, c) / c
    model.gaussian.inv_covariance = factors @ factors.transpose(1, 2) + torch.eye(c)
    return f"{h * w} Gaussians of {c} dimensions"


def fill_by_fit(model: Any, image: Tensor) -> str:
    """Let the model fit itself to random features of the training images."""
    width = embed(model, image).shape[1]
    model.memory_bank.append(torch.rand(TRAINING_IMAGE_COUNT, width))
    model.fit()
    return f"fitted to features of {TRAINING_IMAGE_COUNT} x {width}"


FILLS: dict[str, Callable[[Any, Tensor], str]] = {
    "Dfkde": fill_by_fit,
    "Dfm": fill_by_fit,
    "Padim": fill_padim,
    "Patchcore": fill_patchcore,
}
