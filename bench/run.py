"""`ndp-rt bench`: opens ours and the rivals, lets them take turns, and makes the record of what was measured."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ndp_rt.bench.explain import Explainer
from ndp_rt.bench.latency import import_binom
from ndp_rt.bench.measure import Series, Tell, count_all_rounds, make_row, open_process, take_turns
from ndp_rt.bench.read_records import FORMAT, FORMAT_VERSION
from ndp_rt.bench.request import BenchRequest, check_above_zero, check_same_network, list_specs
from ndp_rt.bench.rivals.base import to_image
from ndp_rt.bench.scenarios import SCENARIOS
from ndp_rt.bench.server import serve
from ndp_rt.bench.starts import measure_cold, measure_idle
from ndp_rt.bench.sweep import measure_sweep
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import OTHER_NETWORK, TimedSpec
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.devices.core_limit import count_usable_cores
from ndp_rt.errors import InputError, MissingExtraError, NdpRtError, StorageError
from ndp_rt.evaluate.machine import import_psutil
from ndp_rt.evaluate.record import Record, start_record, timing_run
from ndp_rt.files import make_temporary_folder


class Bench:
    """One run. `record` is whole at any time: an interrupted run leaves what was measured until then."""

    needs_extras = True  # SciPy and psutil; without them a record lacks bounds of percentiles and others' load

    def __init__(self, request: BenchRequest, command: str, tell: Tell) -> None:
        """Check everything that can be checked before minutes are spent.

        Raises:
            NdpRtError: a bundle, a rival, a backend or a precision that is not to be had, or a package is missing.
        """
        if self.needs_extras:
            import_binom()
            import_psutil()
        self.request = request
        self.tell = tell
        self.bundle = open_bundle(request.bundle)
        plain = None if request.plain is None else open_bundle(request.plain)
        if plain is not None:
            check_same_network(self.bundle, plain)
        self.left_out: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.rows: list[Record] = []
        self.together, self.alone = list_specs(request, self.left_out)
        self.scenario = SCENARIOS[request.scenario]
        self.bound_ms = request.latency_bound_ms
        self.explainer = Explainer(request.device, request.used_threads, tell)
        self.record = start_record(FORMAT, FORMAT_VERSION, command)
        self.record |= {
            "mode": "latency",
            "is_complete": False,
            "elapsed_s": 0.0,
            "bundle": describe_bundle(self.bundle),
            "settings": self._describe_settings(),
            "data": None if request.data is None else describe_data(request.data, request.page),
            "rows": self.rows,
            "left_out": self.left_out,
            "refused": self.refused,
            "warnings": [],
        }
        if plain is not None:
            self.record["bundle"]["plain"] = describe_bundle(plain)

    @property
    def has_figures(self) -> bool:
        """Whether anything was measured."""
        return bool(self.rows) or self.record["mode"] in self.record

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the run, and say whether it came to its end."""
        try:
            with timing_run(self.record):
                yield
        finally:
            self.record["warnings"] += self.explainer.list_warnings()

    def measure_latencies(self) -> None:
        """Fill in the rows of mode "latency"."""
        with self.running(), self.images() as paths, ExitStack() as stack:
            self.explainer.measure_ceilings([*self.together, *self.alone])
            processes = self._open(self.together, paths, stack)
            self._run_session(processes, processes)
            for spec in self.alone:
                with ExitStack() as own:
                    rivals = self._open([spec], paths, own)
                    base = [one for one in processes[:1] if one.name not in self.refused]
                    self._run_session([*base, *rivals], rivals)
            stack.close()
            self.explainer.compare_ceilings()

    def measure_cold(self) -> None:
        """Fill in `cold`, for the first of ours."""
        self.record["mode"] = "cold"
        self.record["settings"]["inside_the_clock"] = "the start of a process to its first decision"
        with self.running(), make_temporary_folder("bench") as folder:
            spec = self._first_alone()
            found = measure_cold(spec, self.bundle, write_golden_files(self.bundle, Path(folder))[0], self.tell)
            self.record["cold"] = {"name": spec.name, **found}

    def measure_idle(self, pause_s: float) -> None:
        """Fill in `idle`, for the first of ours."""
        check_above_zero("idle", pause_s)
        self.record["mode"] = "idle"
        with self.running(), self.images() as paths, open_process(self._first_alone(), paths, self.tell) as one:
            self.record["idle"] = {
                "name": one.name,
                "check": asdict(one.opened.checks[1]),
                **measure_idle(one, pause_s, self.request.seconds, self.tell),
            }

    def measure_sweep(self, axis: str) -> None:
        """Fill in `sweep`, for the first of ours."""
        self.record["mode"] = "sweep"
        with self.running():
            spec, cores = self._first_alone(), count_usable_cores()
            found = measure_sweep(axis, spec, self.bundle, cores, self.request.seconds, self.tell)
            self.record["sweep"] = {"name": spec.name, **found}

    def _first_alone(self) -> TimedSpec:
        """Return the one of ours; these modes have no rivals and one batch size.

        Raises:
            InputError: more was asked for.
        """
        request = self.request
        is_alone = len(self.together) == 1 and not self.alone and not self.left_out
        if not is_alone or request.batches != (1,) or request.scenario != "single-stream" or request.data is not None:
            raise InputError(
                "--cold, --idle and --sweep time one inspector, image by image; --against, --batch, --scenario "
                "and --data, and a second backend or precision, do not go with them. Leave these out."
            )
        return self.together[0]

    def _open(self, specs: Sequence[TimedSpec], paths: Sequence[str], stack: ExitStack) -> list[TimedProcess]:
        """Open what can be opened, until the stack closes; the others' reasons go to the record."""
        processes: list[TimedProcess] = []
        for spec in specs:
            try:
                processes.append(open_process(spec, paths, self.tell))
                stack.callback(processes[-1].close)
            except MissingExtraError as error:
                self.left_out[spec.name] = str(error)
            except NdpRtError as error:
                self.refused[spec.name] = str(error)
        return processes

    def _run_session(self, processes: Sequence[TimedProcess], wanted: Sequence[TimedProcess]) -> None:
        """Time processes in turn with each batch size, and add the rows of those that are wanted."""
        for batch in self.request.batches:
            self._run_batch(processes, batch, wanted)
        self.finish(wanted)

    def _run_batch(self, processes: Sequence[TimedProcess], batch: int, wanted: Sequence[TimedProcess]) -> None:
        """Time processes in turn and add the rows of those that are wanted, also where Ctrl-C ends it."""
        alive = [one for one in processes if one.name not in self.refused]
        found: dict[str, Series] = {}
        served: dict[str, Any] = {}
        try:
            with self.explainer.watch(alive):
                if self.scenario.name == "server":
                    self._serve(alive, batch, found, served)
                else:
                    take_turns(alive, self.scenario, batch, self.request.seconds, self.tell, found, self.refused)
        finally:
            base = next(((one.name, found[one.name]) for one in alive if found.get(one.name)), None)
            for one in wanted:
                series = found.get(one.name)
                if series is None or not series.turns:
                    continue
                is_base = base is None or base[0] == one.name or not base[1].turns
                # Under a server's load latencies are of different rates; the rates are what compares.
                other = None if is_base or self.scenario.name == "server" else base
                row = make_row(one, batch, self.scenario, series, other)
                if one.name in served:
                    row["server"] = served[one.name]
                self.explainer.explain_times(row, one)
                self.rows.append(row)

    def _serve(
        self, processes: Sequence[TimedProcess], batch: int, found: dict[str, Series], served: dict[str, Any]
    ) -> None:
        request = self.request
        for one in processes:
            try:
                series, how = serve(
                    one,
                    batch,
                    request.seconds,
                    target_qps=request.target_qps,
                    bound_ms=self.bound_ms,
                    tell=self.tell,
                )
            except NdpRtError as error:
                self.refused[one.name] = str(error)
                one.kill()
                one.close()
                continue
            self.bound_ms = how.latency_bound_ms  # the first one's holds for all: rates compare at one bound
            found[one.name], served[one.name] = series, how.to_json()

    def finish(self, processes: Sequence[TimedProcess]) -> None:
        """Add to the rows what is asked outside every clock: memory, accuracy, the stage split, the ceiling."""
        for one in (one for one in processes if one.name not in self.refused):
            rows = [row for row in self.rows if row["name"] == one.name]
            memory, accuracy = None, None
            try:
                memory = one.ask("read_peak_memory")
                accuracy = self._measure_accuracy(one)
            except NdpRtError as error:
                self.refused[one.name] = f"after it was timed: {error}"
            for row in rows:
                row["peak_memory_bytes"] = memory
                row["accuracy"] = accuracy
            self.explainer.explain_work(rows, one)

    def _measure_accuracy(self, one: TimedProcess) -> Record | None:
        if one.spec.kind == OTHER_NETWORK and one.spec.fit is None:
            reported: Record | None = one.opened.facts.get("reported")
            return reported
        if self.request.data is None:
            return None
        self.tell(f"{one.name}: accuracy on {self.request.data}")
        found: Record = one.ask("measure_accuracy", str(self.request.data), self.request.page)
        return found

    @contextmanager
    def images(self) -> Iterator[list[str]]:
        """Give the paths of the images that are timed from files; none: the golden images in memory."""
        with ExitStack() as stack:
            if not self.request.is_from_file:
                yield []
                return
            folder = Path(stack.enter_context(make_temporary_folder("bench")))
            yield write_golden_files(self.bundle, folder)

    def _describe_settings(self) -> Record:
        request = self.request
        start = "an image file" if request.is_from_file else "a uint8 image in memory"
        return {
            "device": request.device,
            "backend": ",".join(request.used_backends),
            "precision": ",".join(request.precisions),
            "threads": request.used_threads,
            "scenario": request.scenario,
            "scenario_means": self.scenario.what,
            "seconds": request.seconds,
            "batches": list(request.batches),
            "image_source": "golden images",
            "image_count": len(self.bundle.golden().image),
            "is_from_file": request.is_from_file,
            "inside_the_clock": f"{start} to the decision",
            "rounds": count_all_rounds(request.seconds),
        }


def describe_data(data: Path, page: int | None = None) -> Record:
    """Return what a record says of labelled images; `page` as for `list_labelled`.

    Raises:
        DataError: the folder has another layout.
        MissingExtraError: what accuracy is measured with is not installed.
    """
    from ndp_rt.evaluate.dataset import list_samples
    from ndp_rt.evaluate.metrics import require_extras

    require_extras()
    return {"name": data.resolve().name, "image_count": len(list_samples(data, page))}


def describe_bundle(bundle: Bundle) -> Record:
    """Return what a record says of a bundle."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "fingerprint": bundle.fingerprint,
        **manifest.model.to_json(),
        "input_px": [manifest.input.height_px, manifest.input.width_px],
    }


def write_golden_files(bundle: Bundle, folder: Path) -> list[str]:
    """Write the golden images as PNG files and return their paths.

    Raises:
        StorageError: no space.
    """
    from ndp_rt.images.opencv import cv2

    paths = []
    for index, values in enumerate(bundle.golden().image):
        path = folder / f"golden_{index:03d}.png"
        if not cv2.imwrite(str(path), to_image(values)[:, :, ::-1]):
            raise StorageError(f"{path} could not be written. Free some space, or set TMPDIR.")
        paths.append(str(path))
    return paths
