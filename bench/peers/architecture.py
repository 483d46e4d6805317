"""The pages of `ndp_rt.bench.models` as rivals."""

from ndp_rt.bench.models import Reported, find_architecture
from ndp_rt.bench.peers.module_peer import BuiltModule, ModulePeer

SOURCE = "reported: NDP-Net paper, tables II to IV, MVTec AD's five textures"


class ArchitecturePeer(ModulePeer):
    """A reference architecture with random weights; see `ndp_rt.bench.peers.base.Peer`."""

    def find(self) -> str | None:
        reason = super().find()
        if reason is not None or self._runtime != "openvino":
            return reason
        if not find_architecture(self.name).is_graph:
            return "it is no single graph that could be exported. Run it with PyTorch: --models-on pytorch."
        return None

    def make_module(self) -> BuiltModule:
        page = find_architecture(self.name)
        facts = {
            "title": page.title,
            "source": page.source,
            "input_px": page.input_px,
            "weights": "random",
            "counted": list(page.counted),
            "left_out": list(page.left_out),
            "notes": ["random weights: its time is that of any, its maps mean nothing"],
            "reported": describe_reported(page.reported),
        }
        return BuiltModule(module=page.build().eval(), facts=facts, is_graph=page.is_graph)


def describe_reported(reported: Reported) -> dict[str, float | str | None] | None:
    """Return reported accuracy as a record's row has it, 0 to 1; None where nothing is reported."""
    percents = {
        "image_rocauc": reported.image_rocauc,
        "pixel_rocauc": reported.pixel_rocauc,
        "aupro": reported.pro_auc,
    }
    if all(value is None for value in percents.values()):
        return None
    areas = {name: None if value is None else round(value / 100, 4) for name, value in percents.items()}
    return {**areas, "source": SOURCE}
