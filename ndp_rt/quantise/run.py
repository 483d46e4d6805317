"""Calibrates int8 on images, chooses its layers, and stores them in the bundle: `ndp-rt quantise`."""

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle import Bundle, write_bundle
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers
from ndp_rt.bundle.write import read_current
from ndp_rt.decide.calibration import check_rate
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.int8_ranges import measure_limits
from ndp_rt.engines.registry import find_backend, find_version
from ndp_rt.errors import EngineError, InputError, StorageError
from ndp_rt.evaluate.metrics import require_extras
from ndp_rt.program.manifest import INT8_PRECISIONS
from ndp_rt.quantise.figures import Figures, Limits
from ndp_rt.quantise.report import describe_choice
from ndp_rt.quantise.samples import Samples, paint_defects, read_good, read_labelled
from ndp_rt.quantise.search import REST, Choice, Judge, Search, choose_probe, measure_errors_alone
from ndp_rt.quantise.trials import BACKEND, Trials

FloatArray = NDArray[np.float32]
Say = Callable[[str], None]

MAX_DROP = 0.003
CALIBRATION_SEED, VALIDATION_SEED = 1, 2  # of painted defects: those that ranges come from are not judged on


@dataclass(frozen=True, kw_only=True)
class QuantiseSettings:
    """How int8 is calibrated and judged.

    Raises:
        InputError: a number outside its range, or a precision that is another or that this processor has not.
    """

    calibration: Sequence[Path] | None = None  # good images that were not trained on; None: the bundle's own
    validation: Path | None = None  # labelled images in MVTec AD's layout; None: painted defects
    max_drop: float = MAX_DROP
    false_alarm_rate: float | None = None
    precisions: tuple[str, ...] | None = None  # None: those that this machine has
    threads: int | None = None
    command: str = "ndp-rt quantise"  # for the provenance

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drop < 1.0:
            raise InputError(f"max_drop is {self.max_drop}; 0 to below 1 is taken, 0.003 for 0.3 points.")
        check_rate(self.false_alarm_rate)
        EngineOptions(threads=self.threads)
        for name in self.precisions or ():
            if name not in list_precisions():
                raise InputError(
                    f"precision is '{name}'; {' or '.join(list_precisions())} is taken on this processor, "
                    f"{find_cpu().model_name}."
                )


