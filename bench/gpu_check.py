"""`make gpu-check`: the tests that need a GPU, and what every backend and precision reaches there, in three steps.

First what is worth most: 1 the kernels, and the backend that compiles nothing; 2 the other backends; 3 throughput, a
soak, and rivals. Each candidate is measured by itself, as `ndp-rt bench` does, and its record is written before the
next begins: what ends a step early loses one candidate at most. It installs nothing: it takes the Python that runs it
and whatever is there. NumPy, CuPy and one backend are enough; where the onnx package is missing, the typed stages are
made elsewhere (`ndp-rt export-stages`).
"""

import argparse
import importlib.util
import itertools
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ndp_rt.bench.request import BenchRequest, list_specs
from ndp_rt.bench.rivals import NAMES
from ndp_rt.bench.run import Bench
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import OURS, FloatArray
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.engines.registry import find_backend, list_backends, parse_device
from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.evaluate.record import Record, append_record, check_appendable, start_record

RESULTS = Path("bench/results/gpu")
ROOT = Path(__file__).resolve().parent.parent
# The demo's network has no op of its own; the tests' has, and reaches every kernel.
BUNDLES = (ROOT / "ndp_rt" / "data" / "demo.ndp", ROOT / "tests" / "data" / "bricks.ndp")
STEPS = (1, 2, 3)
TESTS = {1: "gpu", 2: "(tensorrt or tensorrt_rtx) and not gpu"}  # their marks
TEST_SHARE = 0.5  # of a step's time, at most
OUTCOME = re.compile(r"\d+ (passed|failed|skipped|deselected|error)")
NO_TESTS_EXIT_CODE = 5  # pytest's, where every test was deselected


class GpuBench(Bench):
    """A benchmark on a GPU: every tensor is compared with the fp32 plan's, and memory is looked at after a soak."""

    needs_extras = False
    soak_count = 0
    fp32: Mapping[str, FloatArray] | None = None  # what the fp32 plan's tensors were

    def finish(self, processes: Sequence[TimedProcess]) -> None:
        """See `Bench.finish`."""
        for one in (one for one in processes if one.spec.kind == OURS and one.name not in self.refused):
            batch, found = one.spec.batches[0], {}
            try:
                tensors = one.ask("trace_tensors", batch)
                if self.soak_count:
                    self.tell(f"{one.name}: {self.soak_count} inspections between two looks at the memory")
                    found["soak"] = one.ask("soak", batch, self.soak_count)
            except NdpRtError as error:
                self.refused[one.name] = f"after it was timed: {error}"
                continue
            if self.fp32 is None and one.spec.precision == "fp32":
                self.fp32 = tensors
            found["tensor_errors"] = {} if self.fp32 is None else compare_tensors(tensors, self.fp32)
            for row in (row for row in self.rows if row["name"] == one.name and "gpu" in row):
                row["gpu"] |= found
        super().finish(processes)


