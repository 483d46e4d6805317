"""A service in a process of its own, as users start it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_bundle import make_tiny_bundle


class Served:
    """A running `ndp-rt serve`: its process, its ports and what it has printed."""

    def __init__(self, arguments: Sequence[str], cache: Path) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "ndp_rt.cli", "serve", *arguments, "--port", "0", "--grpc-port", "0"]
        self.process = subprocess.Popen(
            [*command, "--threads", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "NDP_RT_CACHE": str(cache), "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)  # so that the pipe never fills
        self._reader.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.strip() == "ready":
                break
        else:
            raise AssertionError(f"the service did not start: {self.lines} {self.errors}")
        self.port, self.grpc_port = (int(re.findall(r":(\d+)$", line)[0]) for line in self.lines[:2])

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.process.poll() is None:
            self.process.kill()  # a test that failed
        self.process.wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Return status and body of an HTTP request."""
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def infer(self, document: dict[str, Any], path: str = "/v2/models/tiny/infer") -> tuple[int, dict[str, Any]]:
        """Return status and answer of an inference in JSON."""
        status, body = self.ask("POST", path, json.dumps(document).encode())
        return status, json.loads(body)

    def read_metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels."""
        text = self.ask("GET", "/metrics")[1].decode()
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
            if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                total += float(found[2])
        return total

    def stop(self) -> int:
        """Stop it as a service manager does and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=300)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of engines for all services and inspectors of these tests."""
    return tmp_path_factory.mktemp("serve-cache")


@pytest.fixture(autouse=True)
def use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(cache))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)  # clients would ask it for this machine's own ports


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("serve") / "tiny.ndp").path


@pytest.fixture(scope="module")  # it is a child of the process that runs other files' tests next
def served(bundle_path: Path, cache: Path) -> Iterator[Served]:
    """A service with two versions of the tiny bundle."""
    with Served([str(bundle_path), f"tiny:2={bundle_path}", "--queue", "32"], cache) as one:
        yield one
        assert one.stop() == 0


def make_image(seed: int = 0, height: int = 70, width: int = 90) -> np.ndarray:
    """Return a random image, uint8 [h, w, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def describe_image(image: np.ndarray, **more: Any) -> dict[str, Any]:
    """Return a request in JSON with one image."""
    one = {"name": "image", "datatype": "UINT8", "shape": list(image.shape), "data": image.ravel().tolist()}
    return {"inputs": [one], **more}