def list_precisions() -> tuple[str, ...]:
    """Return those of the precisions with int8 layers that this processor has."""
    return INT8_PRECISIONS if find_cpu().has_bf16 else tuple(name for name in INT8_PRECISIONS if REST[name] != "bf16")


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What came of it."""

    choices: Mapping[str, Choice]  # those that are accepted
    refused: Mapping[str, str]  # by precision: why not
    base: Figures  # float32's
    samples: str  # what accuracy was measured on
    report: Mapping[str, Any]


def quantise_bundle(bundle: Bundle, settings: QuantiseSettings, *, progress: Say = lambda line: None) -> Quantised:
    """Choose the layers of a bundle that compute in int8, and store them with their thresholds.

    They replace all that were chosen before, for whichever precision: ranges are measured anew. A precision is accepted
    if it costs no more accuracy than allowed and is faster than every float precision that the machine has. Nothing is
    stored where none is.

    Raises:
        InputError: no calibration images, or settings that are not taken.
        DataError, ImageFileError: images that cannot be used.
        MissingExtraError: scikit-learn or SciPy is not installed.
        EngineError: no precision is accepted; the message says why.
        StorageError: the bundle cannot be written; it stays as it was.
    """
    require_extras()
    _check_place(bundle)  # before minutes of work, not after
    good = _read_calibration(bundle, settings)
    painted = paint_defects(good, CALIBRATION_SEED)
    contract = bundle.manifest.input
    samples = (
        paint_defects(good, VALIDATION_SEED)
        if settings.validation is None
        else read_labelled(settings.validation, contract)
    )
    progress(f"ranges from {painted.source}")
    limits = measure_limits(bundle, painted.images, threads=settings.threads)
    with Trials(bundle, limits, settings.threads) as trials:
        quantised = _choose(bundle, trials, good, samples, settings, progress)
    if not quantised.choices:
        raise EngineError("; ".join(f"{name}: {why}" for name, why in quantised.refused.items()))
    _store(bundle, limits, quantised, settings)
    return quantised


def _check_place(bundle: Bundle) -> None:
    folder = bundle.path.resolve().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"{folder}: cannot be written, and what is chosen is stored in {bundle.path.name}, which is replaced "
            "there. Copy the bundle to a folder that you may write to."
        )


def _read_calibration(bundle: Bundle, settings: QuantiseSettings) -> FloatArray:
    if settings.calibration is not None:
        if not settings.calibration:
            raise InputError("no calibration images came; good images that the model was not trained on are taken.")
        return read_good(settings.calibration, bundle.manifest.input)
    stored = bundle.calibration_images()
    if stored is None:
        raise InputError(
            f"{bundle.path.name} holds no calibration images. Give good images that it was not trained on: "
            f"ndp-rt quantise {bundle.path} --calibration DIR"
        )
    return np.asarray(np.divide(stored, np.float32(255), dtype=np.float32))


def _choose(
    bundle: Bundle, trials: Trials, good: FloatArray, samples: Samples, settings: QuantiseSettings, say: Say
) -> Quantised:
    """Search every precision."""
    rivals: dict[str, Engine] = {"fp32": trials.compile("fp32")}
    if find_cpu().has_bf16:
        rivals["bf16"] = trials.compile("bf16")
    choices, refused = {}, {}
    try:
        judge = Judge(bundle, samples, good, settings.false_alarm_rate)
        say(f"accuracy of fp32 on {samples.source}")
        base, _ = judge.compare(rivals["fp32"])
        limits = Limits(max_drop=settings.max_drop)
        probe = choose_probe(samples)
        errors = measure_errors_alone(trials, probe, say)
        for precision in settings.precisions or list_precisions():
            try:
                search = Search(trials, judge, limits, base, precision, errors=errors, image=probe[0], say=say)
                choice = search.run(rivals)
            except EngineError as error:
                refused[precision] = str(error)
                continue
            slower = [f"{ratio:.2f} of the time of {name}" for name, ratio in choice.ratio.items() if ratio >= 1.0]
            if slower:
                refused[precision] = f"is no faster here: {', '.join(slower)}"
            else:
                choices[precision] = choice
    finally:
        for engine in rivals.values():
            engine.close()
    report = _make_report(choices, refused, base, samples, settings)
    return Quantised(choices=choices, refused=refused, base=base, samples=samples.source, report=report)


def _make_report(
    choices: Mapping[str, Choice],
    refused: Mapping[str, str],
    base: Figures,
    samples: Samples,
    settings: QuantiseSettings,
) -> dict[str, Any]:
    cpu = find_cpu()
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": settings.command,
        "processor": cpu.model_name,
        "backend": f"{BACKEND} {find_version(find_backend(BACKEND))}",
        "max_drop": settings.max_drop,
        "validation": samples.source,
        "fp32": base.to_json(),
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
    current = read_current(bundle)
    thresholds = {name: one for name, one in current.thresholds.items() if name not in INT8_PRECISIONS}
    thresholds |= {name: choice.threshold for name, choice in quantised.choices.items()}
    provenance = {
        **current.provenance,
        "commands": [*current.provenance.get("commands", []), settings.command],
    }
    files: dict[str, bytes | Path] = {name: bundle.path / name for name in bundle.manifest.files}
    files[INT8_FILE] = layers.to_bytes()
    manifest = dataclasses.replace(current, thresholds=thresholds, provenance=provenance)
    write_bundle(bundle.path.resolve(), manifest_without_files=manifest, files=files, overwrite=True)


def make_command(path: Path, settings: QuantiseSettings) -> str:
    """Return the command that does the same, with names alone: a bundle travels, its maker's folders do not."""
    words = ["ndp-rt", "quantise", path.name]
    if settings.calibration is not None:
        words += ["--calibration", *sorted({one.parent.name for one in settings.calibration})]
    if settings.validation is not None:
        words += ["--validation", settings.validation.name]
    words += ["--max-drop", str(settings.max_drop)]
    if settings.false_alarm_rate is not None:
        words += ["--false-alarm-rate", str(settings.false_alarm_rate)]
    if settings.precisions is not None and len(settings.precisions) == 1:
        words += ["--precision", *settings.precisions]
    if settings.threads is not None:
        words += ["--threads", str(settings.threads)]
    return shlex.join(words)
