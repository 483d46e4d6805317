"""anomalib's models as one module each, filled as training would have filled them, with random numbers."""

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.errors import EngineError

TRAINING_IMAGE_COUNT = 200
SEED = 0
FITTED_TO_RANDOM = ("Dfkde", "Dfm")  # which need what they keep of the training images
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
        with torch.no_grad():
            given = module.pre_processor(torch.rand(1, 3, 256, 256))
            filled = fit_to_random(module.model, given) if name in FITTED_TO_RANDOM else "nothing but weights"
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


def fit_to_random(model: Any, image: Tensor) -> str:
    """Let the model fit itself to random features of the training images."""
    model.training = True  # its own flag: the layers stay in eval mode
    width = model(image).shape[1]
    model.training = False
    model.memory_bank[:] = [torch.rand(TRAINING_IMAGE_COUNT, width)]
    model.fit()
    return f"fitted to features of {TRAINING_IMAGE_COUNT} x {width}"
