"""`make gpu-check`: the tests that need a GPU, then what every backend and precision reaches there.

It measures as `ndp-rt bench` does and writes such a record, with what the tests said. It installs nothing: it takes the
Python that runs it and whatever is there. NumPy, CuPy and one of TensorRT and PyTorch are enough; where the
onnx package is missing, the typed stages are made elsewhere (`ndp-rt export-stages`).
"""

import argparse
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ndp_rt.bench.request import BenchRequest
from ndp_rt.bench.rivals import NAMES
from ndp_rt.bench.run import Bench
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import OURS, FloatArray
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.engines.registry import list_backends, parse_device
from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.evaluate.record import Record, append_record

RESULTS = Path("bench/results")
ROOT = Path(__file__).resolve().parent.parent
# The demo's network has no op of its own; the tests' has, and reaches every kernel.
BUNDLES = (ROOT / "ndp_rt" / "data" / "demo.ndp", ROOT / "tests" / "data" / "bricks.ndp")
SANITIZER = "compute-sanitizer"
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
KERNEL_TESTS = "tests/kernels"
OUTCOME = re.compile(r"\d+ (passed|failed|skipped|deselected|error)")
NO_TESTS_EXIT_CODE = 5  # pytest's, where every test was deselected


class GpuBench(Bench):
    """A benchmark on a GPU: every tensor is compared with the fp32 plan's, and memory is looked at after a soak."""

    needs_extras = False
    soak_count = 0

    def finish(self, processes: Sequence[TimedProcess]) -> None:
        """See `Bench.finish`."""
        ours = [one for one in processes if one.spec.kind == OURS and one.name not in self.refused]
        expected: Mapping[str, FloatArray] | None = None
        for one in ours:
            batch = one.spec.batches[0]
            self.tell(f"{one.name}: {self.soak_count} inspections between two looks at the memory")
            try:
                found = one.ask("trace_tensors", batch)
                soak = one.ask("soak", batch, self.soak_count)
            except NdpRtError as error:
                self.refused[one.name] = f"after it was timed: {error}"
                continue
            if expected is None and one.spec.precision == "fp32":
                expected = found
            for row in (row for row in self.rows if row["name"] == one.name and "gpu" in row):
                row["gpu"]["tensor_errors"] = {} if expected is None else compare_tensors(found, expected)
                row["gpu"]["soak"] = soak
        super().finish(processes)


