"""The family `gaussian`: its name and its modules."""

from functools import partial

from ndp_rt.export.features.family import Parts, PretrainedFamily


class Gaussian(PretrainedFamily):
    """The Mahalanobis distance of pretrained features from those of good images; nothing is trained."""

    name = "gaussian"
    title = "Gaussian statistics"
    phase_count = 0

    def import_parts(self, preset: str) -> Parts:
        from ndp_rt.export.features.program import export_run
        from ndp_rt.export.models.gaussian.network import GaussianNet
        from ndp_rt.export.models.gaussian.settings import GaussianSettings
        from ndp_rt.export.models.gaussian.training import GaussianTraining

        return Parts(settings=GaussianSettings, training=GaussianTraining, export=partial(export_run, make=GaussianNet))
