"""What a bundle says about itself: the input contract, stages, thresholds and the manifest that holds them.

Every class here is plain data with `to_json` and `from_json`; nothing here reads a file.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ndp_rt.errors import BundleError, InputError

FORMAT = "ndp-rt bundle"
FORMAT_VERSION = 1
RESIZE_RULE = "area-or-linear-v1"
SIZE_STEP_PX = 64  # level 5 is 1/16 of the input and is cut into patches of up to 4
FAMILIES = ("ndpnet",)
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8", "mixed")
# In these, chosen layers (`ndp_rt.bundle.int8_layers`) compute in int8; the others on a CPU in fp32 or bf16 ("mixed").
INT8_PRECISIONS = ("int8", "mixed")
THRESHOLD_SOURCES = ("calibrated", "manual", "none")
STAGES = ("encoder", "decoder", "head", "segmentation", "fused")
# The stages whose engines each plan runs.
PLAN_STAGES = {"fused": ("fused",), "staged": ("encoder", "decoder", "head", "segmentation")}
# The same on a GPU, each cut before the levels' maps are fused, because that and smoothing are kernels of ours.
# "tail" is decoder, head and segmentation in one; "unmerged" is what it is measured against.
GPU_PLAN_STAGES = {
    "staged": ("encoder", "tail"),
    "unmerged": ("encoder", "decoder", "head", "segmentation"),
    "fused": ("fused",),
}

Json = dict[str, Any]
_Value = TypeVar("_Value")


def _take(document: object, key: str, kind: type[_Value] | tuple[type[_Value], ...], where: str) -> _Value:
    """Return document[key], which must be there and be of `kind` (a bool never passes as a number)."""
    if not isinstance(document, Mapping) or key not in document:
        raise BundleError(f"manifest: {where} has no '{key}'; format version {FORMAT_VERSION} needs it. Export again.")
    value = document[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise BundleError(f"manifest: {where}.{key} is {type(value).__name__} {value!r:.60}; {names} is taken.")
    return value


def _parse(document: object, key: str, parse: Callable[[object], _Value]) -> dict[str, _Value]:
    """Return the entries of the object document[key], each parsed."""
    entries: Mapping[str, object] = _take(document, key, dict, "the manifest")
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
            value = getattr(self, name)
            if value < SIZE_STEP_PX or value % SIZE_STEP_PX:
                raise InputError(f"{name} is {value}; multiples of {SIZE_STEP_PX}, from {SIZE_STEP_PX}, are taken.")
        if self.colour != "rgb" or self.resize != RESIZE_RULE:
            raise InputError(
                f"the input contract says colour '{self.colour}', resize '{self.resize}'; this version of ndp-rt knows "
                f"'rgb' and '{RESIZE_RULE}'. Update ndp-rt, or export the bundle again."
            )
        if not 1 <= self.white_level_16bit <= 65535:
            raise InputError(f"white_level_16bit is {self.white_level_16bit}; 1 to 65535 is taken.")

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> "InputContract":
        return cls(
            height_px=_take(document, "height_px", int, "input"),
            width_px=_take(document, "width_px", int, "input"),
            colour=_take(document, "colour", str, "input"),
            resize=_take(document, "resize", str, "input"),
            white_level_16bit=_take(document, "white_level_16bit", int, "input"),
        )


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor's name, shape and type; None in the shape is the batch axis, which may have any length from 1."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def with_batch(self, count: int) -> tuple[int, ...]:
        """Return the shape with the batch axis set to `count`."""
        return tuple(count if size is None else size for size in self.shape)

    @classmethod
    def from_dims(cls, name: str, dims: object) -> "TensorSpec":
        """Read manifest dims such as ["n", 3, 256, 256]."""
        if not isinstance(dims, list) or not all(d == "n" or (type(d) is int and d > 0) for d in dims):
            raise BundleError(f"manifest: tensor '{name}' has dims {dims!r:.80}; a list of 'n' and sizes is taken.")
        return cls(name=name, shape=tuple(None if d == "n" else int(d) for d in dims))

    def to_dims(self) -> list[str | int]:
        return ["n" if size is None else size for size in self.shape]


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One ONNX file of a bundle with its tensors, in order."""

    file: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def to_json(self) -> Json:
        return {
            "file": self.file,
            "inputs": {name: spec.to_dims() for name, spec in self.inputs.items()},
            "outputs": {name: spec.to_dims() for name, spec in self.outputs.items()},
        }

    @classmethod
    def from_json(cls, document: object) -> "StageSpec":
        inputs, outputs = (_take(document, key, dict, "a stage") for key in ("inputs", "outputs"))
        return cls(
            file=_take(document, "file", str, "a stage"),
            inputs={name: TensorSpec.from_dims(name, dims) for name, dims in inputs.items()},
            outputs={name: TensorSpec.from_dims(name, dims) for name, dims in outputs.items()},
        )


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which network a bundle holds."""

    family: str = "ndpnet"
    preset: str
    width: int
    rewrites: tuple[str, ...] = ()
    weights: str = "fp32"  # how weights are stored: fp32 or fp16

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise InputError(f"the model's family is '{self.family}'; this ndp-rt runs {known}. Update ndp-rt.")

    def to_json(self) -> Json:
        return {**dataclasses.asdict(self), "rewrites": list(self.rewrites)}

    @classmethod
    def from_json(cls, document: object) -> "ModelSpec":
        return cls(
            family=_take(document, "family", str, "model"),
            preset=_take(document, "preset", str, "model"),
            width=_take(document, "width", int, "model"),
            rewrites=tuple(str(name) for name in _take(document, "rewrites", list, "model")),
            weights=_take(document, "weights", str, "model"),
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
            raise InputError(f"threshold source is '{self.source}'; one of {', '.join(THRESHOLD_SOURCES)} is taken.")
        if (self.value is None) != (self.source == "none"):
            raise InputError(f"threshold is {self.value} with source '{self.source}'; 'none' goes with None alone.")
        if self.value is not None and not math.isfinite(self.value):
            raise InputError(f"threshold is {self.value}; a finite number is taken.")

    def to_json(self) -> Json:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> "ThresholdSpec":
        number = (int, float, type(None))
        value: float | None = _take(document, "value", number, "a threshold")
        bound: float | None = _take(document, "false_alarm_rate_bound", number, "a threshold")
        confidence: float | None = _take(document, "confidence", number, "a threshold")
        return cls(
            value=None if value is None else float(value),
            source=_take(document, "source", str, "a threshold"),
            good_image_count=_take(document, "good_image_count", int, "a threshold"),
            false_alarm_rate_bound=None if bound is None else float(bound),
            confidence=None if confidence is None else float(confidence),
            note=_take(document, "note", str, "a threshold"),
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
        return cls(sha256=_take(document, "sha256", str, "a file"), size_bytes=_take(document, "bytes", int, "a file"))


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Everything that manifest.json says. `files` is filled by `ndp_rt.bundle.write_bundle`."""

    name: str
    model: ModelSpec
    input: InputContract
    stages: Mapping[str, StageSpec]
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
            "thresholds": {name: threshold.to_json() for name, threshold in self.thresholds.items()},
            "reference": dict(self.reference),
            "golden": dict(self.golden),
            "parity": dict(self.parity),
            "provenance": dict(self.provenance),
            "files": {name: entry.to_json() for name, entry in self.files.items()},
        }

    @classmethod
    def from_json(cls, document: object) -> "BundleManifest":
        """Read what `to_json` wrote.

        Raises:
            BundleError: another format, a newer version, or an entry that is missing or of another type.
        """
        found = _take(document, "format", str, "the manifest")
        if found != FORMAT:
            raise BundleError(f"manifest: format is '{found}'; '{FORMAT}' is taken. This is no bundle of ndp-rt.")
        version = _take(document, "format_version", int, "the manifest")
        if version > FORMAT_VERSION:
            raise BundleError(
                f"manifest: format_version is {version}; this ndp-rt reads up to {FORMAT_VERSION}. "
                "Update ndp-rt, or export the bundle with this version."
            )
        try:
            return cls(
                name=_take(document, "name", str, "the manifest"),
                model=ModelSpec.from_json(_take(document, "model", dict, "the manifest")),
                input=InputContract.from_json(_take(document, "input", dict, "the manifest")),
                stages=_parse(document, "stages", StageSpec.from_json),
                thresholds=_parse(document, "thresholds", ThresholdSpec.from_json),
                reference=_take(document, "reference", dict, "the manifest"),
                golden=_take(document, "golden", dict, "the manifest"),
                parity=_take(document, "parity", dict, "the manifest"),
                provenance=_take(document, "provenance", dict, "the manifest"),
                files=_parse(document, "files", FileSpec.from_json),
            )
        except InputError as error:
            raise BundleError(f"manifest: {error}") from error
