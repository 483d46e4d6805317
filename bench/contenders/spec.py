"""Who takes part in a benchmark, and what is asked of it; all of it travels between processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ndp_rt.bench.peers.base import Check

OURS = "ndp-rt"
METHODS = ("decide", "decide_all", "decide_large")  # of `base.Contender`
KINDS = (OURS, "same network", "other network")


@dataclass(frozen=True, kw_only=True)
class ContenderSpec:
    """How a contender is opened."""

    name: str  # of its rows: "ndp-rt openvino bf16", "padim fp32"
    word: str  # as --against has it; OURS for an inspector of ours
    kind: str  # one of KINDS
    bundle: str  # of a rival with this network: the one that was exported plain, where it was given
    precision: str
    batches: tuple[int, ...]
    device: str = "cpu"
    backend: str | None = None
    plan: str | None = None
    threads: int | None = None
    models_on: str = "pytorch"
    is_from_file: bool = False


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a contender says of itself once it is open. `checks` has an entry for each batch size."""

    backend: str
    plan: str | None
    checks: Mapping[int, Check]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a contender was warmed up. `query_ms` is what a query then takes."""

    query_count: int
    is_stable: bool
    query_ms: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a contender does when it is its turn.

    Queries of `query_size` images, one after another, for `seconds` and one of them at least; or, with `arrivals_s`,
    one image at each of these moments, up to `batch` of those that wait together.
    """

    batch: int
    query_size: int
    seconds: float = 0.0
    method: str = "decide"  # of METHODS
    arrivals_s: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceCost:
    """What a plan of ours costs on a GPU, measured beside the turns."""

    stages_ms: Mapping[str, float]  # an image's
    source: str  # how they were measured
    launch_ms: float  # the host's, for a run
    memory_bytes: int  # engines and buffers


@dataclass(frozen=True, kw_only=True)
class TurnTimes:
    """What a turn took. With "decide_all", `latencies_ms` are a query's time over its images."""

    latencies_ms: list[float]
    image_count: int
    elapsed_s: float
    parts_ms: Mapping[str, float]  # an image's, the mean over the turn, as the contender tells them apart