def compare_tensors(found: Mapping[str, FloatArray], expected: Mapping[str, FloatArray]) -> dict[str, float]:
    """Return each tensor's largest difference from the fp32 plan's, in shares of that one's largest value."""
    errors = {}
    for name in sorted(set(found) & set(expected)):
        scale = float(np.abs(expected[name]).max()) or 1.0
        errors[name] = float(np.abs(found[name] - expected[name]).max()) / scale
    return errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and measure; return 0 if every test passed and every candidate ran, else 1."""
    args = parse_arguments(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` ends it as Ctrl-C does
    try:
        return check(args, shlex.join(sys.argv[1:] if arguments is None else arguments))
    except NdpRtError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def check(args: argparse.Namespace, words: str) -> int:
    """Run the steps and return the exit code.

    Raises:
        InputError: typed stages for more than one bundle, nothing to measure, or what `BenchRequest` refuses.
    """
    bundles = args.bundle or [path for path in BUNDLES if path.is_dir()]  # the tests may not lie here
    if args.stages is not None and len(bundles) != 1:
        raise InputError(f"--stages: expected one bundle that they are of, got {len(bundles)}. Give it with --bundle.")
    steps = {step: list_requests(step, args, bundles) for step in args.step or STEPS}
    if not any(steps.values()):
        raise InputError(
            f"backends: expected some of {', '.join(list_backends('cuda'))}, with a precision that was asked for, got "
            "none. Install one: docs/gpu.md says how."
        )
    for request in itertools.chain(*steps.values()):
        list_specs(request, {})  # refuses before minutes are spent
    device = CudaDevice(parse_device(args.device)[1])
    out = args.out or RESULTS / f"{datetime.now(timezone.utc):%Y-%m-%d}-{slug(device.name)}.jsonl"
    check_appendable(out)
    command = f"python -m ndp_rt.bench.gpu_check {words}"
    ceilings: dict[tuple[str, str], Record | None] = {}
    is_good = True
    for step, requests in steps.items():
        end_s = time.monotonic() + 60 * args.minutes
        if step in TESTS and not args.no_tests:
            is_good = check_tests(step, args.minutes, command, out) and is_good
        traces: dict[Path, Mapping[str, FloatArray] | None] = {}
        longest_s = 0.0
        for index, request in enumerate(requests):
            start_s = time.monotonic()
            if start_s + longest_s > end_s:
                left = f"{len(requests) - index} of {len(requests)} candidates are left"
                print(f"step {step}: {left}. Give it more --minutes; what was built is in the cache.")
                is_good = False
                break
            print(f"step {step}: candidate {index + 1} of {len(requests)}", flush=True)
            bench = GpuBench(request, command, lambda line: print(line, flush=True))
            bench.fp32, bench.explainer.ceilings = traces.get(request.bundle), ceilings
            bench.soak_count = args.soak if step == STEPS[-1] and not request.against else 0
            bench.record["machine"]["gpu"] = describe_gpu(device)
            try:
                bench.measure_latencies()
            finally:
                append_record(bench.record, out)
                print_record(bench.record)
            traces[request.bundle] = bench.fp32
            longest_s = max(longest_s, time.monotonic() - start_s)
            is_good = is_good and not bench.refused and bool(bench.rows)
    print(f"record: {out}")
    return 0 if is_good else 1


def list_requests(step: int, args: argparse.Namespace, bundles: Sequence[Path]) -> list[BenchRequest]:
    """Return a step's candidates: one backend, precision and bundle each, in the last step also one rival."""
    known = list(list_backends("cuda"))
    names = [name for name in args.backends or known if args.backends or find_backend(name).find().version is not None]
    batches = tuple(int(word) for word in args.batches)
    # The backend that is preferred least is the one that compiles nothing.
    chosen = {1: [name for name in names if name == known[-1]], 2: [name for name in names if name != known[-1]]}
    candidates = [("single-stream", batches[:1], "")]
    if step == STEPS[-1]:
        candidates = [("single-stream", batches, ""), ("offline", (1,), "")]
        candidates += [("single-stream", batches, word) for word in args.against]
    precisions = args.precisions if step != STEPS[-1] else args.against_precisions
    return [
        BenchRequest(
            bundle=bundle,
            device=args.device,
            backends=(name,),
            precisions=(precision,),
            batches=sizes,
            scenario=scenario,
            against=(rival,) if rival else (),
            seconds=args.seconds,
            stages=args.stages,
        )
        for (scenario, sizes, rival), name, precision, bundle in itertools.product(
            candidates, chosen.get(step, names[:1]), precisions, bundles
        )
        if precision in find_backend(name).precisions
    ]


