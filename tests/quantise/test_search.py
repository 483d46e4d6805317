"""The search for layers: what is put back, in which order, and when it gives up."""

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.int8_ranges import measure_limits
from ndp_rt.errors import EngineError
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.program.program import DecisionRules
from ndp_rt.quantise.accuracy import AccuracyCheck
from ndp_rt.quantise.figures import AREAS, Drop, Figures
from ndp_rt.quantise.samples import paint_samples
from ndp_rt.quantise.search import Choice, Search
from ndp_rt.quantise.trials import Trials, run_maps

IMAGE = np.zeros((3, 64, 64), np.float32)
REST_MS = 1.0


def make_figures(drop: float) -> Figures:
    """Figures of an engine whose AUPRO drops, for sure."""
    drops = {name: Drop(value=drop if name == "aupro" else 0.0, error=0.0) for name in AREAS}
    return Figures(
        areas=dict.fromkeys(AREAS, 0.9),
        drops=drops,
        flip_count=0,
        image_count=100,
        map_max_abs_difference=0.0,
        score_max_abs_difference=0.0,
    )


class StubEngine:
    """An engine of which only its layers matter."""

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = tuple(layers)
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


class StubTrials:
    """Compiles stubs; `int8_ms` has each layer's time in int8, where REST_MS is that of every other."""

    def __init__(self, int8_ms: Mapping[str, float]) -> None:
        self.layer_names = tuple(int8_ms)
        self.int8_ms = int8_ms
        self.engines: list[StubEngine] = []

    def compile(self, precision: str, layers: Collection[str] = ()) -> StubEngine:
        self.engines.append(StubEngine(layers))
        return self.engines[-1]

    def profile(self, precision: str, layers: Collection[str], image: object) -> dict[str, float]:
        times = {name: self.int8_ms[name] if name in layers else REST_MS for name in self.layer_names}
        return {**times, "": 0.5}


class StubAccuracy:
    """Finds how much each engine's AUPRO drops, and faults in its golden vectors, as it is told."""

    good = (IMAGE,)

    def __init__(self, find_drop: Callable[[tuple[str, ...]], float], spoils: str | None = None) -> None:
        self.find_drop = find_drop
        self.spoils = spoils
        self.measured: list[tuple[str, ...]] = []
        self.calibrated: list[tuple[str, ...]] = []

    def compare(self, engine: StubEngine) -> Figures:
        self.measured.append(engine.layers)
        return make_figures(self.find_drop(engine.layers))

    def describe(self, figures: Figures) -> str:
        return "100 images"

    def calibrate(self, engine: StubEngine) -> ThresholdSpec:
        self.calibrated.append(engine.layers)
        return ThresholdSpec()

    def check_golden(self, engine: StubEngine, precision: str) -> list[str]:
        return ["the golden vectors differ"] if self.spoils in engine.layers else []


class StubErrors:
    """Knows each layer's error."""

    def __init__(self, errors: Mapping[str, float]) -> None:
        self.errors = errors
        self.asked: list[tuple[str, ...]] = []

    def measure(self, names: Sequence[str], deadline_s: float) -> dict[str, float]:
        self.asked.append(tuple(names))
        return {name: self.errors[name] for name in names if name in self.errors}


