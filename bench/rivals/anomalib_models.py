"""What anomalib offers as rivals, where it is installed."""

import importlib.metadata

from ndp_rt.bench.rivals import ANOMALIB_PREFIX
from ndp_rt.bench.rivals.modules import BuiltModule, ModuleRival
from ndp_rt.errors import InputError

REMEDY = "pip install 'ndp-rt[peers]'"
# Its image models that can be built without fetching weights or data (seen in 2.7.0). Others, such as Stfpm and Cfa,
# want a pre-trained network whatever they are told; STPM is among the reference architectures.
ANOMALIB = (
    "Cflow",
    "Dfkde",
    "Dfm",
    "Draem",
    "Dsr",
    "EfficientAd",
    "Fastflow",
    "Fre",
    "Ganomaly",
    "Glass",
    "Padim",
    "Patchcore",
    "Patchflow",
    "ReverseDistillation",
)


class AnomalibRival(ModuleRival):
    """One of anomalib's models with random weights."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        """Choose one of ANOMALIB, and "cuda" or "cpu".

        Raises:
            InputError: another name.
        """
        if name not in ANOMALIB:
            raise InputError(
                f"--against names '{ANOMALIB_PREFIX}{name}'. Choose {ANOMALIB_PREFIX} and one of {', '.join(ANOMALIB)}."
            )
        super().__init__(f"{ANOMALIB_PREFIX}{name}", device=device)
        self._model = name
        self.needs = {"anomalib": REMEDY, **self.needs}

    def make_module(self) -> BuiltModule:
        from ndp_rt.bench.rivals.torch_anomalib import build_anomalib

        module, filled, size = build_anomalib(self._model)
        facts = {
            "anomalib": importlib.metadata.version("anomalib"),
            "weights": "random",
            "filled": filled,
            "input_px": list(size),
        }
        return BuiltModule(module=module, facts=facts)
