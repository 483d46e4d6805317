"""How the family `gaussian` is fitted: features of the good images, their statistics, the map's range."""

from ndp_rt.export.features.extract import choose_evenly, extract
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
        chosen = choose_evenly(len(data.images), settings.largest_image_count)
        (joined,) = extract(backbone, data.images, chosen, settings.device, lambda features: [join(features)])
        self.model.statistics.fit(joined)
        assert data.validation is not None
        held_out = range(len(data.validation))
        scores = extract(backbone, data.validation, held_out, settings.device, lambda f: [self.model.statistics(f)[0]])
        typical = max(1.0, float(scores[0].amax(dim=(1, 2, 3)).median()))
        self.model.range.fit((typical, 2.0 * typical), TYPICAL_VALUES)
        say(f"statistics of {len(chosen)} good images: {joined.shape[1]} features at {joined[0, 0].numel()} positions")

    def begin_phase(self, phase: int) -> Phase:
        raise AssertionError("the family has no phases")
