"""Statistics of pretrained features: a Gaussian of what good images look like, fitted in seconds."""

from ndp_rt.export.models.gaussian.family import Gaussian

FAMILY = Gaussian()
