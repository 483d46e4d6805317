"""Finds the layers of one precision that compute in int8: all that gain time, less those that cost accuracy."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle import Bundle
from ndp_rt.decide.calibration import threshold_from_good_scores
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.quantise.figures import Figures, Limits, Outcome, compare_outcomes
from ndp_rt.quantise.samples import Samples
from ndp_rt.quantise.trials import Trials, compare_times, find_ratio, run_maps
from ndp_rt.runtime.check import check_executor
from ndp_rt.runtime.open import make_host_executor

FloatArray = NDArray[np.float32]
Say = Callable[[str], None]

REST = {"int8": "fp32", "mixed": "bf16"}  # what the other layers compute in
PROBE_COUNT = 12  # images that a single layer's error is measured on
SLOWER = 1.1  # a layer whose int8 form takes longer than this share of the other is tried in the other
LEAST_GAIN_MS = 1e-3
SAY_EVERY = 10

WHY_FAST, WHY_SLOW, WHY_WRONG = "int8", "put back: no faster in int8", "put back: for accuracy"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is known of one layer in one precision."""

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
        """Error for each millisecond gained: what is put back first has most."""
        return self.map_error / max(self.rest_ms - self.int8_ms, LEAST_GAIN_MS)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The layers of one precision, and what they come to."""

    precision: str
    layers: Sequence[Layer]
    other_ms: Mapping[str, float]  # by "rest" and "int8": everything that is no layer
    figures: Figures
    threshold: ThresholdSpec
    median_ms: Mapping[str, float]  # by precision, those compared with included; measured in turns
    ratio: Mapping[str, float]  # this precision's time over theirs

    @property
    def int8_layers(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers if layer.is_int8)


class Judge:
    """Measures engines on the samples; float32's outcome is what all others are compared with."""

    def __init__(self, bundle: Bundle, samples: Samples, good: FloatArray, rate: float | None) -> None:
        """Take the images.

        Args:
            bundle: has the golden vectors.
            samples: that accuracy is measured on.
            good: images [k, 3, h, w] that thresholds are calibrated on.
            rate: wanted highest rate of false alarms; None: the strongest promise.
        """
        self._bundle, self._golden = bundle, bundle.golden()
        self._samples, self._good, self._rate = samples, good, rate
        self.base: Outcome | None = None

    def measure(self, engine: Engine) -> tuple[Outcome, ThresholdSpec]:
        """Run the samples; the threshold is the engine's own."""
        scores = [float(one.max()) for one in run_maps(engine, self._good)]
        threshold = threshold_from_good_scores(scores, self._rate)
        assert threshold.value is not None  # good scores always give one
        return Outcome(maps=run_maps(engine, self._samples.images), threshold=threshold.value), threshold

    def compare(self, engine: Engine) -> tuple[Figures, ThresholdSpec]:
        """Return an engine's figures; the first that comes is float32's, and what later ones are compared with."""
        outcome, threshold = self.measure(engine)
        self.base = self.base or outcome
        return compare_outcomes(outcome, self.base, self._samples), threshold

    def check_golden(self, engine: Engine, precision: str) -> list[str]:
        """Return what a build of the engine would be refused for, in words; nothing where it would be taken."""
        try:
            executor = make_host_executor(self._bundle, EngineSpec(), {1: {"fused": engine}})
            check_executor(self._bundle, executor, precision, 1, golden=self._golden)
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
    expected = _run_and_close(trials.compile("fp32"), probe)
    errors = {}
    for index, name in enumerate(names):
        if index % SAY_EVERY == 0:
            say(f"each layer alone in int8: {index + 1} to {min(index + SAY_EVERY, len(names))} of {len(names)}")
        found = _run_and_close(trials.compile("int8", (name,)), probe)
        errors[name] = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    return errors


def _run_and_close(engine: Engine, images: FloatArray) -> list[FloatArray]:
    try:
        return run_maps(engine, images)
    finally:
        engine.close()


