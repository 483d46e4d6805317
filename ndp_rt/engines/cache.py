"""The engine cache: one folder per engine, whose name holds a hash of its key, and which is complete or not there."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.bundle.open import BROUGHT
from ndp_rt.bundle.write import exchange, sync_folder
from ndp_rt.config import find_build_limit_s, find_cache_dir
from ndp_rt.engines.trust import check_cache, check_entry
from ndp_rt.errors import EngineError, StorageError
from ndp_rt.files import hash_file, hold_lock

ENGINE_FORMAT = "ndp-rt engine"
# 2: large convolutions by Winograd's algorithm; 3: maps enlarged by products, the first layers exact in bf16;
# 4: Winograd's algorithm for 4 x 4 and other borders too, and not for bf16 where a CPU has units for it
ENGINE_FORMAT_VERSION = 4
ENGINE_FILE = "engine.json"
PRIVATE = 0o700
# Of an engine's key; all other fields are text.
FIELD_TYPES = {"batch": int, "engine_format_version": int, "isa_flags": tuple, "build_options": tuple}
CPU_FIELDS, GPU_FIELDS = ("isa_flags",), ("compute_capability", "driver_version", "build_options")


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """Everything that an engine depends on; the number of threads is set when it is loaded."""

    bundle_fingerprint: str
    stage: str
    backend: str
    backend_version: str
    device: str  # "cpu" or "cuda"
    device_model: str
    isa_flags: tuple[str, ...] = ()  # of a CPU
    compute_capability: str = ""  # this and what follows: of a GPU
    driver_version: str = ""
    build_options: tuple[str, ...] = ()  # `ndp_rt.engines.backend.BuildOptions.traits`
    precision: str
    batch: int
    engine_format_version: int = ENGINE_FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return the key as JSON values, without what only the other kind of device has."""
        left_out = CPU_FIELDS if self.device == "cuda" else GPU_FIELDS
        document = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in document.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "EngineKey":
        """Read what `to_json` wrote; raises TypeError where it is anything else."""
        fields: dict[str, Any] = {
            n: tuple(value) if isinstance(value, list) else value for n, value in document.items()
        }
        made = cls(**fields)
        for field in dataclasses.fields(cls):
            value: Any = getattr(made, field.name)
            kind: type = FIELD_TYPES.get(field.name, str)
            words: tuple[Any, ...] = value if kind is tuple else ()
            if type(value) is not kind or any(type(one) is not str for one in words):
                raise TypeError(f"{field.name}: expected {kind.__name__}, got {value!r:.80}")
        return made

    def fits(self, wanted: "EngineKey", free: frozenset[str]) -> bool:
        """Tell whether an engine of this key can be used for `wanted`: they differ in fields of `free` at most."""
        return dataclasses.replace(self, **{name: getattr(wanted, name) for name in free}) == wanted

    @property
    def sha256(self) -> str:
        """The hash of the key as hex."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def family(self) -> str:
        """The part of the name that engines for the same purpose share, whatever version and machine made them."""
        return f"{self.bundle_fingerprint[:12]}-{self.stage}-{self.backend}-{self.precision}-b{self.batch}"

    @property
    def folder_name(self) -> str:
        return f"{self.family}-{self.sha256[:16]}"


def is_key(document: Mapping[str, Any]) -> bool:
    """Tell whether this is a key as this version of ndp-rt writes them."""
    try:
        EngineKey.from_json(document)
    except TypeError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """An engine in the cache whose files are those that were written."""

    key: EngineKey
    path: Path
    document: Mapping[str, Any]  # engine.json

    @property
    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        return {kind: dict(counts) for kind, counts in self.document["precision_by_layer_type"].items()}

    @property
    def golden(self) -> Mapping[str, float]:
        """The golden check's differences and tolerances, as measured when it was built."""
        golden: Mapping[str, float] = self.document["golden"]
        return golden


def find_engines_dir(cache_dir: Path | None) -> Path:
    """Return the folder of the engines; None takes the cache that `ndp_rt.config` finds."""
    return (cache_dir or find_cache_dir()) / "engines"