def compare_tensors(found: Mapping[str, FloatArray], expected: Mapping[str, FloatArray]) -> dict[str, float]:
    """Return each tensor's largest difference from the fp32 plan's, in shares of that one's largest value."""
    errors = {}
    for name in sorted(set(found) & set(expected)):
        scale = float(np.abs(expected[name]).max()) or 1.0
        errors[name] = float(np.abs(found[name] - expected[name]).max()) / scale
    return errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and measure; return 0 if every test passed and every pair of backend and precision ran, else 1."""
    args = parse_arguments(arguments)
    try:
        return check(args, shlex.join(sys.argv[1:] if arguments is None else arguments))
    except NdpRtError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1


def check(args: argparse.Namespace, words: str) -> int:
    """Run the tests, measure each bundle, write a record of each and print it; return the exit code.

    Raises:
        InputError: typed stages for more than one bundle.
    """
    bundles = args.bundle or [path for path in BUNDLES if path.is_dir()]  # the tests may not lie here
    if args.stages is not None and len(bundles) != 1:
        raise InputError(f"--stages: expected one bundle that they are of, got {len(bundles)}. Give it with --bundle.")
    device = CudaDevice(parse_device(args.device)[1])
    installed = [name for name, backend in list_backends("cuda").items() if backend.find().version is not None]
    request = BenchRequest(
        bundle=bundles[0],
        device=args.device,
        backends=args.backends or tuple(installed),
        precisions=args.precisions,
        batches=tuple(int(word) for word in args.batches),
        against=args.against,
        against_precisions=args.against_precisions,
        seconds=args.seconds,
        stages=args.stages,
    )
    command = f"python -m ndp_rt.bench.gpu_check {words}"
    benches = [
        GpuBench(replace(request, bundle=bundle), command, lambda line: print(line, flush=True)) for bundle in bundles
    ]
    tests, sanitizer = {} if args.no_tests else run_tests(), run_sanitizer(args.sanitize)
    out = args.out or RESULTS / f"{datetime.now(timezone.utc):%Y-%m-%d}-{slug(device.name)}.jsonl"
    is_good = not any(map(has_failed, (tests, *sanitizer.values())))
    for bench in benches:
        bench.soak_count = args.soak
        record = bench.record
        record["machine"]["gpu"] = describe_gpu(device)
        record["tests"], record["sanitizer"] = tests, sanitizer
        bench.measure_latencies()
        append_record(record, out)
        print_record(record)
        is_good = is_good and not record["refused"] and bool(record["rows"])
    print(f"record: {out}")
    return 0 if is_good else 1


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.bench.gpu_check", description=__doc__)
    add = parser.add_argument
    add(
        "--bundle",
        type=Path,
        action="append",
        help="may be given several times; default: the demo's and the tests' NDP-Net; give one of preset paper too",
    )
    add("--device", default="cuda")
    add("--backends", type=split, default=(), help="such as tensorrt,torch-cuda; default: those that are installed")
    add("--precisions", type=split, default=("fp32", "tf32", "fp16", "bf16"), help="default: fp32,tf32,fp16,bf16")
    add("--batches", type=split, default=("1", "8", "32"), help="default: 1,8,32")
    add(
        "--stages",
        type=Path,
        help="folder with export-stages' output of the one bundle for each precision; default: made here",
    )
    add(
        "--against",
        type=split,
        default=("torch-compile", "onnxruntime-cuda", "tensorrt-fused"),
        metavar="NAME,...",
        help=f"rivals: some of {', '.join(NAMES['cuda'])}; default: the 2nd and the last two",
    )
    add("--against-precisions", type=split, default=("fp16",), metavar="NAME,...", help="of rivals; default: fp16")
    add("--seconds", type=float, default=10.0, help="timed for each batch size; default: %(default)s")
    add("--soak", type=int, default=2000, help="inspections between two looks at the memory")
    add("--no-tests", action="store_true", help="measure only")
    add(
        "--sanitize",
        type=parse_tools,
        default=(),
        metavar="TOOL,...",
        help=f"also run the kernels' tests under {SANITIZER}: {', '.join(SANITIZER_TOOLS)}",
    )
    add("--out", type=Path, help="the record is appended to this; default: bench/results/DATE-GPU.jsonl")
    return parser.parse_args(arguments)


def split(text: str) -> tuple[str, ...]:
    """Return the words between commas."""
    return tuple(filter(None, text.split(",")))


def parse_tools(text: str) -> tuple[str, ...]:
    """Read names of compute-sanitizer's tools."""
    tools = split(text)
    if not set(tools) <= set(SANITIZER_TOOLS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SANITIZER_TOOLS)}, got {text!r}")
    return tools


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


def run_tests() -> Record:
    """Run the tests marked `gpu` and `tensorrt`, if pytest is installed, and return how they ended."""
    if importlib.util.find_spec("pytest") is None:
        return {"left_out": "pytest is not installed"}
    return run([sys.executable, "-m", "pytest", "-m", "gpu or tensorrt"])


def run_sanitizer(tools: Sequence[str]) -> dict[str, Record]:
    """Run the kernels' tests under tools of compute-sanitizer, and return how each ended.

    The first error ends a tool with exit code 1; racecheck alone sees what the emulation cannot: the hardware's order
    of memory between threads.
    """
    found = shutil.which(SANITIZER)
    if found is None or importlib.util.find_spec("pytest") is None:
        missing = SANITIZER if found is None else "pytest"
        return {tool: {"left_out": f"{missing} is not installed"} for tool in tools}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", KERNEL_TESTS]
    return {tool: run([found, "--tool", tool, "--error-exitcode", "1", *command]) for tool in tools}


def run(command: Sequence[str]) -> Record:
    """Run a command, show what it prints, and return its exit code and its last word."""
    print(shlex.join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    lines = [line for line in done.stdout.splitlines() if OUTCOME.search(line) or "ERROR SUMMARY" in line]
    return {"command": shlex.join(command), "exit_code": done.returncode, "outcome": "; ".join(lines[-2:])}


def has_failed(record: Record) -> bool:
    """Tell whether what `run` returned is a failure."""
    return record.get("exit_code", 0) not in (0, NO_TESTS_EXIT_CODE)


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
    for name, one in {"tests": record["tests"], **record["sanitizer"]}.items():
        print(f"{name}: {one.get('outcome') or one.get('left_out') or 'left out'}")


if __name__ == "__main__":
    sys.exit(main())
