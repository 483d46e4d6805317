"""Measures what it costs to send an image to `ndp-rt serve`, by form: `python -m tests.serve.measure_forms`.

Forms take turns. Times are above `Inspector.inspect` of the same image in the same minutes, in ms: of a request by wall
clock, and processor time of client and service together, which other work on the machine changes less.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import psutil
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from ndp_rt import Inspector, read_image
from ndp_rt.cli import main as ndp_rt_main
from ndp_rt.cli.demo_page import IMAGES
from ndp_rt.devices.machine import find_cpu
from tests.nightly.test_triton import Triton, make_environment
from tests.serve.conftest import Served
from tests.tiny_bundle import make_tiny_bundle


def make_forms(served: Served, image: np.ndarray) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return, by form, the bytes of an image and what asks for it."""
    web = http_client.InferenceServerClient(served.address)
    rpc = grpc_client.InferenceServerClient(served.grpc_address)
    forms: dict[str, tuple[int, Callable[[], Any]]] = {}

    def add(name: str, client: Any, module: Any, values: np.ndarray, size_bytes: int, **options: Any) -> None:
        one = module.InferInput(
            "encoded" if values.dtype == object else "image",
            list(values.shape),
            "BYTES" if values.dtype == object else "UINT8",
        )
        one.set_data_from_numpy(values, **options)
        outputs = None if module is grpc_client else [module.InferRequestedOutput("score", **options)]
        forms[name] = size_bytes, lambda: client.infer("tiny", [one], outputs=outputs)

    files = {kind: cv2.imencode(kind, image[:, :, ::-1])[1].tobytes() for kind in (".png", ".jpg")}
    add("HTTP, binary pixels", web, http_client, image, image.nbytes, binary_data=True)
    add("gRPC, binary pixels", rpc, grpc_client, image, image.nbytes)
    text = json.dumps(image.ravel().tolist(), separators=(",", ":"))
    add("HTTP, pixels as JSON", web, http_client, image, len(text), binary_data=False)
    for kind, content in files.items():
        encoded = np.array([content], dtype=object)
        add(f"HTTP, a {kind[1:].upper()} file", web, http_client, encoded, len(content), binary_data=True)
    add("gRPC, a PNG file", rpc, grpc_client, np.array([files[".png"]], dtype=object), len(files[".png"]))
    return forms


def start_triton(bundle: Path, folder: Path) -> Triton:
    """Serve the bundle by NVIDIA Triton, one instance of two threads."""
    trouble = make_environment(folder / "env")
    assert trouble is None, trouble
    words = [str(bundle), "-o", str(folder / "repository"), "--threads", "2", "--instances", "1"]
    assert ndp_rt_main(["export-triton", *words]) == 0
    triton = Triton(folder / "env", folder / "repository", folder / "triton.log")
    assert triton.wait_until_ready(), triton.log.read_text(errors="replace")[-3000:]
    return triton


def make_triton_forms(triton: Triton, image: np.ndarray) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return the forms of an image for Triton, whose inputs are batches."""
    forms: dict[str, tuple[int, Callable[[], Any]]] = {}
    for name, module, port in (("HTTP", http_client, triton.ports[0]), ("gRPC", grpc_client, triton.ports[1])):
        client = module.InferenceServerClient(f"127.0.0.1:{port}")
        one = module.InferInput("image", [1, *image.shape], "UINT8")
        one.set_data_from_numpy(image[None])
        ask = partial(client.infer, "tiny", [one], outputs=[module.InferRequestedOutput("score")])
        forms[f"Triton, {name}, pixels"] = image.nbytes, ask
    return forms


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=20, help="of a form in a round")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--triton", action="store_true", help="also by NVIDIA Triton, from the package index")
    args = parser.parse_args()
    image = cv2.resize(read_image(next((IMAGES / "test").rglob("*.png"))), (args.side, args.side))
    image = np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))
    with tempfile.TemporaryDirectory(prefix="ndp-rt-forms-") as name:
        bundle = make_tiny_bundle(Path(name) / "tiny.ndp").path
        empty = np.empty(0, np.float32)
        with (
            Served([str(bundle), "--no-page"], Path(name) / "cache") as served,
            Inspector.open(bundle, threads=2) as inspector,
            contextlib.ExitStack() as stack,
        ):
            own, services = psutil.Process(), [psutil.Process(served.process.pid)]
            forms = {"inspect": (0, lambda: inspector.inspect(image, map_out=empty)), **make_forms(served, image)}
            if args.triton:
                triton = start_triton(bundle, Path(name))
                stack.callback(triton.stop)
                services += [one := psutil.Process(triton.process.pid), *one.children(recursive=True)]
                forms |= make_triton_forms(triton, image)
            walls: dict[str, list[float]] = defaultdict(list)
            busy: dict[str, list[float]] = defaultdict(list)
            for number in range(args.rounds + 1):
                for form, (_, ask) in forms.items():
                    before = sum(sum(one.cpu_times()[:2]) for one in (own, *services))
                    times = []
                    for _ in range(args.requests):
                        start_s = time.perf_counter()
                        ask()
                        times.append((time.perf_counter() - start_s) * 1e3)
                    if number:  # the first is for warming up
                        used_s = sum(sum(one.cpu_times()[:2]) for one in (own, *services)) - before
                        busy[form].append(used_s * 1e3 / args.requests)
                        walls[form] += times
            assert served.stop() == 0
    print(
        f"{find_cpu().model_name}; {args.side} x {args.side} x 3, {args.rounds} x {args.requests} requests of each form"
    )
    alone = median(walls["inspect"]), sum(busy["inspect"]) / args.rounds
    print(f"inspect: p50 {alone[0]:.2f} ms, processor {alone[1]:.2f} ms; the others above it:")
    for form, (size_bytes, _) in list(forms.items())[1:]:
        wall, least = median(walls[form]) - alone[0], min(walls[form]) - min(walls["inspect"])
        used = sum(busy[form]) / args.rounds - alone[1]
        print(
            f"{form:22} {size_bytes / 1024:7.0f} KiB  p50 {wall:.2f} ms, least {least:.2f} ms, processor {used:.2f} ms"
        )


if __name__ == "__main__":
    main()
