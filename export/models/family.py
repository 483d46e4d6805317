"""What a model family offers: all that training and export know of a model.

A family is a folder of `export/models` or a package with an entry point (`ndp_rt.export.models.registry`). This module
is imported by `ndp-rt train --help`, so neither it nor a family's own module may import PyTorch at the top.
"""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch import Tensor, nn

    from ndp_rt.export.data.batches import Example
    from ndp_rt.export.data.images import ChosenImages, GoodImages
    from ndp_rt.export.training.run_folder import RunFolder, TrainedRun
    from ndp_rt.export.training.settings import TrainSettings
    from ndp_rt.images.painting.kinds import TextureSource
    from ndp_rt.program.manifest import StageSpec
    from ndp_rt.program.program import AssetSpec, DecisionRules, Program
    from ndp_rt.program.tensors import TensorSpec

    FloatArray = NDArray[np.float32]

Say = Callable[[str], None]  # shows one line of progress


class Family(ABC):
    """A kind of model."""

    name: ClassVar[str]  # of the folder or entry point; in run.json and in the manifest
    title: ClassVar[str]  # as people know it
    presets: ClassVar[tuple[str, ...]]  # the first is the default
    phase_count: ClassVar[int] = 1  # of training

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:  # noqa: B027 - a family may have none
        """Add the family's own arguments of `ndp-rt train`; those that every family has are there already."""

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        """Return the values of the family's own arguments: the `options` of the methods below."""
        return {}

    def find_epochs(self, preset: str) -> tuple[int, ...] | None:
        """Return the epochs of each phase where a preset's length depends on the number of images; else None."""
        return None

    @abstractmethod
    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        """Return a preset's settings with some of them changed.

        Raises:
            InputError: an unknown preset, a value out of its range, or options that don't go together.
        """

    @abstractmethod
    def read_settings(self, document: Mapping[str, Any]) -> "TrainSettings":
        """Return the settings that TrainSettings.to_json wrote; KeyError, TypeError or ValueError if damaged."""

    @abstractmethod
    def make_training(self, settings: "TrainSettings", options: Mapping[str, Any], run: Path) -> "Training":
        """Return the training that `settings` describe, its files checked, nothing heavy loaded.

        Args:
            settings: what make_settings returned, with the final number of steps.
            options: what read_arguments returned.
            run: the folder that will be written; nothing is written yet.
        """

    @abstractmethod
    def make_export(self, run: "TrainedRun", *, rewrite: bool, weights: str) -> "ExportedModel":
        """Return what a finished run becomes.

        Args:
            run: finished.
            rewrite: apply the family's exact rewrites to the graphs.
            weights: how they are to be stored: fp32, or fp16, for which the values are rounded here.

        Raises:
            RunError: a file of the run is missing, damaged or of another network.
        """

    def find_node_stages(self, model: "ModelProto") -> Mapping[int, str] | None:
        """Return the part of the network that each node of its whole graph is of, by number: measurements name it.

        A node that is not in it is of no part. None: each node's part is the module that its name begins with.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The images of a run."""

    images: "GoodImages"
    validation: "GoodImages | None"  # good images for choices after training; None where the settings keep none
    image_names: tuple[str, ...]
    textures: "TextureSource"
    training_sha256: str  # over the image files


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training."""

    optimizer: "torch.optim.Optimizer"
    # Returns the weighted losses of good images, the same with defects, and the masks; their sum is minimised.
    find_losses: "Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]"
    images: "ChosenImages | None" = None  # what batches are drawn from; None: all images of the run


class Training(ABC):
    """One run of a family: the modules that are trained, and the phases in which they are.

    The loop calls load once, then begin_phase and end_phase for each phase, but neither for a phase that had ended
    when the checkpoint was written that a run resumes from.

    Attributes:
        settings: the loop may replace their number of steps before load.
        modules: those that are saved, by the prefix of their tensors in a checkpoint; "model" is what is exported.
        files: run.json's entries of files that were given, each with its sha256.
        file_options: the same entries' options of the command line.
    """

    def __init__(self, settings: "TrainSettings") -> None:
        self.settings = settings
        self.modules: dict[str, nn.Module] = {}
        self.files: dict[str, Mapping[str, Any] | None] = {}
        self.file_options: dict[str, str] = {}

    @abstractmethod
    def load(self, data: TrainData, say: Say) -> None:
        """Make the modules, on the settings' device; PyTorch is seeded."""

    @abstractmethod
    def begin_phase(self, phase: int) -> Phase:
        """Put the modules into a phase's mode, 1 being the first, and return it."""

    def end_phase(self, phase: int, folder: "RunFolder", say: Say) -> dict[str, Any]:
        """Do what follows a phase, and return facts to keep with the run, as JSON values."""
        return {}

    def describe(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return run.json's entries on a finished run, from what end_phase returned."""
        return dict(facts)

    def draw_example(self, rng: "np.random.Generator", image: "FloatArray", textures: "TextureSource") -> "Example":
        """Return a good crop of an image, the same with a defect, and the mask; chance comes from `rng` alone."""
        from ndp_rt.export.data.batches import draw_example

        return draw_example(rng, image, textures, self.settings)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A graph to be written: a PyTorch module, and its tensors in the order of its arguments and results."""

    name: str
    module: "nn.Module"
    inputs: "tuple[TensorSpec, ...]"
    outputs: "tuple[TensorSpec, ...]"

    @property
    def spec(self) -> "StageSpec":
        """The stage as the manifest describes it."""
        from ndp_rt.program.manifest import StageSpec

        inputs, outputs = ({one.name: one for one in specs} for specs in (self.inputs, self.outputs))
        return StageSpec(file=f"{self.name}.onnx", inputs=inputs, outputs=outputs)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """An asset's description, and its tensors."""

    spec: "AssetSpec"
    tensors: "Mapping[str, FloatArray]"


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """What a family's run becomes: graphs, assets, programs, and the PyTorch module that they must agree with."""

    stages: Sequence[Stage]
    programs: "Mapping[str, Mapping[str, Program]]"  # by kind of device, then name; the first is the default
    decision: "DecisionRules"
    trained: "nn.Module"  # the trained network: image [n, 3, h, w] to a tuple, the map [n, 1, h, w] first
    stored: "nn.Module"  # the same with the weights that the graphs store
    derived_stages: "Mapping[str, StageSpec]" = field(default_factory=dict)  # made of the others for a device
    assets: Mapping[str, Asset] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    finish_graph: "Callable[[ModelProto], None] | None" = None  # changes a graph after it was traced
    largest_score: float | None = None  # that its maps allow; None: they have no bound
    width: int | None = None  # channels of the first level, where the family has such a number
    pictures: "Mapping[str, NDArray[np.uint8]]" = field(
        default_factory=dict
    )  # RGB at the network's size, to compare on
    reference: Mapping[str, Any] = field(default_factory=dict)  # where the reference image came from
    provenance: Mapping[str, Any] = field(default_factory=dict)  # further entries of the manifest's
    files: Mapping[str, Path] = field(default_factory=dict)  # further files of the bundle
