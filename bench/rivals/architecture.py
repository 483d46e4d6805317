"""The pages of `ndp_rt.bench.models` as rivals."""

from collections.abc import Mapping

from ndp_rt.bench.models import find_architecture
from ndp_rt.bench.rivals.modules import BuiltModule, ModuleRival

SOURCE = "reported: NDP-Net paper, tables II to IV, MVTec AD's five textures"


class ArchitectureRival(ModuleRival):
    """A reference architecture with random weights."""

    def find(self) -> str | None:
        reason = super().find()
        if reason is not None or self._runtime != "openvino" or find_architecture(self.name).is_graph:
            return reason
        return "it is no single graph that could be exported. Run it with PyTorch: --models-on pytorch."

    def make_module(self) -> BuiltModule:
        page = find_architecture(self.name)
        module = page.build()
        facts = {
            "title": page.title,
            "source": page.source,
            "input_px": module.crop_px or module.input_px,
            "weights": "random",
            "counted": f"docs/bench-methods.md, {page.title}",
            "notes": ["random weights: its time is that of any, its maps mean nothing"],
            "reported": describe_reported(page.reported),
        }
        return BuiltModule(module=module, facts=facts, is_graph=page.is_graph)


def describe_reported(reported: Mapping[str, float]) -> dict[str, float | str | None] | None:
    """Return reported percents as a record's row has accuracies, 0 to 1; None where nothing is reported."""
    if not reported:
        return None
    metrics = ("image_rocauc", "pixel_rocauc", "aupro")
    areas = {name: round(reported[name] / 100, 4) if name in reported else None for name in metrics}
    return {**areas, "source": SOURCE}
