"""What stands beside a time: the work it was, what the machine could do, and what may falsify it."""

import contextlib
from collections.abc import Sequence
from typing import Any

from ndp_rt.bench.conditions import Watch, warn_bound, warn_oversubscribed, warn_throttled, warn_unstable
from ndp_rt.bench.measure import Tell
from ndp_rt.bench.scenarios import MULTI_STREAM_IMAGE_COUNT
from ndp_rt.bench.timed.probe import find_ceiling_backend
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import OTHER_NETWORK, OURS, TimedSpec
from ndp_rt.devices.core_limit import count_usable_cores
from ndp_rt.errors import MissingExtraError, NdpRtError
from ndp_rt.evaluate.machine import import_psutil
from ndp_rt.evaluate.record import Record


class Explainer:
    """Measures ceilings before and after a run, watches the machine meanwhile, and fills in rows.

    What it cannot find out is left out of the row, with a sentence in `list_warnings`: a time is not lost for it.
    """

    def __init__(self, device: str, threads: int | None, tell: Tell) -> None:
        """Take the run's device and threads; nothing is measured yet."""
        self._device = device
        self._threads = threads
        self._tell = tell
        self._core_count = count_usable_cores()
        self._warnings: list[str] = []
        self.ceilings: dict[tuple[str, str], Record | None] = {}
        self._work: dict[tuple[str, str, int], Record | None] = {}
        self._copy_gbyte_per_s: float | None = None
        self._first: tuple[str, str] | None = None
        self._watch: Watch | None = None

    def measure_ceilings(self, specs: Sequence[TimedSpec]) -> None:
        """Measure the ceiling of every backend and precision of a run before it begins."""
        with TimedProcess() as process:
            if self._device == "cpu":
                self._copy_gbyte_per_s = self._ask(process, "copying", "measure_copy", self._core_count)
            for spec in specs:
                backend = find_ceiling_backend(spec)
                key = (backend or "", spec.precision)
                if backend is None or key in self.ceilings:
                    continue
                self.ceilings[key] = self._measure_ceiling(process, *key)
                self._first = self._first or (key if self.ceilings[key] else None)

    def compare_ceilings(self) -> None:
        """Measure the first ceiling again after the run, and warn if it fell."""
        before = None if self._first is None else self.ceilings[self._first]
        if self._first is None or before is None:
            return
        with TimedProcess() as process:
            after = self._measure_ceiling(process, *self._first)
        text = None if after is None else warn_throttled(before["gflop_per_s"], after["gflop_per_s"])
        self._warnings += [] if text is None else [text]

    def _measure_ceiling(self, process: TimedProcess, backend: str, precision: str) -> Record | None:
        what = f"the ceiling of {backend} {precision}"
        found: Record | None = self._ask(
            process, what, "measure_ceiling", backend, precision, self._threads, self._device
        )
        return found

    def _ask(self, process: TimedProcess, what: str, name: str, *values: Any) -> Any:
        self._tell(f"measuring {what}")
        try:
            return process.ask("probe", name, *values)
        except NdpRtError as error:
            self._warnings.append(f"{what} could not be measured: {error}")
            return None

    def watch(self, processes: Sequence[TimedProcess]) -> contextlib.AbstractContextManager[Any]:
        """Look at what other processes do while these are timed."""
        try:
            import_psutil()
        except MissingExtraError as error:  # `make gpu-check` does without
            self._warnings.append(str(error))
            return contextlib.nullcontext()
        self._watch = Watch([one.process_id for one in processes])
        return self._watch

    def explain_times(self, row: Record, one: TimedProcess) -> None:
        """Add the warnings that come from the times, and from what else went on, to a row that was just timed."""
        image_count = {"single-stream": row["batch"], "multi-stream": MULTI_STREAM_IMAGE_COUNT}.get(row["scenario"], 1)
        total_ms = row["latency"]["p50_ms"] / image_count
        parts = row["parts_ms"]
        found = [warn_unstable(row["latency"]["cv"], row["round_p50_ms"])] if row["scenario"] != "server" else []
        if not row["warm_up"]["is_stable"]:
            found.append("unstable: the times had not settled when the warm-up ended")
        if one.spec.device == "cpu" and one.spec.threads is not None:
            found.append(warn_oversubscribed(one.spec.threads, self._core_count))
        if one.spec.device == "cpu" and "total" in parts:
            found.append(warn_bound("host-bound", parts["total"] - parts["engine"], parts["total"]))
        if self._watch is not None:
            found += self._watch.list_warnings(self._core_count)
        if one.spec.device != "cpu" and one.spec.kind == OURS:
            found += self._split_device(row, one, total_ms)
        row["warnings"] += [text for text in found if text is not None]

    def _split_device(self, row: Record, one: TimedProcess, total_ms: float) -> list[str | None]:
        try:
            ceiling = self.ceilings.get((find_ceiling_backend(one.spec) or "", one.spec.precision))
            cost: Record = one.ask("measure_cost", row["batch"], None if ceiling is None else ceiling["gflop_per_s"])
        except NdpRtError as error:
            self._warnings.append(f"what {one.name} costs on the GPU could not be measured: {error}")
            return []
        row |= cost
        moved_ms = sum(cost["stages_ms"].get(name, 0.0) for name in ("upload", "download"))
        launch_ms = cost["gpu"]["launch_us"] / 1e3 / row["batch"]
        return [warn_bound("launch-bound", launch_ms, total_ms), warn_bound("transfer-bound", moved_ms, total_ms)]

    def explain_work(self, rows: Sequence[Record], one: TimedProcess) -> None:
        """Add work, ceiling and the stage split to one's rows, when nobody is timed any more."""
        spec = one.spec
        with TimedProcess() as process:
            for row in rows:
                if spec.kind == OTHER_NETWORK:
                    row["gflop"] = one.opened.facts.get("gflop")
                else:
                    row |= self._count(process, spec, row["batch"])
                self._add_ceiling(row, spec)
                if spec.kind == OURS and spec.device == "cpu" and row["parts_ms"]:
                    split = self._ask(
                        process, f"{spec.name}'s stages", "split_host_stages", spec, row["batch"], row["parts_ms"]
                    )
                    row["stages_ms"], row["stages_source"] = split or ({}, "not split")
                elif row["parts_ms"] and "stages_ms" not in row:
                    row["stages_ms"] = {"engine": row["parts_ms"]["engine"]}
                    row["stages_source"] = "not split: a rival's whole path"

    def _count(self, process: TimedProcess, spec: TimedSpec, batch: int) -> Record:
        key = (spec.bundle, spec.precision, batch)
        if key not in self._work:
            self._work[key] = self._ask(process, f"the work of {spec.name}", "count_work", *key)
        return self._work[key] or {}

    def _add_ceiling(self, row: Record, spec: TimedSpec) -> None:
        found = self.ceilings.get((find_ceiling_backend(spec) or "", spec.precision))
        if found is None:
            return
        work = row.get("gflop")
        share = None if work is None else work * row["images_per_s"] / found["gflop_per_s"]
        if share is not None and share > 1:
            row["warnings"].append(
                f"above the ceiling: {share:.2f} times it: Winograd's algorithm multiplies less than the work that is "
                "counted, or something slowed the ceiling when it was measured"
            )
        row["ceiling"] = {
            "gflop_per_s": found["gflop_per_s"],
            "share": share,
            "gbyte_per_s": self._copy_gbyte_per_s,
            "note": found["note"],
        }

    def list_warnings(self) -> list[str]:
        """Return what holds for the run as a whole."""
        return list(dict.fromkeys(self._warnings))
