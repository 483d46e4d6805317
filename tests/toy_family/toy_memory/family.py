"""The toy as a family: its argument, settings, training and export."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.errors import InputError
from ndp_rt.export.models.family import ExportedModel, Family, Training

if TYPE_CHECKING:
    from ndp_rt.export.training.run_folder import TrainedRun
    from ndp_rt.export.training.settings import TrainSettings


class Toy(Family):
    """Distance to the nearest of a memory of good patches, and a small head over it."""

    name = "toy"
    title = "Toy"
    presets = ("small",)

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:
        group.add_argument("--memory", type=int, metavar="N", default=32, help="patches of good images to keep")

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        return {"memory": args.memory}

    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.training.settings import apply_changes
        from toy_memory.training import ToySettings

        if preset != "small":
            raise InputError(f"expected preset small, got '{preset}'.")
        return ToySettings(**apply_changes({"memory_count": options["memory"]}, changes))

    def read_settings(self, document: Mapping[str, Any]) -> "TrainSettings":
        from toy_memory.training import ToySettings

        return ToySettings.from_json(document)

    def make_training(self, settings: "TrainSettings", options: Mapping[str, Any], run: Path) -> Training:
        from toy_memory.training import ToyTraining

        return ToyTraining(settings)

    def make_export(self, run: "TrainedRun", *, rewrite: bool, weights: str) -> ExportedModel:
        from toy_memory.program import export_run

        return export_run(run, weights)


FAMILY = Toy()
