"""A model as data: steps over named tensors, assets that come from images, and the rules of the decision.

Every class is plain data with `to_json` and `from_json`; `ndp_rt.program.check` holds a program against its bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ndp_rt.errors import InputError
from ndp_rt.program.json_reading import Json, take
from ndp_rt.program.tensors import TensorSpec

IMAGE, MAP = "image", "map"  # the tensor that every program reads, and the output that every program has
DEVICE_KINDS = ("cpu", "cuda")
SMOOTH_RULES = ("none", "mean_median")
SCORE_RULES = ("max", "top_k_mean")
SMOOTH_SIZES_PX = (3, 5)

Parameter = int | float | str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a program: a stage's engine, which reads and writes that stage's tensors, or an op.

    Exactly one of `engine` and `op` is set. What an op reads is a tensor or, as ASSET.TENSOR, a part of an asset.
    """

    engine: str = ""
    op: str = ""
    params: Mapping[str, Parameter] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.engine) == bool(self.op):
            raise InputError(f"step: expected either 'engine' or 'op', got engine '{self.engine}' and op '{self.op}'.")
        if self.engine and (self.params or self.reads or self.writes):
            raise InputError(f"step 'engine {self.engine}': expected nothing beside it; its stage lists its tensors.")

    def __str__(self) -> str:
        """Return the step's name in messages and times."""
        return f"engine {self.engine}" if self.engine else f"op {self.op} -> {', '.join(self.writes)}"

    def to_json(self) -> Json:
        if self.engine:
            return {"engine": self.engine}
        params = {"params": dict(self.params)} if self.params else {}
        return {"op": self.op, **params, "reads": list(self.reads), "writes": list(self.writes)}

    @classmethod
    def from_json(cls, document: object) -> "Step":
        if isinstance(document, Mapping) and "engine" in document:
            return cls(engine=take(document, "engine", str, "a step"))
        return cls(
            op=take(document, "op", str, "a step"),
            params=take(document, "params", dict, "a step") if "params" in take_keys(document) else {},
            reads=_take_names(document, "reads"),
            writes=_take_names(document, "writes"),
        )


@dataclass(frozen=True, kw_only=True)
class Program:
    """The steps of a model on one kind of device, in an order in which they can run."""

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

    def to_json(self) -> Json:
        return {"steps": [step.to_json() for step in self.steps], "outputs": dict(self.outputs)}

    @classmethod
    def from_json(cls, document: object) -> "Program":
        outputs = take(document, "outputs", dict, "a program")
        return cls(
            steps=tuple(Step.from_json(one) for one in take(document, "steps", list, "a program")),
            outputs={str(name): str(tensor) for name, tensor in outputs.items()},
        )


@dataclass(frozen=True, kw_only=True)
class AssetSpec:
    """Tensors that come from images and not from training, such as the features of a reference image."""

    file: str  # a safetensors file with the tensors
    tensors: Mapping[str, TensorSpec]
    is_swappable: bool = False  # whether another image may take its place while the model runs
    picture: str | None = None  # the image that it was made from
    made_by: tuple[Step, ...] = ()  # the steps that make it from an image, where it is swappable
    made_from: Mapping[str, str] = field(default_factory=dict)  # asset tensor -> what these steps call it
    in_graphs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # stage -> initializer -> asset tensor

    def to_json(self) -> Json:
        document: Json = {
            "file": self.file,
            "tensors": {name: spec.to_dims() for name, spec in self.tensors.items()},
            "swappable": self.is_swappable,
        }
        if self.picture is not None:
            document["picture"] = self.picture
        if self.made_by:
            steps = [step.to_json() for step in self.made_by]
            document["made_by"] = {"steps": steps, "tensors": dict(self.made_from)}
        if self.in_graphs:
            document["in_graphs"] = {stage: dict(names) for stage, names in self.in_graphs.items()}
        return document

    @classmethod
    def from_json(cls, document: object) -> "AssetSpec":
        keys = take_keys(document)
        tensors = take(document, "tensors", dict, "an asset")
        making = take(document, "made_by", dict, "an asset") if "made_by" in keys else {"steps": [], "tensors": {}}
        graphs = take(document, "in_graphs", dict, "an asset") if "in_graphs" in keys else {}
        return cls(
            file=take(document, "file", str, "an asset"),
            tensors={name: TensorSpec.from_dims(name, dims) for name, dims in tensors.items()},
            is_swappable=take(document, "swappable", bool, "an asset"),
            picture=take(document, "picture", str, "an asset") if "picture" in keys else None,
            made_by=tuple(Step.from_json(one) for one in take(making, "steps", list, "made_by")),
            made_from={str(name): str(tensor) for name, tensor in take(making, "tensors", dict, "made_by").items()},
            in_graphs={stage: take(graphs, stage, dict, "in_graphs") for stage in graphs},
        )


@dataclass(frozen=True, kw_only=True)
class DecisionRules:
    """How an anomaly map is smoothed, and how it becomes the score that is compared with the threshold."""

    smooth: str = "mean_median"  # "none", or the mean and then the median of size x size pixels
    smooth_size_px: int = 5
    score: str = "max"  # of the smoothed map; "top_k_mean": the mean of its k largest values
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


def take_keys(document: object) -> Sequence[str]:
    """Return the keys of a JSON object, none of anything else."""
    return list(document) if isinstance(document, Mapping) else []


def _take_names(document: object, key: str) -> tuple[str, ...]:
    return tuple(str(name) for name in take(document, key, list, "a step"))
