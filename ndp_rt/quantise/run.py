"""Calibrates int8 on images, chooses its layers, and stores them in the bundle (`ndp-rt quantise`)."""

import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers
from ndp_rt.bundle.write import add_command, replace_files
from ndp_rt.decide.calibration import check_rate
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.int8_ranges import measure_limits
from ndp_rt.engines.registry import find_backend, find_version
from ndp_rt.errors import EngineError, InputError, StorageError, check_choice
from ndp_rt.evaluate.metrics import require_extras
from ndp_rt.images.groups import find_independent
from ndp_rt.program.manifest import INT8_PRECISIONS, BundleManifest
from ndp_rt.quantise.accuracy import AccuracyCheck
from ndp_rt.quantise.figures import Figures
from ndp_rt.quantise.report import describe_choice
from ndp_rt.quantise.samples import Samples, paint_for_ranges, paint_samples, read_good, read_labelled
from ndp_rt.quantise.search import REST, Choice, LayerErrors, Search
from ndp_rt.quantise.trials import BACKEND, Trials

Say = Callable[[str], None]

MAX_DROP = 0.003
SECONDS = 200.0  # for trials; thresholds and times come on top
PROBE_COUNT = 6  # samples that a single layer's error is measured on
CALIBRATION_SEED, VALIDATION_SEED = 1, 2  # of painted defects: accuracy is not measured on those that ranges come from


@dataclass(frozen=True, kw_only=True)
class QuantiseSettings:
    """Settings of int8's calibration, and the accuracy that it may cost.

    Raises:
        InputError: a number outside its range, or a precision without int8 layers or that this processor lacks.
    """

    calibration: Sequence[Path] | None = None  # good images that were not trained on; None: the bundle's own
    validation: Path | None = None  # labelled images in MVTec AD's layout; None: painted defects
    page: int | None = None  # of images of `validation` with several
    max_drop: float = MAX_DROP
    false_alarm_rate: float | None = None
    precisions: tuple[str, ...] | None = None  # None: those that this machine has
    threads: int | None = None
    seconds: float = SECONDS  # after which no trial begins
    command: str = "ndp-rt quantise"  # for the provenance

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drop < 1.0:
            raise InputError(f"max_drop: expected 0 to below 1, such as 0.003 for 0.3 points, got {self.max_drop}.")
        check_rate(self.false_alarm_rate)
        EngineOptions(threads=self.threads)
        for name in self.precisions or ():
            check_choice(f"precision on {find_cpu().model_name}", name, list_precisions())


def list_precisions() -> tuple[str, ...]:
    """Return those of the precisions with int8 layers that this processor has."""
    return INT8_PRECISIONS if find_cpu().has_bf16 else tuple(name for name in INT8_PRECISIONS if REST[name] != "bf16")


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """The precisions that were accepted and refused, and the figures that decided."""

    choices: Mapping[str, Choice]  # by precision: the accepted ones
    refused: Mapping[str, str]  # by precision: the reasons
    floats: Mapping[str, Figures]  # of float precisions, by name, fp32's first
    samples: str  # what accuracy was measured on, at most
    report: Mapping[str, Any]


def quantise_bundle(bundle: Bundle, settings: QuantiseSettings, *, progress: Say = lambda line: None) -> Quantised:
    """Choose the layers of a bundle that compute in int8, and store them with their thresholds.

    They replace the layers that were chosen before, for every precision: ranges are measured anew. A precision is
    accepted if it costs no more accuracy than allowed, chance excluded, and is faster than what its other layers
    compute in. If none is accepted, nothing is stored.

    Raises:
        InputError: no calibration images, or a model that is not one engine.
        DataError, ImageFileError: images that cannot be used.
        MissingExtraError: scikit-learn or SciPy is not installed.
        EngineError: no precision is accepted; the message says why.
        StorageError: the bundle cannot be written; it stays as it was.
    """
    require_extras()
    _check_place(bundle)  # before minutes of work, not after
    bundle.manifest.find_single_stage()
    good = _read_calibration(bundle, settings)
    deadline_s = time.monotonic() + settings.seconds
    samples = (
        paint_samples(good, VALIDATION_SEED)
        if settings.validation is None
        else read_labelled(settings.validation, bundle.manifest.input, settings.page)
    )
    painted = paint_for_ranges(good, CALIBRATION_SEED)
    progress(f"ranges from {len(good)} good images, and {len(painted) - len(good)} with painted defects")
    limits = measure_limits(bundle, painted, threads=settings.threads)
    with bundle.held(), Trials(bundle, limits, settings.threads) as trials:
        quantised = _choose(bundle, trials, good, samples, settings, deadline_s, progress)
    if not quantised.choices:
        raise EngineError("; ".join(f"{name}: {why}" for name, why in quantised.refused.items()))
    _store(bundle, limits, quantised, settings)
    return quantised


def _check_place(bundle: Bundle) -> None:
    folder = bundle.path.resolve().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"{folder}: cannot be written, and {bundle.path.name} is replaced there. Copy the bundle to a folder that "
            "you may write to."
        )


