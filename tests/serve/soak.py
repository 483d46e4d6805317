"""Holds `ndp-rt serve` under load for long, with clients that vanish: `python -m tests.serve.soak --minutes 60`.

Prints the memory that is the service's alone as it goes and, at the end, how it grew from the first tenth of the time
to the last, after a start of `--warm` minutes. Exit code 1: it grew by `--limit` or more, an answer was wrong, or the
service has ended.
"""

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import psutil
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from ndp_rt import Inspector
from tests.serve.conftest import Served, make_image
from tests.tiny_bundle import make_tiny_bundle

SAMPLE_S = 5.0


class Load:
    """Clients that ask in turn: those that stay, of every form, and those that go at any moment."""

    def __init__(self, served: Served, bundle: Path, image: np.ndarray) -> None:
        self._served, self._image = served, image
        with Inspector.open(bundle, threads=2) as inspector:
            self._score = inspector.inspect(image).score
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.stop = threading.Event()
        body, size = self._make_body()
        head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: {served.address}\r\nContent-Length: {len(body)}\r\n"
        self._request = f"{head}Inference-Header-Content-Length: {size}\r\n\r\n".encode() + body

    def _make_body(self) -> tuple[bytes, int]:
        one = http_client.InferInput("image", list(self._image.shape), "UINT8")
        one.set_data_from_numpy(self._image)
        body, size = http_client.InferenceServerClient.generate_request_body([one])
        return bytes(body), size or len(body)

    def ask_http(self) -> None:
        """Ask with a connection of its own."""
        with http_client.InferenceServerClient(self._served.address, network_timeout=120) as client:
            one = http_client.InferInput("image", list(self._image.shape), "UINT8")
            one.set_data_from_numpy(self._image)
            self._check(client.infer("tiny", [one]).as_numpy("score")[0])

    def ask_with_file(self) -> None:
        """Send an image file."""
        with http_client.InferenceServerClient(self._served.address, network_timeout=120) as client:
            file = cv2.imencode(".png", self._image[:, :, ::-1])[1].tobytes()
            one = http_client.InferInput("encoded", [1], "BYTES")
            one.set_data_from_numpy(np.array([file], dtype=object))
            self._check(client.infer("tiny", [one]).as_numpy("score")[0])

    def ask_grpc(self) -> None:
        """Ask by gRPC, with the map."""
        with grpc_client.InferenceServerClient(self._served.grpc_address) as client:
            one = grpc_client.InferInput("image", list(self._image.shape), "UINT8")
            one.set_data_from_numpy(self._image)
            outputs = [grpc_client.InferRequestedOutput(name) for name in ("score", "map")]
            self._check(client.infer("tiny", [one], outputs=outputs).as_numpy("score")[0])

    def vanish(self) -> None:
        """Send a part of a request, or all of it, and go without reading."""
        length = random.choice([1, 60, len(self._request) // 2, len(self._request)])
        with socket.create_connection(("127.0.0.1", self._served.port), timeout=120) as client:
            client.sendall(self._request[:length])
            if random.random() < 0.5:  # a reset, not an orderly end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def vanish_from_grpc(self) -> None:
        """Give a call up soon after it was sent."""
        client = grpc_client.InferenceServerClient(self._served.grpc_address)
        one = grpc_client.InferInput("image", list(self._image.shape), "UINT8")
        one.set_data_from_numpy(self._image)
        client.async_infer("tiny", [one], lambda result, error: None).cancel()
        client.close()

    def ask_nonsense(self) -> None:
        """Send what is refused."""
        status, _ = self._served.ask("POST", "/v2/models/tiny/infer", b"{" * random.randrange(1, 5000))
        self.wrong += [] if status == 400 else [f"nonsense: {status}"]

    def look(self) -> None:
        """Ask what a browser and a collector of metrics ask."""
        for path in ("/", "/page/data?model=tiny&version=1", "/metrics", "/v2/health/ready"):
            status, _ = self._served.ask("GET", path)
            self.wrong += [] if status == 200 else [f"{path}: {status}"]

    def _check(self, score: float) -> None:
        if score != self._score:
            self.wrong.append(f"score {score}, expected {self._score}")

    def run(self, rate: float) -> None:
        """Ask until `stop`, about so many times a second."""
        calls: list[Callable[[], None]] = [self.ask_http, self.ask_http, self.ask_with_file, self.ask_grpc]
        calls += [self.vanish, self.vanish, self.vanish_from_grpc, self.ask_nonsense, self.look]
        while not self.stop.wait(random.expovariate(rate)):
            call = random.choice(calls)
            try:
                call()
            except InferenceServerException as error:
                is_refusal = any(word in str(error) for word in ("429", "RESOURCE_EXHAUSTED"))
                self.counts["refused"] += is_refusal
                self.wrong += [] if is_refusal else [f"{call.__name__}: {error}"]
            except OSError as error:
                self.wrong.append(f"{call.__name__}: {error!r}")
            self.counts[call.__name__] += 1


def main() -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second, together")
    parser.add_argument("--limit", type=float, default=0.01)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ndp-rt-soak-") as name:
        bundle = make_tiny_bundle(Path(name) / "tiny.ndp").path
        with Served([str(bundle), "--queue", "32"], Path(name) / "cache") as served:
            load = Load(served, bundle, make_image(0, 256, 256))
            threads = [threading.Thread(target=load.run, args=(args.rate / args.clients,)) for _ in range(args.clients)]
            for thread in threads:
                thread.start()
            process = psutil.Process(served.process.pid)
            samples: list[float] = []
            begin_s = time.monotonic()
            while (past_s := time.monotonic() - begin_s) < 60 * (args.warm + args.minutes):
                time.sleep(SAMPLE_S)
                if served.process.poll() is not None:
                    load.wrong.append(f"the service has ended: {served.errors[-5:]}")
                    break
                if past_s >= 60 * args.warm:
                    samples.append(process.memory_full_info().uss / 2**20)
                    if len(samples) % 12 == 1:
                        figures = {"min": round(past_s / 60, 1), "own_mib": round(samples[-1], 2)}
                        state = {"threads": process.num_threads(), "files": process.num_fds()}
                        print(json.dumps({**figures, **state, **load.counts}), flush=True)
            load.stop.set()
            for thread in threads:
                thread.join()
            code = served.stop()
    tenth = max(1, len(samples) // 10)
    growth = median(samples[-tenth:]) / median(samples[:tenth]) - 1.0 if samples else float("nan")
    total = sum(load.counts.values())
    wrong = f"wrong: {len(load.wrong)} {load.wrong[:5]}"
    print(f"{args.minutes:g} minutes, {total} calls, growth {growth:+.2%}, {wrong}, exit code {code}")
    return int(bool(load.wrong) or code != 0 or not growth < args.limit)


if __name__ == "__main__":
    sys.exit(main())
