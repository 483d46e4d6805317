"""`ndp-rt bench capi`: measures one part after the other, and makes the record of what was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.bench.capi.calls import measure_calls, measure_start, measure_submit, measure_timings
from ndp_rt.bench.capi.crowd import MOST_THREADS, measure_threads
from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.host import HostProgram, build_host
from ndp_rt.bench.capi.soak import measure_soak
from ndp_rt.bench.conditions import Watch
from ndp_rt.bench.measure import Tell
from ndp_rt.bench.request import check_above_zero
from ndp_rt.bench.run import describe_bundle
from ndp_rt.bundle.open import open_bundle
from ndp_rt.devices.core_limit import count_usable_cores
from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.evaluate.record import Record, start_record, timing_run
from ndp_rt.files import make_temporary_folder

SIMPLE_PARTS = {"calls": measure_calls, "timings": measure_timings, "submit": measure_submit, "start": measure_start}
MIN_CALL_COUNT = 2 * MOST_THREADS
FORMAT, FORMAT_VERSION = "ndp-rt bench capi", 1
PARTS = ("calls", "timings", "submit", "start", "threads", "soak")


@dataclass(frozen=True, kw_only=True)
class CapiRequest:
    """What is to be measured; checked on creation."""

    bundle: Path
    seconds: float = 10.0  # of each case in each process
    call_count: int = 100_000  # of the part "threads"
    soak_s: float | None = None
    only: tuple[str, ...] = ()  # (): all of PARTS, the soak where `soak_s` is given

    def __post_init__(self) -> None:
        check_above_zero("seconds", self.seconds)
        check_above_zero("soak", self.soak_s)
        if self.call_count < MIN_CALL_COUNT:
            raise InputError(f"--calls: expected a whole number from {MIN_CALL_COUNT}, got {self.call_count}.")
        for name in self.only:
            if name not in PARTS:
                raise InputError(f"--only: expected some of {', '.join(PARTS)}, got '{name}'.")
        if "soak" in self.only and self.soak_s is None:
            raise InputError("--only soak needs --soak S: for how many seconds, such as 3600.")

    @property
    def parts(self) -> tuple[str, ...]:
        wanted = self.only or tuple(name for name in PARTS if name != "soak" or self.soak_s is not None)
        return tuple(name for name in PARTS if name in wanted)


class CapiBench:
    """One run. `record` is whole at any time: an interrupted run leaves what was measured until then."""

    def __init__(self, request: CapiRequest, command: str, tell: Tell) -> None:
        """Open the bundle.

        Raises:
            BundleError: it is missing or damaged.
        """
        self.request = request
        self.tell = tell
        self.bundle = open_bundle(request.bundle)
        self.figures: list[Figure] = []
        self.failures: dict[str, str] = {}
        self.record = start_record(FORMAT, FORMAT_VERSION, command) | {
            "is_complete": False,
            "elapsed_s": 0.0,
            "bundle": describe_bundle(self.bundle),
            "settings": {
                "device": "cpu",
                "precision": "fp32",
                "core_count": count_usable_cores(),
                "seconds": request.seconds,
                "calls": request.call_count,
                "soak_s": request.soak_s,
                "parts": list(request.parts),
            },
            "parts": {},
            "figures": [],
            "failures": self.failures,
        }

    @property
    def has_figures(self) -> bool:
        """Whether anything was measured."""
        return bool(self.record["parts"])

    def measure(self) -> None:
        """Measure the parts; one that fails is named in `failures`, and the others go on.

        Raises:
            MissingExtraError: there is no compiler.
            EngineError: the compiler fails.
        """
        with timing_run(self.record), make_temporary_folder("bench-capi") as folder:
            self.tell("compiling the library and the host")
            host = build_host(Path(folder))
            self.record["host"] = host.describe()
            for name in self.request.parts:
                pictures = Path(folder) / name
                pictures.mkdir()
                found: Record = {}
                self.record["parts"][name] = found
                try:
                    with self._watching(found):
                        self.figures += self._measure_part(name, host, pictures, found)
                except NdpRtError as error:
                    self.failures[name] = str(error)
                finally:
                    self.record["figures"] = [figure.to_json() for figure in self.figures]

    def _measure_part(self, name: str, host: HostProgram, folder: Path, found: Record) -> list[Figure]:
        seconds, bundle = self.request.seconds, self.bundle
        if name == "soak":
            assert self.request.soak_s is not None  # else it is no part
            return measure_soak(host, bundle, self.request.soak_s, folder, self.tell, found)
        if name == "threads":
            return measure_threads(host, bundle, seconds, self.request.call_count, folder, self.tell, found)
        return SIMPLE_PARTS[name](host, bundle, seconds, folder, self.tell, found)

    @contextmanager
    def _watching(self, found: Record) -> Iterator[None]:
        """Note what else the machine did meanwhile, and what may falsify the part's times."""
        watch = Watch()
        try:
            with watch:
                yield
        finally:
            found["other_load_cores"], found["steal_cores"] = watch.other_load_cores, watch.steal_cores
            found["warnings"] = watch.list_warnings(count_usable_cores())
