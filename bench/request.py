"""What a benchmark is asked for, and whether its two bundles hold one network."""

import difflib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ndp_rt.bench.rivals import expand, find_rival
from ndp_rt.bench.scenarios import SCENARIOS
from ndp_rt.bench.timed.spec import OTHER_NETWORK, OURS, SAME_NETWORK, TimedSpec
from ndp_rt.bundle.manifest import read_manifest
from ndp_rt.bundle.open import Bundle
from ndp_rt.devices.core_limit import count_usable_cores
from ndp_rt.engines.registry import find_backend, list_backends, parse_device
from ndp_rt.errors import InputError
from ndp_rt.program.manifest import PRECISIONS

MODEL_RUNTIMES = ("pytorch", "openvino")
SAME_ANSWERS = 1e-3  # golden maps of two exports of one network differ by float32 roundings alone


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """A benchmark; checked on creation. Times are compared with those of the first backend and precision."""

    bundle: Path
    plain: Path | None = None  # the same network exported with --no-rewrite, which rivals then run
    device: str = "cpu"
    backends: tuple[str, ...] = ()  # (): the device's first
    precisions: tuple[str, ...] = ("fp32",)
    plan: str | None = None
    threads: int | None = None  # of each that is timed; None: the usable cores
    batches: tuple[int, ...] = (1,)
    scenario: str = "single-stream"
    against: tuple[str, ...] = ()
    against_precisions: tuple[str, ...] = ()  # of rivals; (): our first
    stages: Path | None = None  # of ours on a GPU: a folder with typed stages for each precision, named by it
    models_on: str = "pytorch"
    fit: Path | None = None  # labelled images whose good training images anomalib's models are fitted to
    seconds: float = 10.0
    data: Path | None = None
    page: int | None = None  # of images of the data with several
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
                    f"--backend: expected {' or '.join(fitting)} on --device {self.device}, got '{backend}'. Choose "
                    "one of these, or another --device."
                )
        if self.plan is not None:
            check_choice("plan", self.plan, tuple(read_manifest(self.bundle).programs.get(kind, ())))
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads: expected a whole number from 1, got {self.threads}.")
        if self.scenario != "server" and (self.target_qps or self.latency_bound_ms):
            raise InputError(
                f"--target-qps and --latency-bound go with --scenario server; the scenario is {self.scenario}."
            )

    @property
    def used_threads(self) -> int | None:
        """Threads of each on a CPU; None on a GPU, where they do not count."""
        if self.threads is not None or self.device != "cpu":
            return self.threads
        return count_usable_cores()

    @property
    def used_backends(self) -> tuple[str, ...]:
        """The backends of ours by name."""
        if self.backends:
            return self.backends
        fitting = list_backends(parse_device(self.device)[0])
        installed = [name for name, one in fitting.items() if one.find().version is not None]
        return tuple((installed or list(fitting))[:1])


