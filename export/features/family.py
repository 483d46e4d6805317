"""What families with a pretrained backbone have in common; imports no PyTorch at the top."""

import argparse
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ndp_rt.export.features.options import add_arguments, read_arguments
from ndp_rt.export.models.family import ExportedModel, Family, Training

if TYPE_CHECKING:
    from ndp_rt.export.features.settings import PretrainedSettings
    from ndp_rt.export.features.training import PretrainedTraining
    from ndp_rt.export.training.run_folder import TrainedRun
    from ndp_rt.export.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A family's own classes."""

    settings: "type[PretrainedSettings]"
    training: "type[PretrainedTraining]"
    export: "Callable[..., ExportedModel]"  # from a run, with `rewrite` and `weights` of `Family.make_export`


class PretrainedFamily(Family):
    """A family whose features come from a pretrained backbone."""

    presets: ClassVar[tuple[str, ...]] = ("lite",)

    @abstractmethod
    def import_parts(self, preset: str) -> Parts:
        """Import a preset's modules, which need PyTorch."""

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:
        add_arguments(group)

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        return read_arguments(args)

    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.training.settings import apply_changes

        backbone = options.get("backbone")
        given = {"preset": preset} | ({"backbone": backbone} if backbone else {})
        return self.import_parts(preset).settings(**apply_changes(given, changes))

    def read_settings(self, document: Mapping[str, Any]) -> "TrainSettings":
        return self.import_parts(document["preset"]).settings.from_json(document)

    def make_training(self, settings: "TrainSettings", options: Mapping[str, Any], run: Path) -> Training:
        parts = self.import_parts(settings.preset)
        assert isinstance(settings, parts.settings)
        return parts.training(settings, options)

    def make_export(self, run: "TrainedRun", *, rewrite: bool, weights: str) -> ExportedModel:
        return self.import_parts(run.settings.preset).export(run, rewrite=rewrite, weights=weights)
