"""Compares bundles of anomalib's models with anomalib: what it computes, and how long its OpenVINO inferencer takes.

    python -m tests.importing.anomalib_exports exports
    python -m tests.importing.anomalib_table exports [NAME ...] -o table.json [--quantise GOOD] [--threads 1]

Prints a row of docs/import.md's table for each model, and writes the figures as JSON. Both sides compute in float32
unless a column says otherwise, from an image in memory to the decision, in one process in turn. All times are the
processor's, of all threads together, which others on the machine change little: with one thread they are waiting times.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt import ImportSettings, Inspector, import_onnx, open_bundle
from ndp_rt.engines.backends.tensorrt_rtx.options import TensorRtRtxOptions
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import NdpRtError
from tests.importing.anomalib_exports import GIVEN_FILE, MODEL_FILE, MODELS

ROUNDS, LONGEST_S = 15, 60.0
F32 = "f32"


def differ(found: Any, expected: Any) -> float:
    """Return the largest difference as a share of the largest value expected."""
    expected = np.asarray(expected, np.float64).squeeze()
    return float(np.abs(np.asarray(found, np.float64).squeeze() - expected).max() / np.abs(expected).max())


def open_theirs(model: Path, threads: int, precision: str | None) -> Any:
    """Return anomalib's OpenVINO inferencer on an export; precision None: what OpenVINO chooses for the processor."""
    from anomalib.deploy import OpenVINOInferencer

    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision
    return OpenVINOInferencer(model, device="CPU", config=config)


def read_processor_s() -> float:
    """Return the processor time of this process and those that it has waited for."""
    return sum(os.times()[:4])


def time_in_turn(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the median milliseconds of processor time of each call; they take turns, each after an untimed one."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.monotonic()
    for turn in range(ROUNDS):
        if turn >= 3 and time.monotonic() - began > LONGEST_S:
            break
        for name, call in calls.items():
            call()
            start = time.process_time()
            call()
            times[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def find_rtx(path: Path) -> str:
    """Return in words whether TensorRT-RTX's compiler builds the engine in fp32 and fp16."""
    try:
        import tensorrt_rtx  # noqa: F401
    except ImportError:
        return "not installed"
    words = []
    for precision in ("fp32", "fp16"):
        try:
            build = TensorRtRtxOptions(targets="sm86")
            spec = EngineSpec(device="cuda", backend="tensorrt-rtx", precision=precision, build=build)
            build_engine(open_bundle(path), spec)
        except NdpRtError as error:
            words.append(f"{precision}: {' '.join(str(error).split())[:160]}")
    return "; ".join(words) or "yes"


def measure(name: str, place: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model."""
    model, given = place / MODEL_FILE, np.load(place / GIVEN_FILE)
    pictures = [np.ascontiguousarray(np.rint(one.transpose(1, 2, 0) * 255).astype(np.uint8)) for one in given["images"]]
    raw, whole = place / "raw.ndp", place / "whole.ndp"
    start = read_processor_s()
    done = import_onnx(model, raw, ImportSettings(source="anomalib", overwrite=True))
    row: dict[str, Any] = {"import_s": read_processor_s() - start, "removed": list(done.removed)}
    with Inspector.open(raw, threads=args.threads, threshold=1.0) as ours:
        results = [ours.inspect(pictures[0])]
        row["import_and_first_s"] = read_processor_s() - start
        results += [ours.inspect(picture) for picture in pictures[1:]]
        if "raw_map" in given:
            row["map"] = differ([one.anomaly_map for one in results], given["raw_map"])
        row["score"] = differ([one.score for one in results], given["raw_score"])
        theirs = {F32: open_theirs(model, args.threads, F32), "chosen": open_theirs(model, args.threads, None)}
        calls = {"ms": lambda: ours.inspect(pictures[0])}
        try:
            theirs[F32].predict(pictures[0])
        except Exception as error:  # an export that its own inferencer does not read
            row["inferencer"] = f"{type(error).__name__}: {str(error)[:200]}"
        else:
            calls["ms_theirs"] = lambda: theirs[F32].predict(pictures[0])
            calls["ms_theirs_chosen"] = lambda: theirs["chosen"].predict(pictures[0])
        others = [] if args.quantise is None else ["bf16"]
        if args.quantise is not None:
            row["quantise"] = quantise(raw, args.quantise)
            others += ["mixed"] if row["quantise"] == "taken" else []
        opened = {one: Inspector.open(raw, threads=args.threads, threshold=1.0, precision=one) for one in others}
        calls |= {f"ms_{name}": lambda one=one: one.inspect(pictures[0]) for name, one in opened.items()}  # type: ignore[misc]
        row |= time_in_turn(calls)
        for precision, one in opened.items():
            row[f"map_{precision}"] = differ(one.inspect(pictures[0]).anomaly_map, results[0].anomaly_map)
            one.close()
    import_onnx(model, whole, ImportSettings(overwrite=True))
    with Inspector.open(whole, threads=args.threads, threshold=0.5) as ours:
        for number, picture in enumerate(pictures):
            found = ours.inspect(picture)
            pairs = {"score_torch": (found.score, given["score"][number])}
            if "map" in given:
                pairs["map_torch"] = found.anomaly_map, given["map"][number]
            if "inferencer" not in row:
                expected, chosen = (theirs[one].predict(picture) for one in (F32, "chosen"))
                pairs["score_inferencer"] = found.score, expected.pred_score
                if "map" in given:
                    pairs["map_inferencer"] = found.anomaly_map, expected.anomaly_map
                    pairs["map_inferencer_chosen"] = chosen.anomaly_map, expected.anomaly_map
            for key, pair in pairs.items():
                row[key] = max(row.get(key, 0.0), differ(*pair))
    row["rtx"] = find_rtx(raw)
    return row


def quantise(path: Path, good: Path) -> str:
    """Let `ndp-rt quantise` choose layers for `mixed`, and return "taken", or why it was not."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "ndp_rt.cli", "quantise", str(path), "--calibration", str(good)]
    done = subprocess.run([*command, "--precision", "mixed"], capture_output=True, text=True, check=False)
    return "taken" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def describe(name: str, row: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    errors = " | ".join(f"{row[key]:.1e}" if key in row else "none" for key in ("map", "score", "map_inferencer"))
    their = row.get("ms_theirs")
    times = (
        f"none | {row['ms']:.0f} | " if their is None else f"{their:.0f} | {row['ms']:.0f} | {their / row['ms']:.2f}"
    )
    return f"| {name} | {MODELS[name].note} | {errors} | {row['import_and_first_s']:.1f} | {times} | {row['rtx']} |"


def main() -> None:
    """Measure the models of a folder that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quantise", type=Path, metavar="GOOD", help="good images; bf16 and mixed are then timed too")
    args = parser.parse_args()
    os.environ["NDP_RT_CACHE"] = str(args.folder.absolute() / "cache")  # empty: the first inspection builds
    shutil.rmtree(args.folder / "cache", ignore_errors=True)
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name in args.names or [name for name in MODELS if (args.folder / name / MODEL_FILE).exists()]:
        try:
            rows[name] = measure(name, args.folder / name, args)
            print(describe(name, rows[name]), flush=True)
        except NdpRtError as error:
            rows[name] = {"refused": " ".join(str(error).split())}
            print(f"| {name} | refused: {rows[name]['refused']} |", flush=True)
        args.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
