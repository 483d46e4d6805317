"""The family `gaussian`: its arguments, settings, fitting and export."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.export.models.family import ExportedModel, Family, Training

if TYPE_CHECKING:
    from ndp_rt.export.training.run_folder import TrainedRun
    from ndp_rt.export.training.settings import TrainSettings


class Gaussian(Family):
    """The Mahalanobis distance of pretrained features from those of good images; nothing is trained."""

    name = "gaussian"
    title = "Gaussian statistics"
    presets = ("lite",)
    phase_count = 0

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:
        from ndp_rt.export.features.options import add_arguments

        add_arguments(group)

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        from ndp_rt.export.features.options import read_arguments

        return read_arguments(args)

    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.features.options import choose_backbone
        from ndp_rt.export.models.gaussian.settings import GaussianSettings
        from ndp_rt.export.training.settings import apply_changes

        return GaussianSettings(**apply_changes({"preset": preset, **choose_backbone(options, "lite0")}, changes))

    def read_settings(self, document: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.models.gaussian.settings import GaussianSettings

        return GaussianSettings.from_json(document)

    def make_training(self, settings: "TrainSettings", options: Mapping[str, Any], run: Path) -> Training:
        from ndp_rt.export.models.gaussian.settings import GaussianSettings
        from ndp_rt.export.models.gaussian.training import GaussianTraining

        assert isinstance(settings, GaussianSettings)
        return GaussianTraining(settings, options)

    def make_export(self, run: "TrainedRun", *, rewrite: bool, weights: str) -> ExportedModel:
        from ndp_rt.export.models.gaussian.program import export_run

        return export_run(run, weights)
