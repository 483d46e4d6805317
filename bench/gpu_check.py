"""`make gpu-check`: the tests that need a GPU, then one table of what every backend and precision reaches there.

Installs nothing: it takes the Python that runs it and whatever is installed there. NumPy, CuPy and one of TensorRT and
PyTorch are enough; where the onnx package is missing, the typed stages are made elsewhere (`ndp-rt export-stages`).
"""

import argparse
import dataclasses
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.gpu_rivals import (
    Rival,
    choose_peers,
    compare_with_rivals,
    open_rivals,
    summarise_rival,
    time_rival,
)
from ndp_rt.bench.gpu_tests import SANITIZER_TOOLS, has_failed, run_sanitizer, run_tests
from ndp_rt.bench.gpu_timing import time_batches, time_launches, time_steps, time_stream
from ndp_rt.bench.kernel_work import GPUS, Gpu, count_inspection, time_floor_us
from ndp_rt.bench.latency import Latency
from ndp_rt.bench.peers import NAMES, list_peers
from ndp_rt.bench.threshold import choose_threshold
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.devices.cuda.driver import CudaDevice, parse_device
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.registry import find_device_backend, list_backends
from ndp_rt.errors import NdpRtError
from ndp_rt.evaluate.record import Record, start_record, write_record
from ndp_rt.options import Options
from ndp_rt.runtime.check import check_executor
from ndp_rt.runtime.cuda import CudaExecutor
from ndp_rt.runtime.cuda_program import CudaProgram
from ndp_rt.runtime.open import open_cuda

FORMAT, FORMAT_VERSION = "ndp-rt gpu-check", 1
RESULTS = Path("bench/results")
DEMO = Path(__file__).resolve().parent.parent / "ndp_rt" / "data" / "demo.ndp"
ROUNDS = 5  # of latencies; in each, every backend and precision has its turn

FloatArray = NDArray[np.float32]


