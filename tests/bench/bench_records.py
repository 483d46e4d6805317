"""Records of `ndp-rt bench` as docs/bench-record.md describes them, with made-up times."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.latency import bound_percentile, summarise

ROUND_COUNT = 20
# Name, word, kind, p50 of a single query in ms, GFLOP, megabytes, ceiling in GFLOP/s, (ROCAUC, AUPRO) or None.
RIVALS: tuple[tuple[str, str, str, float, float, float, float, tuple[float, float] | None], ...] = (
    ("ndp-rt openvino bf16", "ndp-rt", "ndp-rt", 132.0, 152.0, 610.0, 2050.0, (0.991, 0.962)),
    ("pytorch fp32", "pytorch", "same network", 1125.0, 176.0, 1420.0, 262.0, (0.992, 0.963)),
    ("ndp-rt openvino fp32", "ndp-rt", "ndp-rt", 292.0, 152.0, 1190.0, 640.0, (0.992, 0.963)),
    ("onnxruntime fp32", "onnxruntime", "same network", 1008.0, 176.0, 1420.0, 540.0, (0.992, 0.963)),
    ("openvino-plain fp32", "openvino-plain", "same network", 870.0, 176.0, 1420.0, 640.0, (0.992, 0.963)),
    ("ndp-rt openvino int8", "ndp-rt", "ndp-rt", 88.0, 152.0, 330.0, 3900.0, (0.986, 0.951)),
    ("padim fp32", "padim", "other network", 410.0, 7.2, 720.0, 262.0, (0.976, 0.935)),
    ("stpm fp32", "stpm", "other network", 61.0, 5.1, 210.0, 262.0, (0.970, 0.941)),
    ("spade fp32", "spade", "other network", 9400.0, 26.0, 9100.0, 262.0, (0.914, 0.888)),
    ("dfr fp32", "dfr", "other network", 330.0, 41.0, 410.0, 262.0, (0.935, 0.911)),
    ("patch-svdd fp32", "patch-svdd", "other network", 3100.0, 61.0, 5020.0, 262.0, (0.946, 0.868)),
    ("riad fp32", "riad", "other network", 2600.0, 310.0, 2100.0, 262.0, (0.951, 0.879)),
    ("vae fp32", "vae", "other network", 22.0, 0.9, 33.0, 262.0, (0.744, 0.560)),
    ("anogan fp32", "anogan", "other network", 21000.0, 840.0, 9900.0, 262.0, (0.681, 0.512)),
    ("f-anogan fp32", "f-anogan", "other network", 17.5, 0.8, 30.0, 262.0, (0.702, 0.534)),
    ("ganomaly fp32", "ganomaly", "other network", 19.5, 1.1, 35.0, 262.0, (0.716, 0.561)),
    ("ae-ssim fp32", "ae-ssim", "other network", 15.0, 0.6, 21.0, 262.0, (0.754, 0.567)),
    ("trustmae fp32", "trustmae", "other network", 64.0, 11.0, 190.0, 262.0, (0.968, 0.905)),
    ("mkd fp32", "mkd", "other network", 55.0, 8.4, 230.0, 262.0, (0.907, 0.880)),
    ("gcpf fp32", "gcpf", "other network", 81.0, 7.9, 250.0, 262.0, (0.971, 0.945)),
    ("mb-pfm fp32", "mb-pfm", "other network", 122.0, 12.0, 280.0, 262.0, (0.994, 0.958)),
    ("patchcore fp32", "patchcore", "other network", 780.0, 24.0, 1700.0, 262.0, None),
    ("efficientad-s fp32", "efficientad-s", "other network", 48.0, 19.0, 160.0, 262.0, None),
    ("torch-compile fp32", "torch-compile", "same network", 905.0, 176.0, 1380.0, 262.0, (0.992, 0.963)),
    ("ndp-rt onnxruntime fp32", "ndp-rt", "ndp-rt", 610.0, 152.0, 1190.0, 540.0, (0.992, 0.963)),
)
SPLIT = {
    "preprocess": 0.01,
    "encoder": 0.22,
    "rbfrm": 0.09,
    "decoder": 0.38,
    "segmentation": 0.27,
    "postprocess": 0.03,
}


def draw_times(rng: np.random.Generator, p50_ms: float, count: int) -> list[float]:
    """Return latencies with a few slow ones among them."""
    times = p50_ms * np.exp(rng.normal(0, 0.025, count)) * np.where(rng.random(count) < 0.03, 1.3, 1.0)
    return [round(float(time), 4) for time in times]


def find_backend(name: str, word: str) -> str:
    """Return what computes a row."""
    if word == "ndp-rt":
        return name.split()[1]
    return word.split("-")[0] if word.startswith(("onnxruntime", "openvino")) else "torch"


def make_row(index: int, rng: np.random.Generator, batch: int = 1, query_count: int = 200, **changes: Any) -> Any:
    """Return the row of RIVALS[index]; `changes` replace fields, and None takes one out."""
    name, word, kind, p50_ms, gflop, megabytes, ceiling, accuracy = RIVALS[index]
    p50_ms *= batch
    times = draw_times(rng, p50_ms, query_count)
    latency = summarise(times)
    images_per_s = batch * 1000 / latency["mean_ms"]
    row: dict[str, Any] = {
        "name": name,
        "contender": word,
        "kind": kind,
        "backend": find_backend(name, word),
        "precision": name.split()[-1],
        "plan": "fused",
        "device": "cpu",
        "threads": 2,
        "batch": batch,
        "scenario": "single-stream",
        "latency": latency,
        "latencies_ms": times,
        "thinned": False,
        "round_p50_ms": [float(np.median(part)) for part in np.array_split(times, ROUND_COUNT)],
        "images_per_s": images_per_s,
        "percentile": bound_percentile(times, 0.9).to_json(),
        "peak_memory_bytes": 2**20 * 700 + index * 2**26,
        "gflop": gflop,
        "megabytes": megabytes,
        "ceiling": {
            "gflop_per_s": ceiling,
            "share": gflop * images_per_s / ceiling,
            "gbyte_per_s": 17.5,
            "note": "product 1024 x 1024 x 1024, the best of all repeats",
        },
        "check": {"map_max_abs_difference": 1.3e-7, "allowed": 1e-4, "against": "PyTorch fp32", "image_count": 3},
        "ratio": None if index == 0 else {"to": RIVALS[0][0], "median": 2.31, "low": 2.28, "high": 2.352},
        "facts": {"version": "2026.4.1", "cuda_graph": False},
        "notes": ["random weights"] if kind == "other network" else [],
        "warnings": [],
    }
    if accuracy is not None:
        source = "reported: MVTec AD textures, Table II" if kind == "other network" else "measured: tiles"
        row["accuracy"] = {"image_rocauc": accuracy[0], "pixel_rocauc": 0.97, "aupro": accuracy[1], "source": source}
    if kind == "ndp-rt":
        row["stages_ms"] = {name: share * p50_ms / batch for name, share in SPLIT.items()}
        row["stages_source"] = "the engine's own profile of each layer"
    else:
        row["stages_ms"] = {"preprocess": 1.4, "engine": 0.95 * p50_ms / batch, "postprocess": 2.0}
    return {key: value for key, value in (row | changes).items() if value is not None}


def make_record(rows: Sequence[Any] = (), mode: str = "latency", **changes: Any) -> dict[str, Any]:
    """Return a complete record; `changes` replace its fields."""
    return {
        "format": "ndp-rt bench",
        "format_version": 1,
        "created": "2026-11-23T10:58:52+00:00",
        "command": "ndp-rt bench demo.ndp --against pytorch,paper --data tiles",
        "mode": mode,
        "is_complete": True,
        "elapsed_s": 431.2,
        "machine": {
            "cpu": "AMD EPYC",
            "cpu_flags": ["avx2", "avx512f", "avx512_bf16"],
            "core_count": 2,
            "memory_bytes": 25276502016,
            "system": "Linux-6.1",
            "clock_mhz": {"min": 1500.0, "max": 3700.0, "current": 2600.0},
        },
        "versions": {"python": "3.11.7", "ndp-rt": "0.1.0", "openvino": "2026.4.1", "tensorrt": None},
        "bundle": {
            "name": "demo",
            "fingerprint": "f0c48db4026c8c38b3adc17d694a8fcab2d17d5b",
            "family": "ndpnet",
            "preset": "paper",
            "width": 64,
            "input_px": [256, 256],
            "rewrites": ["fold_batch_norm", "merge_upsample_conv"],
        },
        "settings": {
            "device": "cpu",
            "backend": "openvino",
            "precision": "bf16",
            "threads": 2,
            "scenario": "single-stream",
            "scenario_means": "one query after another; a query is one batch",
            "seconds": 10.0,
            "batches": [1],
            "image_source": "golden images",
            "image_count": 3,
            "is_from_file": False,
            "inside_the_clock": "a uint8 image in memory to the decision",
            "rounds": ROUND_COUNT,
        },
        "data": {"name": "tiles", "image_count": 320},
        "rows": list(rows),
        "left_out": {},
        "refused": {},
        "warnings": [],
        **changes,
    }


def make_latency_record(rng: np.random.Generator, row_count: int, **changes: Any) -> dict[str, Any]:
    """Return a record of mode "latency" with the first rows of RIVALS, at most 25."""
    return make_record([make_row(index, rng) for index in range(row_count)], **changes)


def make_point(rng: np.random.Generator, value: int, p50_ms: float, images: int, efficiency: float, **more: Any) -> Any:
    """Return a point of a sweep whose queries hold `images` images."""
    latency = summarise(draw_times(rng, p50_ms, 60))
    return {
        "value": value,
        "images_per_s": images * 1000 / latency["p50_ms"],
        "latency": latency,
        "check": {"map_max_abs_difference": 2e-7, "allowed": 1e-4},
        "efficiency": efficiency,
        **more,
    }


def make_sweep_record(rng: np.random.Generator, axis: str) -> dict[str, Any]:
    """Return a record of mode "sweep" along `axis`."""
    if axis == "batch":
        points = [make_point(rng, n, 130 * n**0.95, n, n**0.05) for n in (1, 2, 4, 8, 16)]
    elif axis == "threads":
        points = [make_point(rng, n, 250 / n**0.8, 1, n**-0.2) for n in (1, 2, 4, 8)]
    elif axis == "streams":
        points = [make_point(rng, n, 130 * n**0.9, n, n**0.1, threads=max(1, 4 // n)) for n in (1, 2, 4, 8)]
    else:
        sides = (256, 512, 1024, 2048, 4096)
        points = [make_point(rng, n, 130 + n**2 / 1e5, 1, (n / 256) ** 1.8, series="inspect") for n in sides]
        points += [
            make_point(rng, n, 130 * (n / 256) ** 2.1, 1, (n / 256) ** -0.1, series="inspect_large") for n in sides
        ]
    words = "Time grows more slowly than the batch up to 4; beyond it time grows about linearly."
    return make_record(mode="sweep", sweep={"axis": axis, "points": points, "words": [words]})


def make_cold_record(rng: np.random.Generator) -> dict[str, Any]:
    """Return a record of mode "cold"."""
    medians = {
        "interpreter": 21.0,
        "import": 5.0,
        "load names": 305.0,
        "open": 420.0,
        "read image": 6.0,
        "first inspection": 190.0,
    }

    def summarise_parts(parts: dict[str, float]) -> dict[str, Any]:
        times = {name: draw_times(rng, ms, 10) for name, ms in parts.items()}
        total = [sum(run) for run in zip(*times.values(), strict=True)]
        return {
            "count": 10,
            "total": summarise(total),
            "parts": {name: summarise(runs) for name, runs in times.items()},
            "following": summarise(draw_times(rng, 140.0, 10)),
            "first_ratio": {"median": 1.36, "low": 1.31, "high": 1.41},
            "check": {"map_max_abs_difference": 2e-7, "allowed": 1e-4},
        }

    cold = {"hit": summarise_parts(medians), "miss": summarise_parts(medians | {"open": 9400.0})}
    return make_record(mode="cold", cold=cold)


def make_idle_record(rng: np.random.Generator) -> dict[str, Any]:
    """Return a record of mode "idle"."""
    idle = {
        "pause_s": 2.5,
        "first": summarise(draw_times(rng, 171.0, 12)),
        "steady": summarise(draw_times(rng, 132.0, 60)),
        "ratio": {"median": 1.3, "low": 1.26, "high": 1.35},
    }
    return make_record(mode="idle", idle=idle)


def make_records_of_all_modes(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return a record of each mode, and of each axis of the sweep."""
    sweeps = [make_sweep_record(rng, axis) for axis in ("batch", "threads", "size", "streams")]
    return [make_latency_record(rng, 4), make_cold_record(rng), make_idle_record(rng), *sweeps]


def write_records(path: Path, *records: Any) -> Path:
    """Write records one a line, and return the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