class Search:
    """The search for one precision."""

    def __init__(
        self,
        trials: Trials,
        judge: Judge,
        limits: Limits,
        base: Figures,
        precision: str,
        *,
        errors: Mapping[str, float],
        image: FloatArray,
        say: Say,
    ) -> None:
        """Take what is needed.

        Args:
            trials: compiles engines.
            judge: knows float32's outcome.
            limits: of what may be lost.
            base: float32's figures.
            precision: int8 or mixed.
            errors: of each layer alone (`measure_errors_alone`).
            image: [3, h, w] that engines are timed on.
            say: called with a line of text at each step.
        """
        self._trials, self._judge, self._limits, self._base, self._say = trials, judge, limits, base, say
        self._precision, self._rest = precision, REST[precision]
        self._errors, self._image = errors, image

    def run(self, rivals: Mapping[str, Engine]) -> Choice:
        """Choose the layers and time them against `rivals`, engines by precision.

        Raises:
            EngineError: no choice stays within the limits.
        """
        layers, other_ms = self._measure_layers()
        layers = self._put_back_slow(layers)
        layers, figures, threshold = self._put_back_wrong(layers)
        engine = self._compile(layers)
        try:
            times = compare_times([engine, *rivals.values()], self._image)
        finally:
            engine.close()
        names = [self._precision, *rivals]
        return Choice(
            precision=self._precision,
            layers=layers,
            other_ms=other_ms,
            figures=figures,
            threshold=threshold,
            median_ms={name: statistics.median(found) for name, found in zip(names, times, strict=True)},
            ratio={name: find_ratio(times[0], found) for name, found in zip(names[1:], times[1:], strict=True)},
        )

    def _measure_layers(self) -> tuple[list[Layer], dict[str, float]]:
        """Time every layer in both forms."""
        names = self._trials.layer_names
        self._say(f"{self._precision}: timing {len(names)} layers")
        rest = self._trials.profile(self._rest, (), self._image)
        int8 = self._trials.profile(self._precision, names, self._image)
        layers = [
            Layer(name=name, rest_ms=rest.get(name, 0.0), int8_ms=int8.get(name, 0.0), map_error=self._errors[name])
            for name in names
        ]
        return layers, {"rest": rest[""], "int8": int8[""]}

    def _put_back_slow(self, layers: list[Layer]) -> list[Layer]:
        """Put the layers back that int8 makes slower, if the whole is faster without them."""
        slow = {layer.name for layer in layers if layer.int8_ms > SLOWER * layer.rest_ms}
        if not slow or len(slow) == len(layers):
            return layers
        without = [replace(layer, choice=WHY_SLOW) if layer.name in slow else layer for layer in layers]
        engines = [self._compile(layers), self._compile(without)]
        try:
            times = compare_times(engines, self._image)
        finally:
            for engine in engines:
                engine.close()
        ratio = find_ratio(times[1], times[0])
        self._say(f"{self._precision}: without the {len(slow)} layers that int8 makes slower {ratio:.3f} of the time")
        return without if ratio < 1.0 else layers

    def _put_back_wrong(self, layers: list[Layer]) -> tuple[list[Layer], Figures, ThresholdSpec]:
        """Put as few layers back as bring accuracy within the limits, the costliest first."""
        costliest = sorted((layer for layer in layers if layer.is_int8), key=lambda layer: -layer.cost)
        tried: dict[int, tuple[list[Layer], Figures, ThresholdSpec, list[str]]] = {}

        def try_without(count: int) -> bool:
            names = {layer.name for layer in costliest[:count]}
            chosen = [replace(layer, choice=WHY_WRONG) if layer.name in names else layer for layer in layers]
            engine = self._compile(chosen)
            try:
                figures, threshold = self._judge.compare(engine)
                exceeded = self._judge.check_golden(engine, self._precision)
            finally:
                engine.close()
            exceeded += self._limits.list_exceeded(figures, self._base)
            tried[count] = chosen, figures, threshold, exceeded
            self._say(
                f"{self._precision}: {count} layers put back, "
                + ("; ".join(exceeded) if exceeded else "within the limits")
            )
            return not exceeded

        # Halving finds the fewest where the error falls with every layer put back, and else some that suffice.
        low, high = 0, len(costliest) - 1  # at least one stays
        if not try_without(low):
            if high <= low or not try_without(high):
                words = "; ".join(tried[max(tried)][3])
                raise EngineError(
                    f"even one layer costs more than --max-drop {self._limits.max_drop} allows: {words}. Allow more, "
                    f"calibrate on more images, or use {self._rest}."
                )
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if try_without(middle) else (middle, high)
            low = high
        return tried[low][:3]

    def _compile(self, layers: Sequence[Layer]) -> Engine:
        return self._trials.compile(self._precision, [layer.name for layer in layers if layer.is_int8])
