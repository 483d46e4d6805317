"""MemSeg as a family: its arguments, settings, training and export."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.export.models.family import ExportedModel, Family, Training

if TYPE_CHECKING:
    from ndp_rt.export.training.run_folder import TrainedRun
    from ndp_rt.export.training.settings import TrainSettings


class MemSeg(Family):
    """Pretrained features, what good images are like, and a head trained on painted defects, in its preset `lite`."""

    name = "memseg"
    title = "MemSeg"
    presets = ("lite",)

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:
        from ndp_rt.export.features.options import add_arguments

        add_arguments(group)

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        from ndp_rt.export.features.options import read_arguments

        return read_arguments(args)

    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.features.options import choose_backbone
        from ndp_rt.export.models.memseg.settings import MemSegSettings
        from ndp_rt.export.training.settings import apply_changes

        return MemSegSettings(**apply_changes({"preset": preset, **choose_backbone(options, "lite0")}, changes))

    def read_settings(self, document: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.models.memseg.settings import MemSegSettings

        return MemSegSettings.from_json(document)

    def make_training(self, settings: "TrainSettings", options: Mapping[str, Any], run: Path) -> Training:
        from ndp_rt.export.models.memseg.settings import MemSegSettings
        from ndp_rt.export.models.memseg.training import MemSegTraining

        assert isinstance(settings, MemSegSettings)
        return MemSegTraining(settings, options)

    def make_export(self, run: "TrainedRun", *, rewrite: bool, weights: str) -> ExportedModel:
        from ndp_rt.export.models.memseg.program import export_run

        return export_run(run, weights)