@dataclass(kw_only=True)
class Candidate:
    """One backend and precision with everything that was measured of it."""

    backend: str
    precision: str
    runner: CudaExecutor
    slot: Any
    batches: tuple[int, ...]
    facts: Record = field(default_factory=dict)
    times_ms: dict[int, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    @property
    def plan(self) -> CudaProgram:
        return self.runner.program


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and measure; return 0 if every test passed and every pair of backend and precision ran, else 1."""
    args = parse_arguments(arguments)
    try:
        return check(args, shlex.join(sys.argv[1:] if arguments is None else arguments))
    except NdpRtError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1


def check(args: argparse.Namespace, words: str) -> int:
    """Run the tests, measure, write the record and print it; return the exit code."""
    device = CudaDevice(parse_device(args.device))
    record = start_record(FORMAT, FORMAT_VERSION, f"python -m ndp_rt.bench.gpu_check {words}")
    record["gpu"] = describe_gpu(device)
    record["tests"] = {} if args.no_tests else run_tests()
    record["sanitizer"] = run_sanitizer(args.sanitize)
    bundle = open_bundle(args.bundle)
    record["bundle"] = {
        "name": bundle.manifest.name,
        "fingerprint": bundle.fingerprint,
        "width": bundle.manifest.model.width or 0,
    }
    peers = choose_peers(list_peers("cuda"), args.against)
    record["refused"], record["left_out"] = {}, {}
    candidates, rivals = open_candidates(bundle, args, record["refused"]), []
    try:
        sizes = candidates[0].batches if candidates else ()
        rivals = open_rivals(bundle, peers, args.against_precisions, sizes, record["left_out"], record["refused"])
        measure(bundle, candidates, rivals, args)
    finally:
        for candidate in candidates:
            candidate.runner.close()
        for rival in rivals:
            rival.close()
    record["rows"] = [candidate.facts for candidate in candidates]
    record["rivals"] = [summarise_rival(rival) for rival in rivals]
    record["against_rivals"] = compare_with_rivals(record["rows"], record["rivals"])
    out = args.out or RESULTS / f"{datetime.now(timezone.utc):%Y-%m-%d}-{slug(device.name)}.json"
    write_record(record, out)
    print_table(record)
    print(f"record: {out}")
    has_failures = any(map(has_failed, (record["tests"], *record["sanitizer"].values())))
    return 1 if has_failures or record["refused"] or not candidates else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.bench.gpu_check", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEMO, help="default: the demo's; give one of preset paper too")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backends", help="such as tensorrt,torch-cuda; default: those that are installed")
    parser.add_argument("--precisions", default="fp32,tf32,fp16,bf16", help="default: %(default)s")
    parser.add_argument("--batches", default="1,8,32", help="default: %(default)s")
    parser.add_argument(
        "--stages",
        type=Path,
        help="folder with export-stages' output for each precision, named by it; default: made here",
    )
    parser.add_argument(
        "--against",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=("torch-compile", "onnxruntime-cuda", "tensorrt-fused"),
        metavar="NAME,...",
        help=f"rivals: some of {', '.join(NAMES['cuda'])}; default: the 2nd and the last two",
    )
    parser.add_argument(
        "--against-precisions",
        type=lambda text: tuple(text.split(",")),
        default=("fp16",),
        metavar="NAME,...",
        help="precisions of the rivals; default: fp16",
    )
    parser.add_argument("--count", type=int, default=200, help="batches timed for each size; default: %(default)s")
    parser.add_argument("--soak", type=int, default=2000, help="inspections between two looks at the memory")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    parser.add_argument(
        "--sanitize",
        type=parse_tools,
        default=(),
        metavar="TOOL,...",
        help=f"also run the kernels' tests under compute-sanitizer: {', '.join(SANITIZER_TOOLS)}",
    )
    parser.add_argument("--out", type=Path, help="the record; default: bench/results/DATE-GPU.json")
    return parser.parse_args(arguments)


def parse_tools(text: str) -> tuple[str, ...]:
    """Read names of compute-sanitizer's tools."""
    tools = tuple(text.split(","))
    if not set(tools) <= set(SANITIZER_TOOLS):
        raise argparse.ArgumentTypeError(f"{text!r}: some of {', '.join(SANITIZER_TOOLS)} are taken")
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


def open_candidates(bundle: Bundle, args: argparse.Namespace, refused: dict[str, str]) -> list[Candidate]:
    """Open every backend in every precision that it offers; what cannot be opened goes to `refused` with the reason."""
    installed = [name for name, backend in list_backends("cuda").items() if backend.find().version is not None]
    batches = tuple(int(word) for word in args.batches.split(","))
    candidates = []
    for name in args.backends.split(",") if args.backends else installed:
        for precision in args.precisions.split(","):
            if precision not in find_device_backend(name).precisions:
                continue
            options = Options(
                bundle=str(bundle.path), device=args.device, backend=name, precision=precision, batches=batches
            )
            print(f"opening {name} {precision}", flush=True)
            try:
                if args.stages is not None:
                    build_from_stages(bundle, options, args.stages / precision)
                runner = open_cuda(bundle, options.engine_spec, channels=options.channels)
            except NdpRtError as error:
                refused[f"{name} {precision}"] = str(error)
                print(f"  refused: {error}")
                continue
            slot = runner.make_batch()
            candidates.append(Candidate(backend=name, precision=precision, runner=runner, slot=slot, batches=batches))
    return candidates


def build_from_stages(bundle: Bundle, options: Options, folder: Path) -> None:
    """Build engines from typed stages that `ndp-rt export-stages` wrote where the onnx package is."""
    options_type = find_device_backend(options.backend or "").build_options
    spec = dataclasses.replace(options.engine_spec, build=options_type(onnx_stages=str(folder)))
    build_engine(bundle, spec, progress=print)


def measure(bundle: Bundle, candidates: Sequence[Candidate], rivals: Sequence[Rival], args: argparse.Namespace) -> None:
    """Fill in the facts of every candidate; latencies take turns with the rivals', everything else goes one by one."""
    golden = bundle.golden()
    images = [np.ascontiguousarray(np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8)) for image in golden.image]
    reference: Mapping[str, FloatArray] | None = None
    for candidate in candidates:
        plan, size = candidate.plan, candidate.batches[0]
        report = check_executor(bundle, plan, plan.precision, size)
        trace = plan.trace(np.repeat(golden.image[:1], size, axis=0))
        if reference is None and candidate.precision == "fp32":
            reference = trace
        candidate.facts = {
            "backend": candidate.backend,
            "precision": candidate.precision,
            "golden": dataclasses.asdict(report),
            "stage_errors": {} if reference is None else compare_traces(trace, reference),
            "buffer_bytes": plan.buffer_bytes,
            "engine_bytes": plan.held_bytes,
            "captured_batches": list(plan.captured_sizes),
            "latency": {},
        }
        candidate.times_ms = {n: [] for n in candidate.batches}
    count = max(1, args.count // ROUNDS)
    for _ in range(ROUNDS):
        for rival in rivals:
            threshold = choose_threshold(bundle, rival.precision)
            for n, times in rival.times_ms.items():
                time_rival(rival, images, n, threshold, 3)
                times += time_rival(rival, images, n, threshold, count)
        for candidate in candidates:
            for n in candidate.batches:
                threshold = choose_threshold(bundle, candidate.precision)
                time_batches(candidate.runner, candidate.slot, images, n, threshold, 3)  # warm again after the others
                candidate.times_ms[n] += time_batches(candidate.runner, candidate.slot, images, n, threshold, count)
    for candidate in candidates:
        finish_facts(bundle, candidate, images, args)


def finish_facts(
    bundle: Bundle, candidate: Candidate, images: Sequence[NDArray[np.uint8]], args: argparse.Namespace
) -> None:
    """Add latencies, throughput, launches, steps with their floors, and the memory after a soak."""
    plan, runner, facts = candidate.plan, candidate.runner, candidate.facts
    threshold = choose_threshold(bundle, candidate.precision)
    capture = partial(find_device_backend(candidate.backend).capture, plan.device)
    gpu, model, contract = find_gpu_figures(plan.device.name), bundle.manifest.model, bundle.manifest.input
    for n in candidate.batches:
        steps = time_steps(plan, n, capture, 20)
        work = count_inspection(n, contract.height_px, contract.width_px, model.width or 0, plan.input_dtype)
        floors = {} if gpu is None else {name: time_floor_us(gpu, work[name]) / 1e3 for name in steps if name in work}
        facts["latency"][str(n)] = {
            **Latency.of(candidate.times_ms[n]).to_json(),
            "stream_images_per_s": time_stream(runner, images, n, threshold, max(10, args.count // n)),
            "launch_us": time_launches(plan, n, 50),
            "steps_ms": steps,
            "over_floor": {name: steps[name] / floor for name, floor in floors.items() if floor > 0},
        }
    free_before, _ = plan.device.find_free_bytes()
    time_batches(runner, candidate.slot, images, candidate.batches[0], threshold, args.soak)
    free_after, _ = plan.device.find_free_bytes()
    facts["soak"] = {"inspection_count": args.soak, "lost_bytes": free_before - free_after}


def compare_traces(trace: Mapping[str, FloatArray], reference: Mapping[str, FloatArray]) -> dict[str, float]:
    """Return each tensor's largest difference from the fp32 plan's, in shares of that one's largest value."""
    errors = {}
    for name in sorted(set(trace) & set(reference)):
        scale = float(np.abs(reference[name]).max()) or 1.0
        errors[name] = float(np.abs(trace[name] - reference[name]).max()) / scale
    return errors


def find_gpu_figures(name: str) -> Gpu | None:
    """Return the vendor's figures of a GPU, None where they are not known."""
    return next((gpu for known, gpu in GPUS.items() if known.lower() in name.lower()), None)


def slug(name: str) -> str:
    """Return a GPU's name as part of a file's name: "NVIDIA H200" -> "h200"."""
    words = [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in ("nvidia", "gpu")]
    return "-".join(words) or "gpu"


def print_table(record: Record) -> None:
    """Print what was measured as one plain table."""
    head = ("backend", "batch", "p50 ms", "p99 ms", "images/s", "launch us", "map error", "rbfrm/floor", "MiB")
    rows = []
    for facts in record["rows"]:
        for batch, one in facts["latency"].items():
            over = [ratio for name, ratio in one["over_floor"].items() if name.startswith("rbfrm")]
            rows.append(
                (
                    f"{facts['backend']} {facts['precision']}",
                    batch,
                    f"{one['p50_ms']:.3f}",
                    f"{one['p99_ms']:.3f}",
                    f"{one['stream_images_per_s']:.0f}",
                    f"{one['launch_us']:.0f}",
                    f"{facts['golden']['map_max_abs_difference']:.1e}",
                    f"{max(over):.1f}" if over else "-",
                    f"{(facts['buffer_bytes'] + facts['engine_bytes']) / 2**20:.0f}",
                )
            )
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for one in record["rivals"]:
        for batch, latency in one["latency"].items():
            error = one["golden"]["map_max_abs_difference"]
            times = f"p50 {latency['p50_ms']:.3f} ms, p99 {latency['p99_ms']:.3f} ms"
            print(f"rival {one['name']} {one['precision']}, batch {batch}: {times}, map error {error:.1e}")
    for key, one in record["against_rivals"].items():
        print(f"{key}: {one['ours']} is {one['times_as_fast']:.2f} times as fast as {one['best_rival']}")
    for name, reason in (*record["refused"].items(), *record["left_out"].items()):
        print(f"{name}: {'refused' if name in record['refused'] else 'left out'}: {reason}")
    for name, one in {"tests": record["tests"], **record["sanitizer"]}.items():
        print(f"{name}: {one.get('outcome') or one.get('left_out') or 'left out'}")


if __name__ == "__main__":
    sys.exit(main())
