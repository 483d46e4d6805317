"""Finds the layers of one precision that compute in int8: those that save time and do not cost too much accuracy."""

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.decide.calibration import threshold_from_good_scores
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.golden_report import compare_golden
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError
from ndp_rt.images.variations import vary
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.quantise.figures import Figures, Outcome, compare_outcomes, list_exceeded
from ndp_rt.quantise.samples import Samples
from ndp_rt.quantise.trials import Trials, compare_times, find_ratio, run_maps
from ndp_rt.runtime.open import make_host_executor

Say = Callable[[str], None]

REST = {"int8": "fp32", "mixed": "bf16"}  # what the other layers compute in
PROBE_COUNT = 12  # images that a single layer's error is measured on
SLOWER = 1.1  # a layer is tried in the other precision if int8 takes longer than this share of its time there
LEAST_GAIN_MS = 1e-3
SAY_EVERY = 10

WHY_FAST, WHY_SLOW, WHY_WRONG = "int8", "put back: no faster in int8", "put back: for accuracy"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: its times, its error, and whether it computes in int8."""

    name: str
    rest_ms: float  # in the precision of the rest
    int8_ms: float  # with all layers in int8
    map_error: float  # the largest difference of a smoothed map where this layer alone is in int8
    choice: str = WHY_FAST

    @property
    def is_int8(self) -> bool:
        return self.choice == WHY_FAST

    @property
    def cost(self) -> float:
        """Error for each millisecond that int8 saves; the costliest layer is put back first."""
        return self.map_error / max(self.rest_ms - self.int8_ms, LEAST_GAIN_MS)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The layers of one precision, with the accuracy and the times of the whole."""

    precision: str
    layers: Sequence[Layer]
    other_ms: Mapping[str, float]  # of all but the layers, by "rest" and "int8"
    figures: Figures
    threshold: ThresholdSpec
    median_ms: Mapping[str, float]  # by precision, of this one and of those it was compared with; measured in turns
    ratio: Mapping[str, float]  # this precision's time over theirs

    @property
    def int8_layers(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers if layer.is_int8)


@dataclass(kw_only=True)
class AccuracyCheck:
    """Measures engines on the samples, and compares them with float32, the first that is compared."""

    bundle: Bundle
    samples: Samples
    good: FloatArray  # images [k, 3, h, w] that thresholds are calibrated on, as they are and varied
    groups: Sequence[Hashable] | None = None  # of each; None: each is one
    rate: float | None = None  # wanted highest rate of false alarms; None: 5 %, predicted for other lots
    base: Outcome | None = None  # float32's

    def compare(self, engine: Engine) -> tuple[Figures, ThresholdSpec]:
        """Return an engine's figures and its own threshold."""
        images = (one for image in self.good for one in (image, *vary(image)))
        scores = np.array([one.max() for one in run_maps(engine, images)], np.float32).reshape(len(self.good), -1)
        threshold = threshold_from_good_scores(scores, self.rate, groups=self.groups)
        assert threshold.value is not None  # good scores always give one
        outcome = Outcome(maps=run_maps(engine, self.samples.images), threshold=threshold.value)
        self.base = self.base or outcome
        return compare_outcomes(outcome, self.base, self.samples), threshold

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


def choose_probe(samples: Samples) -> FloatArray:
    """Return PROBE_COUNT images [k, 3, h, w], or all where there are fewer: half of them good, half defective."""
    half = PROBE_COUNT // 2
    order = np.argsort(samples.is_defective, kind="stable")  # good ones first
    chosen: FloatArray = samples.images[np.unique(np.concatenate([order[:half], order[-half:]]))]
    return chosen


def measure_errors_alone(trials: Trials, probe: FloatArray, say: Say) -> dict[str, float]:
    """Return, for each layer, the largest difference of a smoothed map where it alone is in int8, the rest in fp32."""
    names = trials.layer_names
    with closing(trials.compile("fp32")) as engine:
        expected = run_maps(engine, probe)
    errors = {}
    for index, name in enumerate(names):
        if index % SAY_EVERY == 0:
            say(f"each layer alone in int8: {index + 1} to {min(index + SAY_EVERY, len(names))} of {len(names)}")
        with closing(trials.compile("int8", (name,))) as engine:
            found = run_maps(engine, probe)
        errors[name] = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    return errors


