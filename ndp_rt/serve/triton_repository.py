"""A model repository of NVIDIA Triton: a folder for each bundle, with its configuration and the bundle itself."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.errors import InputError, StorageError
from ndp_rt.files import storing
from ndp_rt.serve.protocol import ENCODED, IMAGE, OUTPUTS
from ndp_rt.serve.sources import ModelSource
from ndp_rt.serve.triton_model import BUNDLE

TYPES = {name: f"TYPE_{name}" for name in ("UINT8", "FP64", "FP32", "BOOL")} | {"BYTES": "TYPE_STRING"}
PRIORITY_COUNT, DEFAULT_PRIORITY = 3, 2
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MODEL_FILE = '''\
"""Written by `ndp-rt export-triton`: the Python of Triton's backend needs ndp-rt."""

from ndp_rt.serve.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton runs a model.

    Attributes:
        engine: backend, precision, plan and threads that were chosen, as texts.
        is_gpu: an instance on each GPU instead of the CPU.
        instance_count: processes of a model, on each GPU or the CPU.
        batch_count: images of a batch at most.
        queue_count: requests that may wait.
        delay_us: that a request may wait for others to be batched with.
        timeout_ms: after which a request that waits is refused; requests may name a shorter one. 0: no limit.
        environment: packed Python environment for Triton's containers (EXECUTION_ENV_PATH); None: Triton's own Python.
    """

    engine: Mapping[str, str] = field(default_factory=dict)
    is_gpu: bool = False
    instance_count: int = 1
    batch_count: int = 32
    queue_count: int = 64
    delay_us: int = 0
    timeout_ms: int = 0
    environment: str | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("instance_count", 1),
            ("batch_count", 1),
            ("queue_count", 1),
            ("delay_us", 0),
            ("timeout_ms", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected a number from {least} on, got {getattr(self, name)}.")


def write_repository(sources: Sequence[ModelSource], target: Path, options: TritonOptions) -> list[Path]:
    """Write a repository and return the models' folders.

    Args:
        sources: bundles, with names and versions as Triton has them; of one name all versions share a configuration.
        target: a new folder, or one without these models.
        options: of every model.

    Raises:
        InputError: a name or version that Triton does not take, or one twice.
        BundleError: one is no bundle.
        StorageError: a model is there already, or cannot be written.
    """
    for source in sources:
        if NAME.fullmatch(source.name) is None or not source.version.isdecimal() or int(source.version) < 1:
            raise InputError(
                f"models: expected names of letters, digits and ._- and versions from 1 on, got '{source.name}' "
                f"{source.version}. Name it: NAME:VERSION=PATH."
            )
    names = [(source.name, int(source.version)) for source in sources]
    if len(set(names)) < len(names):
        raise InputError("models: expected each name and version once. Name them: NAME:VERSION=PATH.")
    bundles = [open_bundle(source.path) for source in sources]
    folders = {name: target / name for name, _ in names}
    for folder in folders.values():
        if folder.exists():
            raise StorageError(
                f"{folder}: expected no model of that name, got one. Remove it, or choose another folder."
            )
    for source, bundle in zip(sources, bundles, strict=True):
        version = folders[source.name] / str(int(source.version))
        with storing(version):
            version.mkdir(parents=True)
            (version / "model.py").write_text(MODEL_FILE)
            shutil.copytree(bundle.path, version / BUNDLE)
            (folders[source.name] / "config.pbtxt").write_text(describe_model(source.name, bundle, options))
    return list(folders.values())


def describe_model(name: str, bundle: Bundle, options: TritonOptions) -> str:
    """Return a model's configuration as Triton's text of a ModelConfig."""
    height, width = bundle.manifest.input.height_px, bundle.manifest.input.width_px
    parameters = dict(options.engine)
    if options.environment is not None:
        parameters["EXECUTION_ENV_PATH"] = options.environment
    queue = [f"max_queue_size: {options.queue_count}", "timeout_action: REJECT", "allow_timeout_override: true"]
    if options.timeout_ms:
        queue.append(f"default_timeout_microseconds: {options.timeout_ms * 1000}")
    outputs = {key: (kind, [-1] * (len(shape) - 1) or [1]) for key, (kind, shape) in OUTPUTS.items()}
    shape = f"dims: [ {height}, {width}, 3 ]"
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "python"',
            f"max_batch_size: {options.batch_count}",
            "version_policy { all {} }",
            _describe_tensor("input", IMAGE, "UINT8", [-1, -1, -1], is_optional=True),
            _describe_tensor("input", ENCODED, "BYTES", [1], is_optional=True),
            *(_describe_tensor("output", key, kind, dims) for key, (kind, dims) in outputs.items()),
            f"instance_group [ {{ count: {options.instance_count} kind: KIND_{'GPU' if options.is_gpu else 'CPU'} }} ]",
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {options.delay_us}",
            f"  priority_levels: {PRIORITY_COUNT}",
            f"  default_priority_level: {DEFAULT_PRIORITY}",
            f"  default_queue_policy {{ {' '.join(queue)} }}",
            "}",
            "model_warmup [ {",
            '  name: "an even image" batch_size: 1',
            f'  inputs {{ key: "{IMAGE}" value {{ data_type: TYPE_UINT8 {shape} zero_data: true }} }}',
            "} ]",
            *(
                f'parameters {{ key: "{key}" value {{ string_value: "{_escape(text)}" }} }}'
                for key, text in parameters.items()
            ),
            "",
        ]
    )


def _describe_tensor(word: str, name: str, kind: str, dims: Sequence[int], *, is_optional: bool = False) -> str:
    optional = " optional: true" if is_optional else ""
    return f'{word} [ {{ name: "{name}" data_type: {TYPES[kind]} dims: [ {", ".join(map(str, dims))} ]{optional} }} ]'


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