@pytest.fixture
def by_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines take as long as their layers together."""

    def compare(engines: Sequence[StubEngine], image: object) -> list[list[float]]:
        return [[sum(COSTS.get(name, 0.5) for name in engine.layers) + 10.0 - len(engine.layers)] for engine in engines]

    monkeypatch.setattr("ndp_rt.quantise.search.compare_times", compare)


COSTS = {"slow": 2.0}  # ms in int8 in a whole engine, where 1 is saved; others take 0.5


def search(
    trials: StubTrials,
    accuracy: StubAccuracy,
    errors: StubErrors | None = None,
    *,
    max_drop: float = 0.003,
    deadline_s: float = math.inf,
) -> Choice:
    one = Search(
        precision="int8",
        trials=trials,  # type: ignore[arg-type]
        accuracy=accuracy,  # type: ignore[arg-type]
        max_drop=max_drop,
        errors=errors or StubErrors(dict.fromkeys(trials.layer_names, 0.01)),  # type: ignore[arg-type]
        image=IMAGE,
        deadline_s=deadline_s,
        say=lambda line: None,
    )
    floats = StubEngine(())
    choice = one.run({"fp32": floats})  # type: ignore[dict-item]
    assert floats.is_open and not any(engine.is_open for engine in trials.engines)
    assert accuracy.calibrated == [choice.int8_layers]  # the threshold is the final model's alone
    return choice


@pytest.mark.usefixtures("by_profile")
def test_a_layer_that_int8_makes_slower_is_put_back() -> None:
    choice = search(StubTrials({"a": 0.5, "slow": 2.0, "b": 0.5}), StubAccuracy(lambda layers: 0.0))
    assert choice.int8_layers == ("a", "b")
    assert [layer.choice for layer in choice.layers] == ["int8", "put back: no faster in int8", "int8"]
    assert choice.other_ms == {"rest": 0.5, "int8": 0.5}
    assert choice.ratio == {"fp32": pytest.approx(0.9)}


@pytest.mark.usefixtures("by_profile")
def test_it_stays_where_the_whole_is_no_faster_without_it() -> None:
    """Alone "b" looks slower, but what follows it then has to convert."""
    choice = search(StubTrials({"a": 0.5, "b": 2.0}), StubAccuracy(lambda layers: 0.0))
    assert choice.int8_layers == ("a", "b")


@pytest.mark.usefixtures("by_profile")
def test_the_layer_with_most_error_for_the_time_it_gains_goes_first_and_no_more_than_needed() -> None:
    """Each layer costs 0.002 of AUPRO, so one may stay in int8: the one that gains most for its error."""
    trials = StubTrials({"a": 0.5, "b": 0.1, "c": 0.5})
    accuracy = StubAccuracy(lambda layers: 0.002 * len(layers))
    choice = search(trials, accuracy, StubErrors({"a": 0.01, "b": 0.01, "c": 0.02}))
    assert choice.int8_layers == ("b",)
    assert accuracy.measured == [("a", "b", "c"), ("b",), ("a", "b")]
    assert choice.figures.drops["aupro"].value == 0.002


@pytest.mark.usefixtures("by_profile")
def test_layers_are_not_measured_alone_where_none_has_to_be_put_back() -> None:
    errors = StubErrors({})
    choice = search(StubTrials({"a": 0.5, "b": 0.5}), StubAccuracy(lambda layers: 0.0), errors)
    assert choice.int8_layers == ("a", "b") and errors.asked == []
    assert [layer.map_error for layer in choice.layers] == [None, None]


@pytest.mark.usefixtures("by_profile")
def test_a_layer_that_was_not_measured_for_lack_of_time_is_put_back_first() -> None:
    accuracy = StubAccuracy(lambda layers: 0.1 if "b" in layers else 0.0)
    errors = StubErrors({"a": 0.9, "c": 0.9})
    choice = search(StubTrials({"a": 0.5, "b": 0.5, "c": 0.5}), accuracy, errors)
    assert choice.int8_layers == ("a", "c")


@pytest.mark.usefixtures("by_profile")
def test_out_of_time_it_takes_what_is_known_to_suffice() -> None:
    accuracy = StubAccuracy(lambda layers: 0.001 * len(layers))
    choice = search(StubTrials(dict.fromkeys("abcdef", 0.5)), accuracy, deadline_s=0.0)
    assert len(choice.int8_layers) == 1 and len(accuracy.measured) == 2


@pytest.mark.usefixtures("by_profile")
def test_layers_that_spoil_the_golden_vectors_are_put_back_too() -> None:
    """A build would be refused for them, whatever the accuracy on other images."""
    accuracy = StubAccuracy(lambda layers: 0.0, spoils="b")
    choice = search(StubTrials({"a": 0.5, "b": 0.5, "c": 0.5}), accuracy, StubErrors({"a": 0.01, "b": 0.9, "c": 0.02}))
    assert choice.int8_layers == ("a", "c")


@pytest.mark.usefixtures("by_profile")
@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
def test_it_gives_up_where_even_one_layer_costs_too_much(names: tuple[str, ...]) -> None:
    accuracy = StubAccuracy(lambda layers: 0.1)
    with pytest.raises(
        EngineError,
        match=r"--max-drop: expected a layer that costs at most 0.003, got aupro drops by \+0.1000 ± 0.0000",
    ):
        search(StubTrials(dict.fromkeys(names, 0.5)), accuracy)


@pytest.mark.nightly
def test_the_golden_vectors_are_those_that_a_build_is_checked_with(
    tiny: Bundle, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges of nothing cut everything off; those of the images do not. Trials leave no file behind meanwhile."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = measure_limits(tiny, tiny.golden().image)
    found = []
    for ranges in (limits, dict.fromkeys(limits, 1e-6)):
        with Trials(tiny, ranges) as trials, closing(trials.compile("int8", trials.layer_names)) as engine:
            left = {path for path in tmp_path.rglob("*") if path.is_file() and tiny.path not in path.parents}
            assert left <= {tiny.path.with_name(f".{tiny.path.name}.lock")}
            found.append(make_check(tiny, engine, rng).check_golden(engine, "int8"))
    assert found == [[], ["the golden vectors differ by more than int8 may"]]


def make_check(tiny: Bundle, engine: Engine, rng: np.random.Generator, max_drop: float = 0.003) -> AccuracyCheck:
    good = rng.uniform(0.0, 1.0, (2, 3, 64, 64)).astype(np.float32)
    return AccuracyCheck(bundle=tiny, base_engine=engine, samples=paint_samples(good, 1), max_drop=max_drop, good=good)


def test_samples_are_added_until_chance_is_below_the_limit(
    tiny: Bundle, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine with noise in its maps, compared with itself as it is."""
    monkeypatch.setattr("ndp_rt.quantise.accuracy.LONGEST_S", math.inf)
    with Trials(tiny, {}) as trials, closing(trials.compile("fp32")) as engine:
        check = make_check(tiny, engine, rng)
        check.samples.most = 120
        same = check.compare(engine)
        assert (same.image_count, same.drops["image_rocauc"].error) == (80, 0.0)

        def run_with_noise(
            engine: Engine, rules: DecisionRules, images: Iterable[FloatArray]
        ) -> Iterator[tuple[FloatArray, float]]:
            for one, score in run_maps(engine, rules, images):
                noise = np.float32(rng.normal(0.0, 0.02))
                yield one + noise, score + noise

        monkeypatch.setattr("ndp_rt.quantise.accuracy.run_maps", run_with_noise)
        noisy = check.compare(engine)
        assert noisy.image_count == 120 and not noisy.drops["image_rocauc"].is_sure(0.003)
        monkeypatch.setattr("ndp_rt.quantise.accuracy.LONGEST_S", 0.0)  # no time for more than the first
        check.samples.most = 2560
        assert check.compare(engine).image_count == 120
