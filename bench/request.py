"""What a benchmark is asked for."""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.bench.contenders.spec import OURS, ContenderSpec
from ndp_rt.bench.peers import expand, find_peer
from ndp_rt.bench.peers.base import BundlePeer
from ndp_rt.bench.scenarios import SCENARIOS
from ndp_rt.bundle.manifest import read_manifest
from ndp_rt.bundle.open import open_bundle
from ndp_rt.devices.core_limit import count_usable_cores
from ndp_rt.engines.registry import find_backend, list_backends, parse_device
from ndp_rt.errors import InputError
from ndp_rt.program.manifest import PRECISIONS

MODEL_RUNTIMES = ("pytorch", "openvino")
NEEDS_PLAIN = "openvino-plain"


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """A benchmark; checked on creation. Times are compared with those of the first backend and precision."""

    bundle: Path
    plain: Path | None = None  # the same network exported with --no-rewrite, which rivals then run
    device: str = "cpu"
    backends: tuple[str, ...] = ()  # (): the device's first
    precisions: tuple[str, ...] = ("fp32",)
    plan: str | None = None
    threads: int | None = None  # of each contender; None: the usable cores
    batches: tuple[int, ...] = (1,)
    scenario: str = "single-stream"
    against: tuple[str, ...] = ()
    models_on: str = "pytorch"
    seconds: float = 10.0
    data: Path | None = None
    is_from_file: bool = False
    target_qps: float | None = None
    latency_bound_ms: float | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("seconds", self.seconds),
            ("target-qps", self.target_qps),
            ("latency-bound", self.latency_bound_ms),
        ):
            check_above_zero(name, value)
        check_choice("scenario", self.scenario, tuple(SCENARIOS))
        check_choice("models-on", self.models_on, MODEL_RUNTIMES)
        for precision in self.precisions:
            check_choice("precision", precision, PRECISIONS)
        kind, _ = parse_device(self.device)
        for backend in self.used_backends:
            find_backend(backend)
            fitting = list_backends(kind)
            if backend not in fitting:
                raise InputError(
                    f"--backend is '{backend}' and --device '{self.device}', where {' or '.join(fitting)} runs. Choose "
                    "one of these, or another --device."
                )
        if self.plan is not None:
            check_choice("plan", self.plan, tuple(read_manifest(self.bundle).programs.get(kind, ())))
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads is {self.threads}; a whole number from 1 is taken.")
        if self.scenario != "server" and (self.target_qps or self.latency_bound_ms):
            raise InputError(
                f"--target-qps and --latency-bound go with --scenario server; the scenario is {self.scenario}."
            )

    @property
    def used_threads(self) -> int | None:
        """Threads of each contender on a CPU; None on a GPU, where they do not count."""
        if self.threads is not None or self.device != "cpu":
            return self.threads
        return count_usable_cores()

    @property
    def used_backends(self) -> tuple[str, ...]:
        """The backends of our own contenders by name."""
        if self.backends:
            return self.backends
        fitting = list_backends(parse_device(self.device)[0])
        installed = [name for name, one in fitting.items() if one.find().version is not None]
        return tuple((installed or list(fitting))[:1])


def check_above_zero(option: str, value: float | None) -> None:
    """Raise InputError unless value is None or a finite number above 0."""
    if value is not None and not 0.0 < value < math.inf:
        raise InputError(f"--{option} is {value:g}; a number above 0 is taken.")


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless value is one of choices."""
    if value not in choices:
        close = difflib.get_close_matches(value, choices, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"--{option} is '{value}'; one of {', '.join(choices)} is taken.{hint}")


def list_specs(request: BenchRequest, left_out: dict[str, str]) -> tuple[list[ContenderSpec], list[ContenderSpec]]:
    """Return who takes turns together (ours and this network's rivals, ours first), and those who come one by one.

    Args:
        request: checked.
        left_out: gets those that have not the precision asked for.

    Raises:
        InputError: an unknown rival, or none of ours has the precision.
    """
    ours = list_own(request, left_out)
    if not ours:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    together, alone = list(ours), list[ContenderSpec]()
    for word in request.against:
        if word.split(":")[0] == OURS:
            together += make_own(request, request.used_backends[0], read_own_precision(word), left_out)
            continue
        for name in expand([word], request.device.split(":")[0]):
            spec = make_rival(request, name, ours[0].precision, left_out)
            if spec is not None:
                (together if spec.kind == "same network" else alone).append(spec)
    return unique(together), unique(alone)


def unique(specs: list[ContenderSpec]) -> list[ContenderSpec]:
    """Return specs without those whose name came before."""
    return list({spec.name: spec for spec in reversed(specs)}.values())[::-1]


def list_own(request: BenchRequest, left_out: dict[str, str]) -> list[ContenderSpec]:
    """Return our contenders: every backend in every precision that it has."""
    return [
        spec
        for backend in request.used_backends
        for precision in request.precisions
        for spec in make_own(request, backend, precision, left_out)
    ]


def read_own_precision(word: str) -> str:
    """Return the precision of `ndp-rt:PRECISION`."""
    _, _, precision = word.partition(":")
    if precision not in PRECISIONS:
        raise InputError(f"--against has '{word}'; {OURS}:PRECISION is taken, one of {', '.join(PRECISIONS)}.")
    return precision


def make_own(
    request: BenchRequest, backend: str, precision: str, left_out: dict[str, str]
) -> tuple[ContenderSpec, ...]:
    """Return one contender of ours, or none where the backend has not the precision."""
    name, known = f"{OURS} {backend} {precision}", find_backend(backend)
    if precision not in known.precisions:
        left_out[name] = f"{backend} has no {precision}; it has {', '.join(known.precisions)}."
        return ()
    spec = ContenderSpec(
        name=name,
        word=OURS,
        kind=OURS,
        bundle=str(request.bundle),
        precision=precision,
        batches=list_engine_batches(request),
        device=request.device,
        backend=backend,
        plan=request.plan or ("fused" if request.device == "cpu" else "staged"),
        threads=request.used_threads,
    )
    return (spec,)


def list_engine_batches(request: BenchRequest) -> tuple[int, ...]:
    """Return the batch sizes that contenders are opened with: a server also takes images one by one."""
    return tuple(sorted({*request.batches, *((1,) if request.scenario == "server" else ())}))


def make_rival(request: BenchRequest, word: str, precision: str, left_out: dict[str, str]) -> ContenderSpec | None:
    """Return a rival in our first precision, or else in its own first; None where it cannot run here."""
    peer = find_peer(word, request.device.split(":")[0], models_on=request.models_on)
    reason = peer.find()
    if word == NEEDS_PLAIN and request.plain is None and open_bundle(request.bundle).manifest.model.rewrites:
        reason = (
            f"{request.bundle.name} holds the rewritten graph. Export the run once more with ndp-rt export RUN -o "
            "PLAIN.ndp --no-rewrite, and give it with --plain PLAIN.ndp."
        )
    used = precision if precision in peer.precisions else peer.precisions[0]
    name, is_same = f"{peer.name} {used}", isinstance(peer, BundlePeer)
    if reason is not None:
        left_out[name] = reason
        return None
    return ContenderSpec(
        name=name,
        word=word,
        kind="same network" if is_same else "other network",
        bundle=str(request.plain if request.plain is not None and is_same else request.bundle),
        precision=used,
        batches=list_engine_batches(request),
        device=request.device,
        threads=request.used_threads,
        models_on=request.models_on,
    )
