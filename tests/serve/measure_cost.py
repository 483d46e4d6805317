"""What `ndp-rt serve` costs above an inspector in the client's process: `python -m tests.serve.measure_cost NAME.ndp`.

One client asks in turn with `Inspector.inspect`, in random order; sixteen connections of one process with requests that
were made before, in turn with `inspect_batch` of sixteen. A line of JSON is printed, for `bench/results/serve.jsonl`.
"""

import argparse
import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt import __version__
from ndp_rt.evaluate.machine import describe_machine
from ndp_rt.inspector import Inspector
from ndp_rt.serve.json_form import HEADER
from ndp_rt.serve.queue import NO_MAP

CLIENT_COUNT = 16
WARM_UP_COUNT = 10
NAME = "model"
END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@contextmanager
def serve(bundle: Path, options: Sequence[str]) -> Iterator[list[int]]:
    """Give the HTTP and the gRPC port of a service in a process of its own."""
    command = [sys.executable, "-m", "ndp_rt.cli", "serve", f"{NAME}={bundle}", "--port", "0", "--grpc-port", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if lines[-1] == "ready":
                    break
            yield [int(line.rpartition(":")[2]) for line in lines[:2]]
        finally:
            process.terminate()


def make_request(image: Any) -> bytes:
    """Return a whole HTTP request with an image as binary data."""
    one = {"name": "image", "datatype": "UINT8", "shape": image.shape, "parameters": {"binary_data_size": image.nbytes}}
    text = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: localhost\r\n{HEADER}: {len(text)}\r\ncontent-length: "
    return bytes(head.encode() + str(len(text) + image.nbytes).encode() + END + text + image.tobytes())


def read_length(head: bytes) -> int:
    """Return how long an answer's body is."""
    found = LENGTH.search(head)
    assert head.startswith(b"HTTP/1.1 200") and found is not None, head
    return int(found[1])


def ask(connection: socket.socket, request: bytes) -> None:
    """Send a request and read its answer."""
    connection.sendall(request)
    got = b""
    while END not in got or len(got) < got.index(END) + len(END) + read_length(got):
        got += connection.recv(2**16)


async def ask_side_by_side(port: int, request: bytes, seconds: float) -> list[float]:
    """Return the latencies in ms of CLIENT_COUNT connections."""
    latencies: list[float] = []
    end_s = time.perf_counter() + seconds

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start_s := time.perf_counter()) < end_s:
            writer.write(request)
            await reader.readexactly(read_length(await reader.readuntil(END)))
            latencies.append((time.perf_counter() - start_s) * 1e3)
        writer.close()

    await asyncio.gather(*(work() for _ in range(CLIENT_COUNT)))
    return latencies


def measure_one(inspector: Inspector, image: Any, ports: Sequence[int], count: int) -> dict[str, Any]:
    """Return p50 and p90 in ms of `inspect` and of clients, and what they take more than `inspect` at p50."""
    import tritonclient.grpc as by_grpc
    import tritonclient.http as by_http

    request, connection = make_request(image), socket.create_connection(("127.0.0.1", ports[0]))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clients = [
        module.InferenceServerClient(f"127.0.0.1:{p}") for module, p in zip((by_http, by_grpc), ports, strict=True)
    ]

    def infer(module: Any, client: Any) -> float:
        one = module.InferInput("image", list(image.shape), "UINT8")
        one.set_data_from_numpy(image)
        return float(client.infer(NAME, [one]).as_numpy("score")[0])

    calls: dict[str, Callable[[], object]] = {
        "inspect": lambda: inspector.inspect(image, map_out=NO_MAP),
        "socket": lambda: ask(connection, request),
        "tritonclient HTTP": lambda: infer(by_http, clients[0]),
        "tritonclient gRPC": lambda: infer(by_grpc, clients[1]),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    rng = np.random.default_rng(0)
    for _ in range(WARM_UP_COUNT + count):
        for name in rng.permutation([*calls]).tolist():
            start_s = time.perf_counter()
            calls[name]()
            times[name].append((time.perf_counter() - start_s) * 1e3)
    score = inspector.inspect(image, map_out=NO_MAP).score
    found: dict[str, Any] = {
        "score differences": [infer(by_http, clients[0]) - score, infer(by_grpc, clients[1]) - score]
    }
    for name, values in times.items():
        p50, p90 = np.percentile(values[WARM_UP_COUNT:], (50, 90)).tolist()
        found[name] = {"p50": round(p50, 3), "p90": round(p90, 3)}
        found[name]["above"] = round(p50 - found["inspect"]["p50"], 3)
    connection.close()
    for client in clients:
        client.close()
    return found


def measure_many(inspector: Inspector, image: Any, port: int, rounds: int, seconds: float) -> dict[str, float]:
    """Return medians over rounds: images a second of `inspect_batch` and of the service, their ratio, and p99 in ms."""
    request, images, found = make_request(image), [image] * CLIENT_COUNT, []
    for _ in range(rounds):
        start_s, done = time.perf_counter(), 0
        while time.perf_counter() - start_s < seconds:
            inspector.inspect_batch(images, maps_out=[NO_MAP] * CLIENT_COUNT)
            done += CLIENT_COUNT
        offline = done / (time.perf_counter() - start_s)
        start_s = time.perf_counter()
        latencies = asyncio.run(ask_side_by_side(port, request, seconds))
        served = len(latencies) / (time.perf_counter() - start_s)
        found.append((offline, served, served / offline, float(np.percentile(latencies, 99))))
    names = ("inspect_batch", "served", "ratio", "p99")
    return {
        name: round(statistics.median(column), 3) for name, column in zip(names, zip(*found, strict=True), strict=True)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=300, help="requests of one client")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a round's half")
    args = parser.parse_args(arguments)
    options = ["--precision", args.precision, "--threads", str(args.threads)]
    with (
        Inspector.open(args.bundle, precision=args.precision, threads=args.threads) as inspector,
        serve(args.bundle, options) as ports,
    ):
        contract = inspector.bundle.manifest.input
        image = np.random.default_rng(0).integers(0, 256, (contract.height_px, contract.width_px, 3), np.uint8)
        record = {
            "command": f"python -m tests.serve.measure_cost {args.bundle} {' '.join(options)}",
            "date": time.strftime("%Y-%m-%d"),
            "ndp_rt": __version__,
            "machine": describe_machine(),
            "one client, ms": measure_one(inspector, image, ports, args.count),
            f"{CLIENT_COUNT} connections": measure_many(inspector, image, ports[0], args.rounds, args.seconds),
        }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
