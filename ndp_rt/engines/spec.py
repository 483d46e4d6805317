"""`EngineSpec`: everything that decides the engines of a bundle."""

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backend import Backend, BuildOptions, EngineOptions
from ndp_rt.engines.cache import EngineKey, find_engines_dir, find_fitting_key, is_key
from ndp_rt.engines.registry import choose_backend, find_backend, find_kinds, find_version, parse_device
from ndp_rt.errors import InputError
from ndp_rt.program.manifest import INT8_PRECISIONS, PRECISIONS

CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """A choice of a bundle's engines, and how they run; what needs no bundle is checked on creation."""

    device: str = CPU  # "cpu", "cuda" (the first GPU), "cuda:N", or what another backend takes
    backend: str | None = None  # None: the device's first that is installed
    precision: str = "fp32"
    plan: str | None = None  # None: the bundle's first for the device
    batches: tuple[int, ...] | None = None  # None: 1, and those that are built already
    threads: int | None = None  # of each engine on a CPU; None: the backend chooses
    build: BuildOptions | None = None  # None: built with the defaults, and found whatever they were built with

    def __post_init__(self) -> None:
        kind = self.device_kind
        EngineOptions(threads=self.threads)
        sizes = self.batches
        if sizes is not None and (not sizes or min(sizes) < 1 or len(set(sizes)) != len(sizes)):
            raise InputError(f"expected batches of different sizes from 1, at least one, got {list(sizes)}.")
        if self.precision not in PRECISIONS and self.backend is None:
            raise InputError(f"expected a precision of {', '.join(PRECISIONS)}, got '{self.precision}'.")
        if self.backend is not None:
            backend = find_backend(self.backend)
            if kind not in find_kinds(backend):
                raise InputError(
                    f"expected device {' or '.join(backend.devices)} for backend {backend.name}, got '{self.device}'."
                )
            self._check_backend(backend)

    def _check_backend(self, backend: Backend) -> None:
        backend.check_offered(self.precision)
        takes = backend.build_options
        if self.build is not None and (takes is None or not isinstance(self.build, takes)):
            raise InputError(
                f"expected {takes.__name__ if takes else 'no build options'} for backend {backend.name}, got "
                f"{type(self.build).__name__}."
            )
        backend.check_machine(self.precision)

    @property
    def device_kind(self) -> str:
        """The kind of device: "cpu", or "cuda" for a GPU."""
        return parse_device(self.device)[0]

    @property
    def device_index(self) -> int:
        """The number of the device among those of its kind."""
        return parse_device(self.device)[1]

    @property
    def is_on_gpu(self) -> bool:
        """True if the engines run on a GPU: from typed stages, on device memory and a stream."""
        return self.device_kind != CPU

    def find_backend(self) -> Backend:
        """Return the backend, or the device's first that is installed.

        Raises:
            MissingExtraError: none is.
        """
        return choose_backend(self.device_kind) if self.backend is None else find_backend(self.backend)

    def resolve(self, bundle: Bundle, cache_dir: Path | None = None) -> "EngineSpec":
        """Return the same with everything chosen that was left open, checked against the bundle.

        Raises:
            InputError: the bundle has no such plan, or the device's default backend has no such precision.
            MissingExtraError: the backend is not installed.
        """
        backend = self.find_backend()
        find_version(backend)
        plan, program = bundle.manifest.find_program(self.device_kind, self.plan)
        if self.precision in INT8_PRECISIONS and not self.is_on_gpu and len(program.steps) > 1:
            raise InputError(
                f"expected a plan of one engine for precision {self.precision} on a CPU, where int8 layers are chosen "
                f"for it and checked in it, got '{plan}'. Take another plan, or fp32 or bf16."
            )
        chosen = dataclasses.replace(self, backend=backend.name, plan=plan)
        if self.batches is None:
            built = list_built_batches(bundle, chosen, cache_dir)
            chosen = dataclasses.replace(chosen, batches=tuple(sorted({1, *built})))
        return chosen

    def of_batch(self, batch: int, tell: Callable[[str], None] = lambda line: None) -> EngineOptions:
        """Return what the engines of one batch size are compiled and loaded for."""
        return EngineOptions(
            precision=self.precision,
            batch=batch,
            threads=self.threads,
            build=self.build,
            device_index=self.device_index,
            tell=tell,
        )

    def list_stages(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the stages of the plan, in its order."""
        return bundle.manifest.find_program(self.device_kind, self.plan)[1].stages

    def make_keys(self, bundle: Bundle) -> list[EngineKey]:
        """Return the key of every engine, batch by batch in the plan's order of stages.

        Raises:
            DeviceError: there is no such device.
        """
        backend = self.find_backend()
        named = None if self.build is None else self.build.device_facts
        facts = dict(backend.describe_device(self.device_index) if named is None else named)
        if self.build is not None:
            facts["build_options"] = self.build.traits
        return [
            EngineKey(
                bundle_fingerprint=bundle.engine_fingerprint(self.precision),
                stage=stage,
                backend=backend.name,
                backend_version=find_version(backend),
                precision=self.precision,
                batch=batch,
                **facts,
            )
            for batch in self.batches or (1,)
            for stage in self.list_stages(bundle)
        ]

    def locate_keys(self, bundle: Bundle, engines_dir: Path) -> list[EngineKey]:
        """Return the key under which each engine lies in the cache, or would be stored."""
        backend, is_any = self.find_backend(), self.build is None
        marks = frozenset(map(bundle.mark_engine, bundle.manifest.engines))
        return [
            find_fitting_key(key, engines_dir, backend.find_free_fields, any_options=is_any, marks=marks)
            for key in self.make_keys(bundle)
        ]

    def make_command(self, bundle_path: Path) -> str:
        """Return the shell command that builds these engines."""
        words = ["ndp-rt", "build-engine", str(bundle_path), "--backend", self.find_backend().name]
        words += ["--precision", self.precision, "--batch", ",".join(map(str, self.batches or (1,)))]
        words += [] if self.plan is None else ["--plan", self.plan]
        words += ["--device", self.device] if self.device_index else []
        return shlex.join(words + ([] if self.build is None else self.build.to_words()))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, for another process."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "EngineSpec":
        """Read what `to_json` and JSON made of one."""
        sizes, build = document["batches"], document["build"]
        if build is not None:
            options = find_backend(document["backend"]).build_options or BuildOptions
            build = options(**build)
        return cls(**{**document, "batches": None if sizes is None else tuple(sizes), "build": build})


def list_built_batches(bundle: Bundle, spec: EngineSpec, cache_dir: Path | None = None) -> list[int]:
    """Return the batch sizes whose engines the cache or the bundle has, ascending; imports no backend.

    Args:
        spec: its `batches` are not looked at.

    Raises:
        DeviceError: there is no such device.
        MissingExtraError: the backend is not installed.
    """
    engines_dir = find_engines_dir(cache_dir)
    first = dataclasses.replace(spec, batches=(1,)).make_keys(bundle)[0]
    pattern = re.compile(re.escape(first.family.rpartition("-b")[0]) + r"-b(\d+)-")
    try:
        names = set(os.listdir(engines_dir))
    except OSError:  # no cache yet, or one that may not be read: none of its engines can be used
        names = set()
    found = {int(match.group(1)) for match in map(pattern.match, names) if match}

    def is_built(size: int) -> bool:
        keys = dataclasses.replace(spec, batches=(size,)).locate_keys(bundle, engines_dir)
        return all(key.folder_name in names for key in keys)

    brought = [EngineKey.from_json(dict(one.key)) for one in bundle.manifest.engines.values() if is_key(one.key)]
    backend = spec.find_backend()

    def is_brought(size: int) -> bool:
        keys = dataclasses.replace(spec, batches=(size,)).make_keys(bundle)
        return all(any(made.fits(key, backend.find_free_fields(made, key)) for made in brought) for key in keys)

    sizes = sorted(found | {key.batch for key in brought})
    return [size for size in sizes if (size in found and is_built(size)) or is_brought(size)]
