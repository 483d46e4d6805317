"""A model as data: steps over named tensors, assets that come from images, and the rules of the decision.

Every class is plain data that reads and writes itself as JSON. `ndp_rt.bundle.programs` compares a program with
its bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ndp_rt.errors import InputError
from ndp_rt.program.json_reading import Json, JsonData, optional, take
from ndp_rt.program.tensors import TensorSpec

IMAGE, MAP = "image", "map"  # the tensor that every program reads, and the output that every program has
OWN_SCORE = "own_score"  # the tensor and output [n] that is the score, by the rule "output"
DEVICE_KINDS = ("cpu", "cuda")
SMOOTH_RULES = ("none", "mean_median")
SCORE_RULES = ("max", "top_k_mean", "output")
SMOOTH_SIZES_PX = (3, 5)

Parameter = int | float | str


@dataclass(frozen=True, kw_only=True)
class Step(JsonData):
    """One step of a program: a stage's engine, which reads and writes that stage's tensors, or an op.

    Exactly one of `engine` and `op` is set. What an op reads is a tensor or, as ASSET.TENSOR, a part of an asset.
    """

    where = "a step"

    engine: str = optional("")
    op: str = optional("")
    params: Mapping[str, Parameter] = optional(dict)
    reads: tuple[str, ...] = optional(())
    writes: tuple[str, ...] = optional(())

    def __post_init__(self) -> None:
        if bool(self.engine) == bool(self.op):
            raise InputError(f"step: expected either 'engine' or 'op', got engine '{self.engine}' and op '{self.op}'.")
        if self.engine and (self.params or self.reads or self.writes):
            raise InputError(f"step 'engine {self.engine}': expected nothing beside it; its stage lists its tensors.")

    def __str__(self) -> str:
        """Return the step's name in messages and times."""
        return f"engine {self.engine}" if self.engine else f"op {self.op} -> {', '.join(self.writes)}"

    @classmethod
    def from_json(cls, document: object) -> "Step":
        if isinstance(document, Mapping) and "engine" in document:  # what else is said of it, a later version may know
            document = {"engine": document["engine"]}
        return super().from_json(document)


@dataclass(frozen=True, kw_only=True)
class Program(JsonData):
    """The steps of a model on one kind of device, in an order in which they can run."""

    where = "a program"

    steps: tuple[Step, ...]
    outputs: Mapping[str, str]  # output -> tensor; "map" always, others where the model has them

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages whose engines the program runs, in order."""
        return tuple(step.engine for step in self.steps if step.engine)

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that the program's ops read, each once."""
        names = (name.partition(".")[0] for step in self.steps for name in step.reads if "." in name)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class AssetSpec(JsonData):
    """Tensors that come from images and not from training, such as the features of a reference image."""

    where = "an asset"

    file: str  # a safetensors file with the tensors
    tensors: Mapping[str, TensorSpec]
    # Whether another image may take its place while the model runs.
    is_swappable: bool = field(default=False, metadata={"key": "swappable"})
    picture: str | None = optional(None)  # the image that it was made from
    made_by: tuple[Step, ...] = optional(())  # the steps that make it from an image, where it is swappable
    made_from: Mapping[str, str] = optional(dict)  # asset tensor -> what these steps call it
    in_graphs: Mapping[str, Mapping[str, str]] = optional(dict)  # stage -> initializer -> asset tensor

    def to_json(self) -> Json:
        document = super().to_json()
        if self.made_by:  # both as one entry
            document["made_by"] = {"steps": document["made_by"], "tensors": document.pop("made_from", {})}
        return document

    @classmethod
    def from_json(cls, document: object) -> "AssetSpec":
        if isinstance(document, Mapping) and "made_by" in document:
            steps, tensors = (take(document["made_by"], key, object, "made_by") for key in ("steps", "tensors"))
            document = {**document, "made_by": steps, "made_from": tensors}
        return super().from_json(document)


@dataclass(frozen=True, kw_only=True)
class DecisionRules(JsonData):
    """Rules of smoothing an anomaly map, and of the score that is compared with the threshold."""

    smooth: str = "mean_median"  # "none", or the mean and then the median of size x size pixels
    smooth_size_px: int = 5
    # Of the smoothed map; "top_k_mean": the mean of its k largest values; "output": the program's output OWN_SCORE.
    score: str = "max"
    k: int = 1

    def __post_init__(self) -> None:
        if self.smooth not in SMOOTH_RULES:
            raise InputError(f"smooth rule: expected {' or '.join(SMOOTH_RULES)}, got '{self.smooth}'. Update ndp-rt.")
        if self.score not in SCORE_RULES:
            raise InputError(f"score rule: expected {' or '.join(SCORE_RULES)}, got '{self.score}'. Update ndp-rt.")
        if self.smooth_size_px not in SMOOTH_SIZES_PX:
            raise InputError(
                f"smooth size: expected {' or '.join(map(str, SMOOTH_SIZES_PX))} px, got {self.smooth_size_px}."
            )
        if self.k < 1:
            raise InputError(f"score rule top_k_mean: expected k from 1, got {self.k}.")

    def to_json(self) -> Json:
        smooth: Json = {"rule": self.smooth} | ({"size_px": self.smooth_size_px} if self.smooth != "none" else {})
        score: Json = {"rule": self.score} | ({"k": self.k} if self.score == "top_k_mean" else {})
        return {"smooth": smooth, "score": score}

    @classmethod
    def from_json(cls, document: object) -> "DecisionRules":
        smooth = take(document, "smooth", dict, "decision")
        score = take(document, "score", dict, "decision")
        return cls(
            smooth=take(smooth, "rule", str, "decision.smooth"),
            smooth_size_px=take(smooth, "size_px", int, "decision.smooth") if "size_px" in smooth else 5,
            score=take(score, "rule", str, "decision.score"),
            k=take(score, "k", int, "decision.score") if "k" in score else 1,
        )
