"""The manifest of a bundle: input contract, stages, assets, programs, decision rules and thresholds.

Every class here is plain data that reads and writes itself as JSON (`JsonData`); nothing here reads a file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast, get_type_hints

from ndp_rt.config import MAX_SIDE_PX
from ndp_rt.errors import BundleError, InputError
from ndp_rt.program.json_reading import Json, JsonData, optional, take, take_as
from ndp_rt.program.program import AssetSpec, DecisionRules, Program
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.program.version1 import upgrade

FORMAT = "ndp-rt bundle"
FORMAT_VERSION = 2
HASH_ENTRY = "sha256"  # of manifest.json itself, with zeros in its place
RESIZE_RULE = "area-or-linear-v1"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8", "mixed")
# In these, chosen layers (`ndp_rt.bundle.int8_layers`) compute in int8; the others on a CPU in fp32 or bf16 ("mixed").
INT8_PRECISIONS = ("int8", "mixed")
THRESHOLD_SOURCES = ("calibrated", "manual", "none")


@dataclass(frozen=True, kw_only=True)
class InputContract(JsonData):
    """The network's input, and how an image becomes it (`ndp_rt.images.preprocess`)."""

    where = "input"

    height_px: int = 256
    width_px: int = 256
    colour: str = "rgb"
    resize: str = RESIZE_RULE
    white_level_16bit: int = 65535  # the uint16 value that becomes 1.0; larger ones are clipped

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            if not 1 <= getattr(self, name) <= MAX_SIDE_PX:
                raise InputError(f"{name}: expected 1 to {MAX_SIDE_PX}, got {getattr(self, name)!r:.80}.")
        if self.colour != "rgb" or self.resize != RESIZE_RULE:
            raise InputError(
                f"the input contract says colour '{self.colour}', resize '{self.resize}'; this version of ndp-rt knows "
                f"'rgb' and '{RESIZE_RULE}'. Update ndp-rt, or export the bundle again."
            )
        if not 1 <= self.white_level_16bit <= 65535:
            raise InputError(f"white_level_16bit: expected 1 to 65535, got {self.white_level_16bit}.")


@dataclass(frozen=True, kw_only=True)
class TrainingRange(JsonData):
    """The values that training's images have, each the 1st and the 99th percentile of an image, as shares of white."""

    where = "the training range"

    darkest: float  # the least 1st percentile
    darkest_most: float
    brightest_least: float
    brightest: float  # the largest 99th percentile


@dataclass(frozen=True, kw_only=True)
class StageSpec(JsonData):
    """A graph with its tensors, in order: an ONNX file of the bundle or, for a device, one that is derived from others.

    A derived stage merges `parts`, which feed each other by name. With `cut`, the work of that op is taken off its end,
    because a kernel does it: the stage then gives what the op reads instead of what it writes.
    """

    where = "a stage"

    file: str | None = optional(None)
    parts: tuple[str, ...] = optional(())
    cut: str | None = optional(None)
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def __post_init__(self) -> None:
        if (self.file is None) != bool(self.parts):
            raise InputError(f"a stage: expected either a file or parts, got {self.file} and {list(self.parts)}.")


@dataclass(frozen=True, kw_only=True)
class ModelSpec(JsonData):
    """The name of a bundle's network, for people. What runs is in the programs."""

    where = "model"

    family: str
    preset: str
    width: int | None = optional(None)  # channels of the first level, where the family has such a number
    rewrites: tuple[str, ...] = ()
    weights: str = "fp32"  # how weights are stored: fp32 or fp16


@dataclass(frozen=True, kw_only=True)
class ThresholdSpec(JsonData):
    """The decision threshold of one precision (a defect: score >= value), and how much it promises."""

    where = "a threshold"

    value: float | None = None  # None exactly when source is "none"
    source: str = "none"
    good_image_count: int = 0
    group_count: int | None = optional(None)  # independent groups that those images make; None: as many as images
    false_alarm_rate_bound: float | None = None  # upper bound at `confidence`; None: too few images to promise one
    confidence: float | None = None
    note: str = ""
    map_value: float | None = optional(None)  # that defects reach in the map, where the model gives its score itself

    def __post_init__(self) -> None:
        if self.source not in THRESHOLD_SOURCES:
            raise InputError(f"threshold source: expected one of {', '.join(THRESHOLD_SOURCES)}, got '{self.source}'.")
        if (self.value is None) != (self.source == "none"):
            raise InputError(f"threshold is {self.value} with source '{self.source}'; 'none' goes with None alone.")
        for value in (self.value, self.map_value):
            if value is not None and not math.isfinite(value):
                raise InputError(f"threshold: expected a finite number, got {value}.")


