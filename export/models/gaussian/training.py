"""How the family `gaussian` is fitted: features of the good images, their statistics, the map's range."""

from ndp_rt.export.features.extract import extract
from ndp_rt.export.features.statistics import join
from ndp_rt.export.features.training import PretrainedTraining
from ndp_rt.export.models.family import Phase, Say, TrainData
from ndp_rt.export.models.gaussian.network import GaussianNet
from ndp_rt.export.models.gaussian.settings import GaussianSettings

TYPICAL_VALUES = (0.25, 0.75)  # of the map: at the median good image's highest z-score, and at twice that


class GaussianTraining(PretrainedTraining):
    """One fit of the family."""

    settings: GaussianSettings

    def load(self, data: TrainData, say: Say) -> None:
        """Fit the statistics."""
        settings = self.settings
        self.model = GaussianNet(settings.backbone, settings.height_px, settings.width_px)
        backbone = self.load_weights(self.model.backbone.strides)
        self.model.backbone = backbone
        self.model.to(settings.device).eval()
        self.modules["model"] = self.model
        fitted = self.choose_fitted(data, say)
        (joined,) = extract(backbone, fitted, range(len(fitted)), settings.device, lambda features: [join(features)])
        self.model.statistics.fit(joined)
        assert data.validation is not None
        held_out = range(len(data.validation))
        scores = extract(backbone, data.validation, held_out, settings.device, lambda f: [self.model.statistics(f)[0]])
        typical = max(1.0, float(scores[0].amax(dim=(1, 2, 3)).median()))
        self.model.range.fit((typical, 2.0 * typical), TYPICAL_VALUES)

    def begin_phase(self, phase: int) -> Phase:
        raise AssertionError("the family has no phases")
