"""Which bundles are served, under which names and versions."""

from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from."""

    name: str
    version: str
    path: Path


def read_source(text: str) -> ModelSource:
    """Return a source from the words of a command line: PATH, NAME=PATH or NAME:VERSION=PATH.

    Raises:
        InputError: the name or the version is empty, or holds a slash.
    """
    is_path = "=" not in text or Path(text).exists()
    words, _, rest = ("", "", text) if is_path else text.partition("=")
    path = Path(rest)
    name, _, version = (path.resolve().stem, "", "") if is_path else words.partition(":")
    version = version or "1"
    if not name or "/" in name or "/" in version:
        raise InputError(f"models: expected PATH, NAME=PATH or NAME:VERSION=PATH, got {text!r}.")
    return ModelSource(name=name, version=version, path=path)