@dataclass(frozen=True, kw_only=True)
class FileSpec(JsonData):
    """Size and SHA-256 (hex) of one file of a bundle."""

    where = "a file"

    sha256: str
    size_bytes: int = field(metadata={"key": "bytes"})


@dataclass(frozen=True, kw_only=True)
class EngineFiles(JsonData):
    """An engine that the bundle brings along."""

    where = "an engine"

    key: Mapping[str, Any]  # what it is for: `ndp_rt.engines.cache.EngineKey`
    files: Mapping[str, str]  # the bundle's files by the names that they have in the cache


@dataclass(frozen=True, kw_only=True)
class BundleManifest(JsonData):
    """Everything that manifest.json says. `files` is filled by `ndp_rt.bundle.write_bundle`."""

    where = "the manifest"

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
    largest_score: float | None = optional(None)  # that the model's maps allow; None: not known
    training_range: TrainingRange | None = field(default=None, metadata={"is_optional": True})
    training_images: tuple[str, ...] = optional(())  # the start of the SHA-256 of each one's pixels, as hex
    engines: Mapping[str, EngineFiles] = optional(dict)  # by their names in the cache
    files: Mapping[str, FileSpec] = field(default_factory=dict)

    @property
    def engine_files(self) -> frozenset[str]:
        """The names of the files of all engines."""
        return frozenset(name for engine in self.engines.values() for name in engine.files.values())

    def __post_init__(self) -> None:
        commands = self.provenance.get("commands", [])
        if not isinstance(commands, list) or not all(isinstance(one, str) for one in commands):
            raise InputError(f"provenance.commands: expected a list of strings, got {commands!r:.80}.")
        if self.largest_score is not None and not math.isfinite(self.largest_score):
            raise InputError(f"largest_score: expected a finite number, got {self.largest_score}.")
        for name, one in self.thresholds.items():
            if one.map_value is not None and self.decision.score != "output":
                rule = self.decision.score
                raise InputError(f"{name}.map_value: expected none with the score rule '{rule}', got {one.map_value}.")

    def describe_unreachable(self, threshold: float) -> str | None:
        """Return a sentence on a threshold that no score can reach; None: one may, or it is infinity, on purpose."""
        if self.largest_score is None or not self.largest_score < threshold < math.inf:
            return None
        return (
            f"{self.name}: the threshold {threshold:.6g} is above {self.largest_score:g}, the largest score that its "
            "maps allow, so every image is called good. Set another one."
        )

    def to_json(self) -> Json:
        """Return the manifest as JSON values, format and version first."""
        programs = {
            kind: [{"name": name, **program.to_json()} for name, program in programs.items()]
            for kind, programs in self.programs.items()
        }
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **super().to_json(), "programs": programs}

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
            raise InputError(f"one graph: expected a program of one engine on the CPU, got {self.name} without.")
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
        if not 1 <= version <= FORMAT_VERSION:
            raise BundleError(
                f"manifest: expected format_version up to {FORMAT_VERSION}, got {version}. "
                "Update ndp-rt, or export the bundle with this version."
            )
        entries = set(cast(Json, document))
        unknown = sorted(entries - {"format", "format_version", *(field.name for field in fields(cls))})
        if unknown and HASH_ENTRY not in entries:  # or a bit that flips in its name would leave one without a hash
            raise BundleError(f"manifest: expected the entries that ndp-rt writes, got also {unknown!r:.80}.")
        if version == 1:
            document = upgrade(document)
        try:
            return super().from_json(_name_programs(document))
        except InputError as error:
            raise BundleError(f"manifest: {error}") from error


def read_model(document: object) -> dict[str, Any]:
    """Return the arguments `stages`, `assets`, `programs` and `decision` of a BundleManifest from its JSON entries.

    Raises:
        BundleError: an entry is missing or of another type.
    """
    types, named = get_type_hints(BundleManifest), _name_programs(document)
    entries = ("stages", "assets", "programs", "decision")
    return {name: take_as(named, name, types[name], BundleManifest.where) for name in entries}


def _name_programs(document: object) -> Json:
    """Return a manifest's entries with the programs for each kind of device by name, in order."""
    kinds: dict[str, Json] = {}
    for kind, programs in take(document, "programs", dict, BundleManifest.where).items():
        if not isinstance(programs, list):
            raise BundleError(f"manifest: programs: expected a list for each kind of device, got {programs!r:.60}.")
        kinds[kind] = {take(one, "name", str, Program.where): one for one in programs}
    return {**cast(Json, document), "programs": kinds}