@dataclass(frozen=True, kw_only=True)
class Search:
    """Searches the int8 layers of one precision."""

    precision: str  # int8 or mixed
    trials: Trials
    accuracy: AccuracyCheck  # knows float32's outcome
    max_drop: float  # see `list_exceeded`
    base: Figures  # float32's
    errors: Mapping[str, float]  # of each layer alone (`measure_errors_alone`)
    image: FloatArray  # [3, h, w] that engines are timed on
    say: Say  # called with a line of text at each step

    def run(self, floats: Mapping[str, Engine]) -> Choice:
        """Choose the layers and time them against `floats`, the engines of float precisions by name.

        Raises:
            EngineError: no choice stays within the limits.
        """
        layers, other_ms = self._measure_layers()
        layers = self._put_back_slow(layers)
        layers, figures, threshold = self._put_back_wrong(layers)
        with closing(self._compile(layers)) as engine:
            times = compare_times([engine, *floats.values()], self.image)
        names = [self.precision, *floats]
        return Choice(
            precision=self.precision,
            layers=layers,
            other_ms=other_ms,
            figures=figures,
            threshold=threshold,
            median_ms={name: statistics.median(found) for name, found in zip(names, times, strict=True)},
            ratio={name: find_ratio(times[0], found) for name, found in zip(names[1:], times[1:], strict=True)},
        )

    def _measure_layers(self) -> tuple[list[Layer], dict[str, float]]:
        """Time every layer in both forms."""
        names = self.trials.layer_names
        self.say(f"{self.precision}: timing {len(names)} layers")
        rest = self.trials.profile(REST[self.precision], (), self.image)
        int8 = self.trials.profile(self.precision, names, self.image)
        layers = [
            Layer(name=name, rest_ms=rest.get(name, 0.0), int8_ms=int8.get(name, 0.0), map_error=self.errors[name])
            for name in names
        ]
        return layers, {"rest": rest[""], "int8": int8[""]}

    def _put_back_slow(self, layers: list[Layer]) -> list[Layer]:
        """Put the layers back that int8 makes slower, if the whole is faster without them."""
        slow = {layer.name for layer in layers if layer.int8_ms > SLOWER * layer.rest_ms}
        if not slow or len(slow) == len(layers):
            return layers
        without = [replace(layer, choice=WHY_SLOW) if layer.name in slow else layer for layer in layers]
        with closing(self._compile(layers)) as engine, closing(self._compile(without)) as other:
            times = compare_times([engine, other], self.image)
        ratio = find_ratio(times[1], times[0])
        self.say(f"{self.precision}: without the {len(slow)} layers that int8 makes slower {ratio:.3f} of the time")
        return without if ratio < 1.0 else layers

    def _put_back_wrong(self, layers: list[Layer]) -> tuple[list[Layer], Figures, ThresholdSpec]:
        """Put as few layers back as bring accuracy within the limits, the costliest first."""
        costliest = sorted((layer for layer in layers if layer.is_int8), key=lambda layer: -layer.cost)
        tried: dict[int, tuple[list[Layer], Figures, ThresholdSpec, list[str]]] = {}

        def try_without(count: int) -> bool:
            names = {layer.name for layer in costliest[:count]}
            chosen = [replace(layer, choice=WHY_WRONG) if layer.name in names else layer for layer in layers]
            with closing(self._compile(chosen)) as engine:
                figures, threshold = self.accuracy.compare(engine)
                exceeded = self.accuracy.check_golden(engine, self.precision)
            exceeded += list_exceeded(figures, self.base, self.max_drop)
            tried[count] = chosen, figures, threshold, exceeded
            self.say(f"{self.precision}: {count} layers put back, {'; '.join(exceeded) or 'within the limits'}")
            return not exceeded

        # Halving finds the fewest where the error falls with every layer put back, and else some that suffice.
        low, high = 0, len(costliest) - 1  # at least one stays
        if not try_without(low):
            if high <= low or not try_without(high):
                words = "; ".join(tried[max(tried)][3])
                raise EngineError(
                    f"--max-drop: expected a layer that costs at most {self.max_drop}, got {words}. Allow more, "
                    f"calibrate on more images, or use {REST[self.precision]}."
                )
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if try_without(middle) else (middle, high)
            low = high
        return tried[low][:3]

    def _compile(self, layers: Sequence[Layer]) -> Engine:
        return self.trials.compile(self.precision, [layer.name for layer in layers if layer.is_int8])
