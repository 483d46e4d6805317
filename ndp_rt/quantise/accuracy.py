"""Measures engines on the samples, and compares them with float32, on as many as make the difference sure."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.decide.calibration import threshold_from_good_images
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.golden_report import compare_golden
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError
from ndp_rt.images.variations import vary
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.program.program import DecisionRules
from ndp_rt.quantise.figures import Figures, Outcome, compare_outcomes, list_exceeded
from ndp_rt.quantise.samples import KeptSample, Samples
from ndp_rt.quantise.trials import run_maps
from ndp_rt.runtime.open import make_host_executor

GROWTH = 4  # of the number of samples, while a difference is not sure
LONGEST_S = 30.0  # of processor time that float32 may take for the samples, but for the first ones


@dataclass(kw_only=True)
class AccuracyCheck:
    """Measures engines; float32's stays open meanwhile."""

    bundle: Bundle
    base_engine: Engine  # float32's
    samples: Samples
    max_drop: float  # that is allowed: chance has to be smaller
    good: FloatArray  # images [k, 3, h, w] that thresholds are calibrated on, as they are and varied
    groups: Sequence[Hashable] | None = None  # of each; None: each is one
    rate: float | None = None  # wanted highest rate of false alarms; None: 5 %, predicted for other lots
    _base: Outcome | None = field(default=None, init=False)
    _base_s: float = field(default=0.0, init=False)  # that it took

    def compare(self, engine: Engine) -> Figures:
        """Return an engine's figures, on more and more samples until the difference is sure, or decided."""
        count, found = self.samples.fewest, None
        while True:
            samples = self.samples.take(count)
            base = self._find_base(samples)
            more = find_outcome(engine, self._rules, samples[0 if found is None else len(found.scores) :])
            found = more if found is None else found.join(more)
            figures = compare_outcomes(
                found, Outcome(scores=base.scores[:count], values=base.values[:count]), samples, self._threshold
            )
            is_decided = figures.drops["image_rocauc"].is_sure(self.max_drop) or list_exceeded(figures, self.max_drop)
            wanted, done = min(GROWTH * count, self.samples.most), len(base.scores)
            if wanted > done and self._base_s * wanted / done > LONGEST_S:
                wanted = done
            if is_decided or wanted == count:
                return figures
            count = wanted

    def describe(self, figures: Figures) -> str:
        """Return in words what figures were measured on."""
        return self.samples.describe(figures.image_count)

    def calibrate(self, engine: Engine) -> ThresholdSpec:
        """Return an engine's own threshold."""
        images = (one for image in self.good for one in (image, *vary(image)))
        found = [(score, one.max()) for one, score in run_maps(engine, self._rules, images)]
        values = np.array(found, np.float32).reshape(len(self.good), -1, 2)
        has_own_score = self._rules.score == "output"
        return threshold_from_good_images(values, self.rate, self.groups, has_own_score=has_own_score)

    def check_golden(self, engine: Engine, precision: str) -> list[str]:
        """Return in words why a build would refuse the engine; nothing where it would not."""
        try:
            executor = make_host_executor(
                self.bundle, EngineSpec(), {1: {self.bundle.manifest.find_single_stage(): engine}}
            )
            compare_golden(self.bundle, self.bundle.golden(), executor.run, precision=precision, batch=1)
        except EngineError:
            return [f"the golden vectors differ by more than {precision} may"]
        return []

    @property
    def _rules(self) -> DecisionRules:
        return self.bundle.manifest.decision

    @property
    def _threshold(self) -> float | None:
        return self.bundle.threshold("fp32").value

    def _find_base(self, samples: Sequence[KeptSample]) -> Outcome:
        """Return float32's outcome for at least these samples, which are the first ones."""
        done = 0 if self._base is None else len(self._base.scores)
        if done < len(samples):
            start = time.process_time()
            more = find_outcome(self.base_engine, self._rules, samples[done:])
            self._base_s += time.process_time() - start
            self._base = more if self._base is None else self._base.join(more)
        assert self._base is not None
        return self._base


def find_outcome(engine: Engine, rules: DecisionRules, samples: Sequence[KeptSample]) -> Outcome:
    """Run samples; a map smaller than the image is read at the nearest of its pixels."""
    scores, values = [], []
    runs = run_maps(engine, rules, (sample.image for sample in samples))
    for sample, (found, score) in zip(samples, runs, strict=True):
        scores.append(score)
        (h, w), (height, width) = sample.pixels.shape[1:], found.shape
        values.append(found[sample.places // w * height // h, sample.places % w * width // w])
    return Outcome(scores=np.array(scores, np.float32), values=values)
