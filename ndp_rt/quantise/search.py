"""Finds the layers of one precision that compute in int8: those that save time and do not cost too much accuracy."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.engines.engine import Engine
from ndp_rt.errors import EngineError
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.quantise.accuracy import AccuracyCheck
from ndp_rt.quantise.figures import Figures, list_exceeded
from ndp_rt.quantise.trials import Trials, compare_times, find_ratio, run_maps

Say = Callable[[str], None]

REST = {"int8": "fp32", "mixed": "bf16"}  # what the other layers compute in
ERRORS_SHARE = 0.5  # of a precision's time that single layers are measured in
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
    map_error: float | None = None  # largest difference of a map, this layer alone in int8; None: not measured
    choice: str = WHY_FAST

    @property
    def is_int8(self) -> bool:
        return self.choice == WHY_FAST

    @property
    def cost(self) -> float:
        """Error for each millisecond that int8 saves; the costliest layer is put back first."""
        error = float("inf") if self.map_error is None else self.map_error
        return error / max(self.rest_ms - self.int8_ms, LEAST_GAIN_MS)


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


class LayerErrors:
    """Measures layers alone in int8, the rest in fp32; each once."""

    def __init__(self, trials: Trials, probe: Sequence[FloatArray], say: Say) -> None:
        """Take images [3, h, w] to measure on."""
        self._trials = trials
        self._probe = probe
        self._say = say
        self._expected: list[FloatArray] = []
        self._errors: dict[str, float] = {}

    def measure(self, names: Sequence[str], deadline_s: float) -> dict[str, float]:
        """Return the largest difference of a map for each layer, as far as time allows.

        Args:
            names: of the layers, the ones that matter most first.
            deadline_s: of `time.monotonic`.
        """
        if not self._expected:
            with closing(self._trials.compile("fp32")) as engine:
                self._expected = self._run(engine)
        for index, name in enumerate(names):
            if name in self._errors or time.monotonic() > deadline_s:
                continue
            if index % SAY_EVERY == 0:
                self._say(
                    f"each layer alone in int8: {index + 1} to {min(index + SAY_EVERY, len(names))} of {len(names)}"
                )
            with closing(self._trials.compile("int8", (name,))) as engine:
                found = self._run(engine)
            pairs = zip(found, self._expected, strict=True)
            self._errors[name] = max(float(np.abs(one - other).max()) for one, other in pairs)
        return {name: self._errors[name] for name in names if name in self._errors}

    def _run(self, engine: Engine) -> list[FloatArray]:
        return [found for found, _ in run_maps(engine, self._trials.rules, self._probe)]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Searches the int8 layers of one precision."""

    precision: str  # int8 or mixed
    trials: Trials
    accuracy: AccuracyCheck
    max_drop: float  # see `list_exceeded`
    errors: LayerErrors  # of each layer alone; measured where some have to be put back
    image: FloatArray  # [3, h, w] that engines are timed on
    deadline_s: float  # of `time.monotonic`: no trial begins after it
    say: Say  # called with a line of text at each step

    def run(self, floats: Mapping[str, Engine]) -> Choice:
        """Choose the layers and time them against `floats`, the engines of float precisions by name.

        Raises:
            EngineError: no choice stays within the limits.
        """
        layers, other_ms = self._measure_layers()
        layers = self._put_back_slow(layers)
        layers, figures = self._put_back_wrong(layers)
        with closing(self._compile(layers)) as engine:
            times = compare_times([engine, *floats.values()], self.image)
            self.say(f"{self.precision}: threshold from {len(self.accuracy.good)} good images, varied")
            threshold = self.accuracy.calibrate(engine)
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
        layers = [Layer(name=name, rest_ms=rest.get(name, 0.0), int8_ms=int8.get(name, 0.0)) for name in names]
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

    def _put_back_wrong(self, layers: list[Layer]) -> tuple[list[Layer], Figures]:
        """Put as few layers back as bring accuracy within the limits, the costliest first."""
        costliest: list[Layer] = []
        tried: dict[int, tuple[list[Layer], Figures, list[str]]] = {}

        def try_without(count: int) -> bool:
            names = {layer.name for layer in costliest[:count]}
            chosen = [replace(layer, choice=WHY_WRONG) if layer.name in names else layer for layer in layers]
            with closing(self._compile(chosen)) as engine:
                figures = self.accuracy.compare(engine)
                exceeded = self.accuracy.check_golden(engine, self.precision)
            exceeded += list_exceeded(figures, self.max_drop)
            tried[count] = chosen, figures, exceeded
            words = "; ".join(exceeded) or f"image_rocauc drops by {figures.drops['image_rocauc']}, within the limits"
            self.say(f"{self.precision}: {count} layers put back: {words} (on {self.accuracy.describe(figures)})")
            return not exceeded

        if try_without(0):
            return tried[0][:2]
        layers = self._measure_alone(layers)
        costliest = sorted((layer for layer in layers if layer.is_int8), key=lambda layer: -layer.cost)
        # Halving finds the fewest where the error falls with every layer put back, and else some that suffice.
        low, high = 0, len(costliest) - 1  # at least one stays
        if high <= low or not try_without(high):
            words = "; ".join(tried[max(tried)][2])
            raise EngineError(
                f"--max-drop: expected a layer that costs at most {self.max_drop}, got {words}. Allow more, "
                f"calibrate on more images, or use {REST[self.precision]}."
            )
        while high - low > 1 and time.monotonic() < self.deadline_s:
            middle = (low + high) // 2
            low, high = (low, middle) if try_without(middle) else (middle, high)
        return tried[high][:2]

    def _measure_alone(self, layers: list[Layer]) -> list[Layer]:
        """Return the layers with their errors; those that time was too short for come back without one."""
        names = [layer.name for layer in sorted(layers, key=lambda one: one.int8_ms - one.rest_ms) if layer.is_int8]
        now = time.monotonic()
        errors = self.errors.measure(names, now + ERRORS_SHARE * (self.deadline_s - now))
        return [replace(layer, map_error=errors.get(layer.name)) for layer in layers]

    def _compile(self, layers: Sequence[Layer]) -> Engine:
        return self.trials.compile(self.precision, [layer.name for layer in layers if layer.is_int8])
