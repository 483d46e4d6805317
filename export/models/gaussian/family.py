"""The family `gaussian`: its name and its modules."""

from ndp_rt.export.features.family import Parts, PretrainedFamily


class Gaussian(PretrainedFamily):
    """The Mahalanobis distance of pretrained features from those of good images; nothing is trained."""

    name = "gaussian"
    title = "Gaussian statistics"
    phase_count = 0

    def import_parts(self) -> Parts:
        from ndp_rt.export.models.gaussian.network import GaussianNet
        from ndp_rt.export.models.gaussian.settings import GaussianSettings
        from ndp_rt.export.models.gaussian.training import GaussianTraining

        return Parts(settings=GaussianSettings, training=GaussianTraining, network=GaussianNet)
