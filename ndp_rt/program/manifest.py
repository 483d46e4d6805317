"""The manifest of a bundle: input contract, stages, assets, programs, decision rules and thresholds.

Every class here is plain data with `to_json` and `from_json`; nothing here reads a file.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ndp_rt.errors import BundleError, InputError
from ndp_rt.program.json_reading import Json, take
from ndp_rt.program.program import AssetSpec, DecisionRules, Program, take_keys
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.program.version1 import upgrade

FORMAT = "ndp-rt bundle"
FORMAT_VERSION = 2
RESIZE_RULE = "area-or-linear-v1"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8", "mixed")
# In these, chosen layers (`ndp_rt.bundle.int8_layers`) compute in int8; the others on a CPU in fp32 or bf16 ("mixed").
INT8_PRECISIONS = ("int8", "mixed")
THRESHOLD_SOURCES = ("calibrated", "manual", "none")

_Value = TypeVar("_Value")


def _parse(document: object, key: str, parse: Callable[[object], _Value]) -> dict[str, _Value]:
    """Return the entries of the object document[key], each parsed."""
    entries: Mapping[str, object] = take(document, key, dict, "the manifest")
    return {str(name): parse(entry) for name, entry in entries.items()}


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """What the network takes, and how an image becomes it (`ndp_rt.images.preprocess`)."""

    height_px: int = 256
    width_px: int = 256
    colour: str = "rgb"
    resize: str = RESIZE_RULE
    white_level_16bit: int = 65535  # the uint16 value that becomes 1.0; larger ones are clipped

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if self.colour != "rgb" or self.resize != RESIZE_RULE:
            raise InputError(
                f"the input contract says colour '{self.colour}', resize '{self.resize}'; this version of ndp-rt knows "
                f"'rgb' and '{RESIZE_RULE}'. Update ndp-rt, or export the bundle again."
            )
        if not 1 <= self.white_level_16bit <= 65535:
            raise InputError(f"white_level_16bit: expected 1 to 65535, got {self.white_level_16bit}.")

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> "InputContract":
        return cls(
            height_px=take(document, "height_px", int, "input"),
            width_px=take(document, "width_px", int, "input"),
            colour=take(document, "colour", str, "input"),
            resize=take(document, "resize", str, "input"),
            white_level_16bit=take(document, "white_level_16bit", int, "input"),
        )


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A graph with its tensors, in order: an ONNX file of the bundle or, for a device, one that is derived from others.

    A derived stage merges `parts`, which feed each other by name. With `cut`, the work of that op is taken off its end,
    because a kernel does it: the stage then gives what the op reads instead of what it writes.
    """

    file: str | None = None
    parts: tuple[str, ...] = ()
    cut: str | None = None
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def __post_init__(self) -> None:
        if (self.file is None) != bool(self.parts):
            raise InputError(f"a stage: expected either a file or parts, got {self.file} and {list(self.parts)}.")

    def to_json(self) -> Json:
        source: Json = {"file": self.file} if self.file is not None else {"parts": list(self.parts)}
        if self.cut is not None:
            source["cut"] = self.cut
        return {
            **source,
            "inputs": {name: spec.to_dims() for name, spec in self.inputs.items()},
            "outputs": {name: spec.to_dims() for name, spec in self.outputs.items()},
        }

    @classmethod
    def from_json(cls, document: object) -> "StageSpec":
        inputs, outputs = (take(document, key, dict, "a stage") for key in ("inputs", "outputs"))
        keys = take_keys(document)
        return cls(
            file=None if "parts" in keys else take(document, "file", str, "a stage"),
            parts=tuple(map(str, take(document, "parts", list, "a stage"))) if "parts" in keys else (),
            cut=take(document, "cut", str, "a stage") if "cut" in keys else None,
            inputs={name: TensorSpec.from_dims(name, dims) for name, dims in inputs.items()},
            outputs={name: TensorSpec.from_dims(name, dims) for name, dims in outputs.items()},
        )


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which network a bundle holds: for people. What runs is in the programs."""

    family: str
    preset: str
    width: int | None = None  # channels of the first level, where the family has such a number
    rewrites: tuple[str, ...] = ()
    weights: str = "fp32"  # how weights are stored: fp32 or fp16

    def to_json(self) -> Json:
        width = {} if self.width is None else {"width": self.width}
        others = {"rewrites": list(self.rewrites), "weights": self.weights}
        return {"family": self.family, "preset": self.preset, **width, **others}

    @classmethod
    def from_json(cls, document: object) -> "ModelSpec":
        return cls(
            family=take(document, "family", str, "model"),
            preset=take(document, "preset", str, "model"),
            width=take(document, "width", int, "model") if "width" in take_keys(document) else None,
            rewrites=tuple(str(name) for name in take(document, "rewrites", list, "model")),
            weights=take(document, "weights", str, "model"),
        )


@dataclass(frozen=True, kw_only=True)
class ThresholdSpec:
    """The decision threshold of one precision (a defect: score >= value), and how much it promises."""

    value: float | None = None  # None exactly when source is "none"
    source: str = "none"
    good_image_count: int = 0
    false_alarm_rate_bound: float | None = None  # upper bound at `confidence`; None: too few images to promise one
    confidence: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.source not in THRESHOLD_SOURCES:
            raise InputError(f"threshold source: expected one of {', '.join(THRESHOLD_SOURCES)}, got '{self.source}'.")
        if (self.value is None) != (self.source == "none"):
            raise InputError(f"threshold is {self.value} with source '{self.source}'; 'none' goes with None alone.")
        if self.value is not None and not math.isfinite(self.value):
            raise InputError(f"threshold: expected a finite number, got {self.value}.")

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> "ThresholdSpec":
        number = (int, float, type(None))
        value: float | None = take(document, "value", number, "a threshold")
        bound: float | None = take(document, "false_alarm_rate_bound", number, "a threshold")
        confidence: float | None = take(document, "confidence", number, "a threshold")
        return cls(
            value=None if value is None else float(value),
            source=take(document, "source", str, "a threshold"),
            good_image_count=take(document, "good_image_count", int, "a threshold"),
            false_alarm_rate_bound=None if bound is None else float(bound),
            confidence=None if confidence is None else float(confidence),
            note=take(document, "note", str, "a threshold"),
        )


@dataclass(frozen=True, kw_only=True)
class FileSpec:
    """Size and SHA-256 (hex) of one file of a bundle."""

    sha256: str
    size_bytes: int

    def to_json(self) -> Json:
        return {"sha256": self.sha256, "bytes": self.size_bytes}

    @classmethod
    def from_json(cls, document: object) -> "FileSpec":
        return cls(sha256=take(document, "sha256", str, "a file"), size_bytes=take(document, "bytes", int, "a file"))


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Everything that manifest.json says. `files` is filled by `ndp_rt.bundle.write_bundle`."""

    name: str
    model: ModelSpec
    input: InputContract
    stages: Mapping[str, StageSpec]
    assets: Mapping[str, AssetSpec] = field(default_factory=dict)
    programs: Mapping[str, Mapping[str, Program]] = field(default_factory=dict)  # by kind of device; first its default
    decision: DecisionRules = field(default_factory=DecisionRules)
    thresholds: Mapping[str, ThresholdSpec] = field(default_factory=dict)  # by precision
    reference: Mapping[str, Any] = field(default_factory=dict)  # where the reference image came from
    golden: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)  # differences from PyTorch, measured at export
    provenance: Mapping[str, Any] = field(default_factory=dict)  # commands, seed, data, versions: free form
    files: Mapping[str, FileSpec] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the manifest as JSON values, format and version first."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "model": self.model.to_json(),
            "input": self.input.to_json(),
            "stages": {name: stage.to_json() for name, stage in self.stages.items()},
            "assets": {name: asset.to_json() for name, asset in self.assets.items()},
            "programs": {
                kind: [{"name": name, **program.to_json()} for name, program in programs.items()]
                for kind, programs in self.programs.items()
            },
            "decision": self.decision.to_json(),
            "thresholds": {name: threshold.to_json() for name, threshold in self.thresholds.items()},
            "reference": dict(self.reference),
            "golden": dict(self.golden),
            "parity": dict(self.parity),
            "provenance": dict(self.provenance),
            "files": {name: entry.to_json() for name, entry in self.files.items()},
        }

    def find_program(self, device_kind: str, name: str | None = None) -> tuple[str, Program]:
        """Return a program for "cpu" or "cuda" with its name; None: the first.

        Raises:
            InputError: the bundle has no such program.
        """
        programs = self.programs.get(device_kind, {})
        chosen = next(iter(programs), "") if name is None else name
        if chosen not in programs:
            have = " or ".join(programs) or "no program for it"
            raise InputError(f"plan on {device_kind}: expected {have}, got '{chosen}'.")
        return chosen, programs[chosen]

    def find_single_stage(self) -> str:
        """Return the stage that is a whole program on the CPU by itself.

        Raises:
            InputError: the model has none such.
        """
        programs = self.programs.get("cpu", {}).values()
        alone = [one.steps[0].engine for one in programs if len(one.steps) == 1 and one.steps[0].engine]
        if not alone:
            raise InputError(f"int8 on a CPU: expected a model with a program of one engine, got {self.name} without.")
        return alone[0]

    def find_swappable(self) -> str | None:
        """Return the asset that another image may take the place of; None where the model has none such."""
        return next((name for name, asset in self.assets.items() if asset.is_swappable), None)

    @classmethod
    def from_json(cls, document: object) -> "BundleManifest":
        """Read what `to_json` wrote, or what format version 1 says.

        Raises:
            BundleError: another format, a newer version, or an entry that is missing or of another type.
        """
        found = take(document, "format", str, "the manifest")
        if found != FORMAT:
            raise BundleError(f"manifest: expected format '{FORMAT}', got '{found}'. This is no bundle of ndp-rt.")
        version = take(document, "format_version", int, "the manifest")
        if version > FORMAT_VERSION:
            raise BundleError(
                f"manifest: expected format_version up to {FORMAT_VERSION}, got {version}. "
                "Update ndp-rt, or export the bundle with this version."
            )
        if version == 1:
            document = upgrade(document)
        try:
            return cls(
                name=take(document, "name", str, "the manifest"),
                model=ModelSpec.from_json(take(document, "model", dict, "the manifest")),
                input=InputContract.from_json(take(document, "input", dict, "the manifest")),
                **read_model(document),
                thresholds=_parse(document, "thresholds", ThresholdSpec.from_json),
                reference=take(document, "reference", dict, "the manifest"),
                golden=take(document, "golden", dict, "the manifest"),
                parity=take(document, "parity", dict, "the manifest"),
                provenance=take(document, "provenance", dict, "the manifest"),
                files=_parse(document, "files", FileSpec.from_json),
            )
        except InputError as error:
            raise BundleError(f"manifest: {error}") from error


def read_model(document: object) -> dict[str, Any]:
    """Return the arguments `stages`, `assets`, `programs` and `decision` of a BundleManifest from its JSON entries.

    Raises:
        BundleError: an entry is missing or of another type.
    """
    return {
        "stages": _parse(document, "stages", StageSpec.from_json),
        "assets": _parse(document, "assets", AssetSpec.from_json),
        "programs": _parse(document, "programs", _read_programs),
        "decision": DecisionRules.from_json(take(document, "decision", dict, "the manifest")),
    }


def _read_programs(document: object) -> dict[str, Program]:
    """Read the programs for one kind of device, in order."""
    if not isinstance(document, list):
        raise BundleError(f"manifest: programs: expected a list for each kind of device, got {document!r:.60}.")
    return {take(one, "name", str, "a program"): Program.from_json(one) for one in document}