def find_entry(key: EngineKey, engines_dir: Path, rebuild_command: str) -> EngineEntry | None:
    """Return the engine of `key`, or None if there is none.

    Raises:
        EngineError: it is there but was cut short or changed (the message names `rebuild_command`), or another user
            may write to it.
    """
    folder = engines_dir / key.folder_name
    if not os.path.isdir(folder):  # unlike Path's, False in a cache that may not be read; building then says so
        return None
    check_cache(engines_dir)
    try:
        check_entry(folder)
        document = json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8"))
        problem = _find_problem(folder, document, key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{ENGINE_FILE} cannot be read ({error})"
    if problem:
        raise EngineError(f"{folder}: {problem}; it is not used. Build it again with: {rebuild_command}")
    return EngineEntry(key=key, path=folder, document=document)


def find_fitting_key(
    wanted: EngineKey,
    engines_dir: Path,
    find_free_fields: Callable[[EngineKey, EngineKey], frozenset[str]],
    *,
    any_options: bool,
    marks: frozenset[str] = frozenset(),
) -> EngineKey:
    """Return the key of an engine in the cache that fits `wanted`; `wanted` itself if there is none, or for a CPU.

    Of several, the one that may differ in the fewest fields, and then the latest.

    Args:
        wanted: what is looked for.
        engines_dir: the cache.
        find_free_fields: see `ndp_rt.engines.backend.Backend`.
        any_options: it may have been built with other options than `wanted` says.
        marks: of the engines that the bundle brings; one that came with another bundle does not fit.
    """
    if wanted.device == "cpu":
        return wanted
    found = []
    for path in engines_dir.glob(f"{wanted.family}-*/{ENGINE_FILE}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # find_entry says so of the one it is asked
            made = EngineKey.from_json(json.loads(path.read_text(encoding="utf-8"))["key"])
            free = find_free_fields(made, wanted)
            if {one for one in made.build_options if one.startswith(BROUGHT)} - marks:
                continue
            if made.fits(wanted, free | {"build_options"} if any_options else free):
                found.append((len(free), -path.stat().st_mtime_ns, made.folder_name, made))
    return min(found, key=lambda one: one[:3])[-1] if found else wanted


def _find_problem(folder: Path, document: Mapping[str, Any], key: EngineKey) -> str | None:
    """Say what is wrong with an engine's folder, or return None."""
    version = document["format_version"]
    if document["format"] != ENGINE_FORMAT or version != ENGINE_FORMAT_VERSION:
        return f"expected format version {ENGINE_FORMAT_VERSION}, got {version}"
    if document["key"] != key.to_json():
        different = [name for name, value in key.to_json().items() if document["key"].get(name) != value]
        return f"it was made for another {', '.join(different) or 'key'}"
    if not all(name in document for name in ("precision_by_layer_type", "golden")):
        return f"{ENGINE_FILE} is incomplete"
    files: Mapping[str, Mapping[str, Any]] = document["files"]
    found = {path.name for path in folder.iterdir()} - {ENGINE_FILE}
    if found != set(files):
        return f"it holds {', '.join(sorted(found)) or 'nothing'} where {', '.join(sorted(files))} were written"
    for name, entry in files.items():
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            return f"{name} has {size} bytes, {entry['bytes']} were written"
        if hash_file(folder / name) != entry["sha256"]:
            return f"{name} was changed since it was written"
    return None


def explain_absence(key: EngineKey, engines_dir: Path) -> str:
    """Say how the engines that are there for the same purpose differ from `key`; empty if there are none."""
    for folder in sorted(engines_dir.glob(f"{key.family}-*")):
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
            made = json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8"))["key"]
            different = {name: (made.get(name), value) for name, value in key.to_json().items()}
            words = [f"{name} {_word(a)} (now {_word(b)})" for name, (a, b) in different.items() if a != b]
            if words:
                return f" One is there for {', '.join(words)}."
    return ""


def _word(value: object) -> str:
    words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return words or "none"


@contextlib.contextmanager
def lock_builds(engines_dir: Path, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time build engines called `name`; the lock goes with the process, however it ends.

    Raises:
        StorageError: the cache cannot be written, or another process builds for very long.
        EngineError: another user may write to the cache.
    """
    try:
        for folder in (engines_dir.parent, engines_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    except OSError as error:
        raise cache_error(engines_dir, error) from error
    check_cache(engines_dir)
    # A process that waits for longer than half of its time has no time to build.
    with hold_lock(engines_dir / f".lock-{name}", wait_s=find_build_limit_s() / 2, on_wait=on_wait):
        yield


def make_build_folder(engines_dir: Path, name: str) -> Path:
    """Return a new empty folder to build in, after removing what killed builders of `name` left.

    The caller holds the lock of `name`, so whatever lies there has no owner.
    """
    prefix = f".tmp-{name}-"
    try:
        for leftover in engines_dir.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=engines_dir))
    except OSError as error:
        raise cache_error(engines_dir, error) from error


def write_engine_file(folder: Path, key: EngineKey, facts: Mapping[str, Any]) -> None:
    """Make a built engine's files durable and describe them in engine.json, the last file written."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("r+b") as stream:  # Windows syncs no file that is open for reading alone
            os.fsync(stream.fileno())
        files[path.name] = {"sha256": hash_file(path), "bytes": path.stat().st_size}
    document = {
        "format": ENGINE_FORMAT,
        "format_version": ENGINE_FORMAT_VERSION,
        "key": key.to_json(),
        "files": files,
        **facts,
    }
    with (folder / ENGINE_FILE).open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    folder.chmod(PRIVATE)  # whatever the umask of a program that builds in itself
    for path in folder.iterdir():
        path.chmod(PRIVATE & 0o666)
    sync_folder(folder)


def publish(folder: Path, key: EngineKey, engines_dir: Path) -> None:
    """Give a finished engine its name, in one step; a former engine of that name is removed."""
    target = engines_dir / key.folder_name
    if not target.exists():
        folder.rename(target)
    elif exchange(folder, target):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        shutil.rmtree(target)  # a kill here leaves no engine, or one that lacks files: neither is ever used
        folder.rename(target)
    sync_folder(engines_dir)


def cache_error(engines_dir: Path, error: OSError) -> StorageError:
    """Return what to raise when the cache cannot be written."""
    return StorageError(
        f"{engines_dir}: the engine cache cannot be written ({error.strerror or error}). Free some space there, or set "
        "NDP_RT_CACHE to a folder that you may write to."
    )
