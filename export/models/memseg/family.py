"""MemSeg as a family: its name, its modules, and the arguments of preset `paper`."""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ndp_rt.errors import InputError
from ndp_rt.export.features.family import Parts, PretrainedFamily
from ndp_rt.export.models.memseg.paper.options import MEMORIES

if TYPE_CHECKING:
    from ndp_rt.export.training.settings import TrainSettings


class MemSeg(PretrainedFamily):
    """Pretrained features, what good images are like, and a network trained on painted defects.

    Preset `lite` has statistics of good images, preset `paper` the authors' memory of them.
    """

    name = "memseg"
    title = "MemSeg"
    presets = ("lite", "paper")

    def import_parts(self, preset: str) -> Parts:
        return _import_paper() if preset == "paper" else _import_lite()

    def add_arguments(self, group: "argparse._ArgumentGroup") -> None:
        super().add_arguments(group)
        group.add_argument(
            "--memory",
            choices=MEMORIES,
            help="of preset paper: images, compared position by position (default), or patches, wherever they lie",
        )

    def read_arguments(self, args: argparse.Namespace) -> dict[str, Any]:
        return {**super().read_arguments(args), "memory": args.memory}

    def make_settings(self, preset: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> "TrainSettings":
        if preset == "paper":
            from ndp_rt.export.models.memseg.paper.settings import make_settings

            return make_settings(changes, options)
        if options.get("memory") is not None:
            raise InputError(f"--memory {options['memory']}: expected --preset paper with it, got preset {preset}.")
        return super().make_settings(preset, changes, options)


def _import_lite() -> Parts:
    from ndp_rt.export.features.program import export_run
    from ndp_rt.export.models.memseg.network import MemSegLite
    from ndp_rt.export.models.memseg.settings import MemSegSettings
    from ndp_rt.export.models.memseg.training import MemSegTraining

    return Parts(settings=MemSegSettings, training=MemSegTraining, export=partial(export_run, make=MemSegLite))


def _import_paper() -> Parts:
    from ndp_rt.export.models.memseg.paper.program import export_run
    from ndp_rt.export.models.memseg.paper.settings import PaperSettings
    from ndp_rt.export.models.memseg.paper.training import PaperTraining

    return Parts(settings=PaperSettings, training=PaperTraining, export=export_run)
