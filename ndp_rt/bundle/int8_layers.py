"""Reads and writes a bundle's int8.json: its int8 layers, their largest inputs, and a report of how they were found."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndp_rt.errors import BundleError

INT8_FILE = "int8.json"
INT8_FORMAT = "ndp-rt int8 layers"
INT8_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Int8Layers:
    """The int8 layers of a network.

    A layer has the name that `ndp_rt.graphs.quantised.name_layers` gives it in every graph that has it.
    """

    limits: Mapping[str, float]  # by layer: the largest |value| of its input, which becomes 127
    chosen: Mapping[str, tuple[str, ...]]  # by precision: the layers that compute in int8 there
    report: Mapping[str, Any] = field(default_factory=dict)  # how they were chosen: free form

    def limits_of(self, precision: str) -> dict[str, float]:
        """Return the limits of the layers that compute in int8 in a precision; none where it was not chosen for."""
        return {name: self.limits[name] for name in self.chosen.get(precision, ())}

    def to_bytes(self) -> bytes:
        """Return the content of int8.json."""
        document = {
            "format": INT8_FORMAT,
            "format_version": INT8_FORMAT_VERSION,
            "limits": dict(self.limits),
            "chosen": {precision: list(names) for precision, names in self.chosen.items()},
            "report": dict(self.report),
        }
        return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def read_int8_layers(path: Path) -> Int8Layers:
    """Read int8.json.

    Raises:
        BundleError: it cannot be read, or is of another format or a newer version.
    """
    remedy = "Choose the layers again: ndp-rt quantise NAME.ndp"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document["format"], document["format_version"]
        if found != (INT8_FORMAT, INT8_FORMAT_VERSION):
            raise BundleError(
                f"{path}: expected '{INT8_FORMAT}' version {INT8_FORMAT_VERSION}, got '{found[0]}' version {found[1]}. "
                f"{remedy}"
            )
        limits = {str(name): float(value) for name, value in document["limits"].items()}
        chosen = {str(name): tuple(map(str, layers)) for name, layers in document["chosen"].items()}
        report = dict(document["report"])
    except BundleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: cannot be read ({error!r}). {remedy}") from error
    unknown = sorted({name for layers in chosen.values() for name in layers} - set(limits))
    if unknown or not all(math.isfinite(value) and value > 0.0 for value in limits.values()):
        raise BundleError(
            f"{path}: expected limits above 0, got none for {', '.join(unknown) or 'some layer'}. {remedy}"
        )
    return Int8Layers(limits=limits, chosen=chosen, report=report)
