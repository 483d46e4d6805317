"""What an import is told, and what it says of a model; needs no onnx."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.errors import InputError

COLOURS = ("rgb", "bgr", "grey")
SOURCES = ("anomalib",)
UINT8 = 2  # of onnx.TensorProto
DIFFERENCE = "difference:"


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a model expects its image's values."""

    colour: str = "rgb"
    scale: int = 1  # what white is: 1 or 255
    mean: tuple[float, ...] = ()  # subtracted after scaling, for each channel; none: nothing
    std: tuple[float, ...] = ()  # divided by then

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise InputError(f"colour: expected {', '.join(COLOURS)}, got '{self.colour}'.")
        if self.scale not in (1, 255):
            raise InputError(f"scale: expected 1 or 255, what white is, got {self.scale}.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not np.isfinite(values).all() or len(values) not in (0, 1, 3):
                raise InputError(f"{name}: expected 1 or 3 finite numbers, got {', '.join(map(str, values))}.")
        if any(value <= 0 for value in self.std):
            raise InputError(f"std: expected numbers above 0, got {', '.join(map(str, self.std))}.")


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What an import is told; what is None is found out.

    Attributes:
        image, map, score: names of the model's input and outputs; `score` may also be "max" or "top_k_mean:K", of the
            map, and `map` "difference:OUTPUT": how far a picture that the model makes is from its image.
        size_px: height and width, where the model leaves them open.
        layout: "nchw" or "nhwc".
        convention: colour, scale, mean and standard deviation that the model expects.
        source: "anomalib": the end of its exports, normalised and clipped, is taken off.
        golden: a folder of images to make golden vectors of; None: noise.
        overwrite: replace a bundle of that name.
        command: for the provenance.

    Examples:
        >>> ImportSettings(source="anomalib", convention=Convention(colour="bgr", scale=255)).score is None
        True
    """

    image: str | None = None
    map: str | None = None
    score: str | None = None
    size_px: tuple[int, int] | None = None
    layout: str | None = None
    convention: Convention = field(default_factory=Convention)
    source: str | None = None
    golden: Path | None = None
    overwrite: bool = False
    command: str = "ndp_rt.import_onnx"

    def __post_init__(self) -> None:
        if self.source not in (None, *SOURCES):
            raise InputError(f"source: expected {' or '.join(SOURCES)}, got '{self.source}'.")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "golden": None if self.golden is None else str(self.golden.absolute())}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ImportSettings":
        """Read what `to_json` wrote."""
        given, golden, size = document["convention"], document["golden"], document["size_px"]
        convention: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
        }
        changed: dict[str, Any] = {
            "convention": Convention(**convention),
            "golden": None if golden is None else Path(golden),
            "size_px": None if size is None else tuple(size),
        }
        return cls(**{**document, **changed})


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """A model's image: how it is called, and what it is like."""

    name: str
    kind: int  # of onnx.TensorProto: 1 is float32, 2 is uint8
    layout: str  # "nchw" or "nhwc"
    channels: int
    height_px: int
    width_px: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        return np.dtype(np.uint8 if self.kind == UINT8 else np.float32)

    def make_shape(self, n: int) -> tuple[int, ...]:
        """Return its four sizes for so many images, in its own layout."""
        h, w, c = self.height_px, self.width_px, self.channels
        return (n, c, h, w) if self.layout == "nchw" else (n, h, w, c)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was made of a model."""

    image: ImageInput
    result: str  # the output that the map was made of
    map_size_px: tuple[int, int]
    is_score_alone: bool
    rules: Mapping[str, Any]  # of `ndp_rt.program.program.DecisionRules`
    removed: tuple[str, ...]  # steps that were taken off the end, the last first
    unused: tuple[str, ...]  # the other outputs, in words
    score_difference: float | None  # of the model's own score from the map's, at most; None: it has none beside a map
    batches: bool  # whether it takes several images at once

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Made":
        """Read what `dataclasses.asdict` gave and JSON carried."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
        }
        values["image"] = ImageInput(**document["image"])
        return cls(**values)