def check_tests(step: int, minutes: float, command: str, out: Path) -> bool:
    """Run a step's tests, write how they ended beside the records, and tell whether none failed."""
    limit_s = 60 * minutes * TEST_SHARE
    pytest = [
        sys.executable,
        "-u",
        "-m",
        "pytest",
        "-vv",
        "-m",
        TESTS[step],
        "--first=kernels",
        f"--budget-s={limit_s:.0f}",
    ]
    has_pytest = importlib.util.find_spec("pytest") is not None
    found = run(pytest) if has_pytest else {"exit_code": 0, "outcome": "pytest is not installed"}
    record = start_record("ndp-rt gpu tests", 1, command) | {"step": step, "tests": found}
    append_record(record, out.with_name(f"{out.stem}-tests.jsonl"))
    print(f"step {step}: tests: {found['outcome']}", flush=True)
    return found["exit_code"] in (0, NO_TESTS_EXIT_CODE)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.bench.gpu_check", description=__doc__)
    add = parser.add_argument
    add("--step", type=int, action="append", choices=STEPS, help="one of the three alone; default: all")
    add("--minutes", type=float, default=8.0, help="that a step may take; default: %(default)s")
    add("--bundle", type=Path, action="append", help="also several times; default: the demo's and the tests' NDP-Net")
    add("--device", default="cuda")
    add("--backends", type=split, default=(), help="such as tensorrt,torch-cuda; default: those that are installed")
    add("--precisions", type=split, default=("fp32", "fp16", "bf16", "tf32"), help="default: fp32,fp16,bf16,tf32")
    add("--batches", type=split, default=("1", "8", "32"), help="default: 1,8,32")
    add("--stages", type=Path, help="what export-stages wrote of one bundle, a folder a precision; default: made here")
    add(
        "--against",
        type=split,
        default=("torch-compile", "onnxruntime-cuda", "tensorrt-fused"),
        metavar="NAME,...",
        help=f"rivals: some of {', '.join(NAMES['cuda'])}; default: the 2nd and the last two",
    )
    add("--against-precisions", type=split, default=("fp16",), metavar="NAME,...", help="of step 3; default: fp16")
    add("--seconds", type=float, default=5.0, help="timed for each batch size; default: %(default)s")
    add("--soak", type=int, default=2000, help="inspections between two looks at the memory")
    add("--no-tests", action="store_true", help="measure only")
    add("--out", type=Path, help="the record is appended to this; default: bench/results/gpu/DATE-GPU.jsonl")
    return parser.parse_args(arguments)


def split(text: str) -> tuple[str, ...]:
    """Return the words between commas."""
    return tuple(filter(None, text.split(",")))


def describe_gpu(device: CudaDevice) -> Record:
    """Return what a record says of the GPU and of the libraries on it."""
    free, total = device.find_free_bytes()
    runtime = device.cupy.cuda.runtime
    return {
        "name": device.name,
        "compute_capability": device.compute_capability,
        "memory_bytes": total,
        "free_bytes": free,
        "driver_cuda": device.driver_version,
        "cupy": device.cupy.__version__,
        "runtime_cuda": int(runtime.runtimeGetVersion()),
        **{name: backend.find().version for name, backend in list_backends("cuda").items()},
    }


def slug(name: str) -> str:
    """Return a GPU's name as part of a file's name: "NVIDIA H200" -> "h200"."""
    words = [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in ("nvidia", "gpu")]
    return "-".join(words) or "gpu"


def run(command: Sequence[str]) -> Record:
    """Run a command, show what it prints as it comes, and return its exit code and its last word."""
    print(shlex.join(command), flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        lines = []
        for line in child.stdout:
            print(line, end="", flush=True)
            lines += [line.strip()] if OUTCOME.search(line) else []
    return {"command": shlex.join(command), "exit_code": child.returncode, "outcome": "; ".join(lines[-2:])}


def print_record(record: Record) -> None:
    """Print what was measured as plain lines: Rich may not be installed."""
    print(record["bundle"]["name"])
    for row in record["rows"]:
        latency, gpu = row["latency"], row.get("gpu", {})
        parts = [f"{row['name']}, batch {row['batch']}: p50 {latency['p50_ms']:.3f} ms, p99 {latency['p99_ms']:.3f} ms"]
        parts.append(f"{row['images_per_s']:.0f} images/s, map error {row['check']['map_max_abs_difference']:.1e}")
        if "ratio" in row:
            parts.append(f"{row['ratio']['median']:.2f} times {row['ratio']['to']}")
        if gpu:
            parts.append(f"launch {gpu['launch_us']:.0f} us, {row['gpu_memory_bytes'] / 2**20:.0f} MiB")
            parts += [f"{op} {ratio:.1f} times the floor" for op, ratio in gpu["over_floor"].items()]
        print(", ".join(parts))
    for kind in ("refused", "left_out"):
        for name, reason in record[kind].items():
            print(f"{name}: {kind.replace('_', ' ')}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