def _read_calibration(bundle: Bundle, settings: QuantiseSettings) -> FloatArray:
    if settings.calibration is not None:
        if not settings.calibration:
            raise InputError("calibration: expected good images that the model was not trained on, got none.")
        return read_good(settings.calibration, bundle.manifest.input)
    stored = bundle.calibration_images()
    if stored is None:
        raise InputError(
            f"{bundle.path.name}: expected calibration images in it, got none. Give good images that it was not "
            f"trained on: ndp-rt quantise {bundle.path} --calibration DIR"
        )
    return np.asarray(np.divide(stored, np.float32(255), dtype=np.float32))


def _find_groups(bundle: Bundle, settings: QuantiseSettings) -> Sequence[Hashable] | None:
    """Return the group of each calibration image."""
    if settings.calibration is not None:
        return find_independent(settings.calibration).labels
    return bundle.calibration_groups()


def _choose(
    bundle: Bundle,
    trials: Trials,
    good: FloatArray,
    samples: Samples,
    settings: QuantiseSettings,
    deadline_s: float,
    say: Say,
) -> Quantised:
    """Search every precision."""
    choices, refused = {}, {}
    precisions = settings.precisions or list_precisions()
    with ExitStack() as stack:
        floats: dict[str, Engine] = {}
        for precision in ("fp32", "bf16") if find_cpu().has_bf16 else ("fp32",):
            floats[precision] = stack.enter_context(closing(trials.compile(precision)))
        accuracy = AccuracyCheck(
            bundle=bundle,
            base_engine=floats["fp32"],
            samples=samples,
            max_drop=settings.max_drop,
            good=good,
            groups=_find_groups(bundle, settings),
            rate=settings.false_alarm_rate,
        )
        say(f"accuracy of {' and '.join(floats)} on up to {samples.describe(samples.most)}")
        figures = {name: accuracy.compare(engine) for name, engine in floats.items()}
        probe = [sample.image for sample in samples.take(PROBE_COUNT)]
        errors = LayerErrors(trials, probe, say)
        for place, precision in enumerate(precisions):
            now = time.monotonic()
            search = Search(
                precision=precision,
                trials=trials,
                accuracy=accuracy,
                max_drop=settings.max_drop,
                errors=errors,
                image=probe[0],
                deadline_s=now + (deadline_s - now) / (len(precisions) - place),
                say=say,
            )
            try:
                choice = search.run(floats)
            except EngineError as error:
                refused[precision] = str(error)
                continue
            ratio = choice.ratio[REST[precision]]
            if ratio >= 1.0:
                refused[precision] = f"is no faster here: {ratio:.2f} of the time of {REST[precision]}"
            else:
                choices[precision] = choice
    report = _make_report(choices, refused, figures, accuracy, settings)
    what = accuracy.describe(max((*figures.values(), *(one.figures for one in choices.values())), key=_count))
    return Quantised(choices=choices, refused=refused, floats=figures, samples=what, report=report)


def _count(figures: Figures) -> int:
    return figures.image_count


def _make_report(
    choices: Mapping[str, Choice],
    refused: Mapping[str, str],
    floats: Mapping[str, Figures],
    accuracy: AccuracyCheck,
    settings: QuantiseSettings,
) -> dict[str, Any]:
    cpu = find_cpu()
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": settings.command,
        "processor": cpu.model_name,
        "backend": f"{BACKEND} {find_version(find_backend(BACKEND))}",
        "max_drop": settings.max_drop,
        "validation": accuracy.samples.describe(accuracy.samples.most),
        **{name: figures.to_json() for name, figures in floats.items()},
        "precisions": {name: describe_choice(choice) for name, choice in choices.items()},
        "refused": dict(refused),
    }


def _store(bundle: Bundle, limits: Mapping[str, float], quantised: Quantised, settings: QuantiseSettings) -> None:
    """Write the bundle anew with int8.json and the thresholds, in one step."""
    layers = Int8Layers(
        limits=limits,
        chosen={name: choice.int8_layers for name, choice in quantised.choices.items()},
        report=quantised.report,
    )

    def edit(now: BundleManifest) -> BundleManifest:
        thresholds = {name: one for name, one in now.thresholds.items() if name not in INT8_PRECISIONS}
        thresholds |= {name: choice.threshold for name, choice in quantised.choices.items()}
        return dataclasses.replace(now, thresholds=thresholds, provenance=add_command(now.provenance, settings.command))

    replace_files(bundle, {INT8_FILE: layers.to_bytes()}, edit)


def make_command(path: Path, settings: QuantiseSettings) -> str:
    """Return the command for these settings, with names for paths: its maker's folders do not go with a bundle."""
    words = ["ndp-rt", "quantise", path.name]
    if settings.calibration is not None:
        words += ["--calibration", *sorted({one.parent.name for one in settings.calibration})]
    options = {
        "validation": None if settings.validation is None else settings.validation.name,
        "max-drop": settings.max_drop,
        "false-alarm-rate": settings.false_alarm_rate,
        "precision": settings.precisions[0] if settings.precisions and len(settings.precisions) == 1 else None,
        "threads": settings.threads,
        "page": settings.page,
    }
    words += [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(words)