def check_above_zero(option: str, value: float | None) -> None:
    """Raise InputError unless value is None or a finite number above 0."""
    if value is not None and not 0.0 < value < math.inf:
        raise InputError(f"--{option}: expected a number above 0, got {value:g}.")


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless value is one of choices."""
    if value not in choices:
        close = difflib.get_close_matches(value, choices, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"--{option}: expected one of {', '.join(choices)}, got '{value}'.{hint}")


def list_specs(request: BenchRequest, left_out: dict[str, str]) -> tuple[list[TimedSpec], list[TimedSpec]]:
    """Return who takes turns together (ours and this network's rivals, ours first), and those who come one by one.

    Args:
        request: checked.
        left_out: gets those that have not the precision asked for, and those that cannot run here.

    Raises:
        InputError: an unknown rival, or none of ours has the precision.
    """
    pairs = [(backend, precision) for backend in request.used_backends for precision in request.precisions]
    ours = [spec for backend, precision in pairs for spec in make_own(request, backend, precision, left_out)]
    if not ours:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    together, alone = list(ours), list[TimedSpec]()
    for word in request.against:
        if word.split(":")[0] == OURS:
            precision = word.partition(":")[2]
            check_choice(f"against {OURS}:PRECISION", precision, PRECISIONS)
            together += make_own(request, request.used_backends[0], precision, left_out)
            continue
        if word.endswith(".ndp"):
            other = replace(request, bundle=Path(word))
            together += make_own(other, request.used_backends[0], ours[0].precision, left_out, other.bundle.stem)
            continue
        for name in expand([word], request.device.split(":")[0], request.fit):
            for precision in request.against_precisions or (ours[0].precision,):
                spec = make_rival(request, name, precision, left_out)
                if spec is not None:
                    (together if spec.kind == SAME_NETWORK else alone).append(spec)
    return unique(together), unique(alone)


def unique(specs: list[TimedSpec]) -> list[TimedSpec]:
    """Return specs without those whose name came before."""
    return list({spec.name: spec for spec in reversed(specs)}.values())[::-1]


def make_own(
    request: BenchRequest, backend: str, precision: str, left_out: dict[str, str], called: str = OURS
) -> list[TimedSpec]:
    """Return one of ours, or none where the backend has not the precision."""
    name, known = f"{called} {backend} {precision}", find_backend(backend)
    if precision not in known.precisions:
        left_out[name] = f"{backend} has no {precision}; it has {', '.join(known.precisions)}."
        return []
    spec = TimedSpec(
        name=name,
        word=OURS,
        kind=OURS,
        bundle=str(request.bundle),
        precision=precision,
        batches=list_engine_batches(request),
        device=request.device,
        backend=backend,
        plan=read_manifest(request.bundle).find_program(parse_device(request.device)[0], request.plan)[0],
        threads=request.used_threads,
        onnx_stages=None if request.stages is None else str(request.stages / precision),
    )
    return [spec]


def list_engine_batches(request: BenchRequest) -> tuple[int, ...]:
    """Return the batch sizes that each is opened with: a server also takes images one by one."""
    return tuple(sorted({*request.batches, *((1,) if request.scenario == "server" else ())}))


def make_rival(request: BenchRequest, word: str, precision: str, left_out: dict[str, str]) -> TimedSpec | None:
    """Return a rival in a precision, or else in its own first; None where it cannot run here."""
    rival = find_rival(word, request.device.split(":")[0], models_on=request.models_on, fit=request.fit)
    is_same = rival.is_same_network
    bundle = request.plain if request.plain is not None and is_same else request.bundle
    reason = rival.find() or rival.find_misfit(read_manifest(bundle))
    used = precision if precision in rival.precisions else rival.precisions[0]
    name = f"{rival.name} {used}"
    if reason is not None:
        left_out[name] = reason
        return None
    return TimedSpec(
        name=name,
        word=word,
        kind=SAME_NETWORK if is_same else OTHER_NETWORK,
        bundle=str(bundle),
        precision=used,
        batches=list_engine_batches(request),
        device=request.device,
        threads=request.used_threads,
        models_on=request.models_on,
        fit=str(request.fit) if rival.is_fitted else None,
    )


def check_same_network(rewritten: Bundle, plain: Bundle) -> None:
    """Check that `plain` holds the network of `rewritten`, and no rewrites.

    Raises:
        InputError: it holds rewrites, or another network.
    """
    if plain.manifest.model.rewrites:
        raise InputError(
            f"{plain.path.name} has the rewrites {', '.join(plain.manifest.model.rewrites)}; expected a plain bundle: "
            "ndp-rt export RUN -o PLAIN.ndp --no-rewrite."
        )
    a, b = rewritten.golden(), plain.golden()
    is_same = (
        rewritten.manifest.input == plain.manifest.input
        and a.image.shape == b.image.shape
        and np.array_equal(a.image, b.image)
        and float(np.abs(a.map - b.map).max()) <= SAME_ANSWERS
    )
    if not is_same:
        raise InputError(
            f"{rewritten.path.name} and {plain.path.name} answer differently to their golden images; two exports of "
            "one run are compared."
        )
