"""NDP-Net as a family: its arguments, settings, training and export."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.errors import InputError
from ndp_rt.export.models.family import ExportedModel, Family, Training

if TYPE_CHECKING:
    from onnx import ModelProto

    from ndp_rt.export.training.run_folder import TrainedRun
    from ndp_rt.export.training.settings import TrainSettings

DISTIL_OPTIONS = {"maps": "--distil-weight", "features": "--distil-features"}


class NdpNet(Family):
    """NDP-Net in its presets `edge` (w = 16) and `paper` (w = 64)."""

    name = "ndpnet"
    title = "NDP-Net"
    presets = ("edge", "paper")
    phase_count = 2

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:
        group.add_argument("--vgg", type=Path, metavar="FILE", help="VGG-16 weights (safetensors) for L_per")
        group.add_argument(
            "--reference", type=Path, metavar="IMAGE", help="the reference; default: chosen from the data"
        )
        group.add_argument(
            "--teacher",
            type=Path,
            metavar="RUN",
            help="learn from a trained run too, such as one of preset paper of the same input size: its folder, or its "
            "checkpoint.safetensors once it is in phase 2",
        )
        group.add_argument("--distil-weight", type=float, metavar="W", help="of the teacher's anomaly maps (default 1)")
        group.add_argument("--distil-features", type=float, metavar="W", help="of its encoder's features (default 0)")

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        weights = {"maps": args.distil_weight, "features": args.distil_features}
        return {
            "vgg": args.vgg,
            "reference": args.reference,
            "teacher": args.teacher,
            "distil": {name: weight for name, weight in weights.items() if weight is not None},
        }

    def find_epochs(self, preset: str) -> tuple[int, ...] | None:
        from ndp_rt.export.models.ndpnet.settings import PAPER_EPOCHS

        return PAPER_EPOCHS if preset == "paper" else None

    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.models.ndpnet.settings import DistilSettings, preset_settings

        given: dict[str, float] = options.get("distil") or {}
        if options.get("teacher") is not None:
            return preset_settings(preset, **changes, distil=DistilSettings(**given))
        if given:
            came = " and ".join(f"{DISTIL_OPTIONS[name]} {value:g}" for name, value in given.items())
            raise InputError(f"{came} came without --teacher. Give the trained run to learn from, or leave it out.")
        return preset_settings(preset, **changes)

    def read_settings(self, document: Mapping[str, Any]) -> "TrainSettings":
        from ndp_rt.export.models.ndpnet.settings import NdpNetSettings

        return NdpNetSettings.from_json(document)

    def make_training(self, settings: "TrainSettings", options: Mapping[str, Any], run: Path) -> Training:
        from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
        from ndp_rt.export.models.ndpnet.training import NdpNetTraining

        assert isinstance(settings, NdpNetSettings)
        return NdpNetTraining(settings, options, run)

    def find_node_stages(self, model: "ModelProto") -> Mapping[int, str]:
        from ndp_rt.export.models.ndpnet.parts import find_node_stages

        return find_node_stages(model)

    def make_export(self, run: "TrainedRun", *, rewrite: bool, weights: str) -> ExportedModel:
        from ndp_rt.export.models.ndpnet.program import export_run

        return export_run(run, rewrite=rewrite, weights=weights)
