"""The repository of `ndp-rt export-triton`, served by NVIDIA's own tritonserver and asked by its clients."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from ndp_rt import Inspector
from ndp_rt.cli import main
from tests.serve.conftest import make_image
from tests.tiny_bundle import make_tiny_bundle

IMAGES = [make_image(seed) for seed in range(3)]
OUTPUTS = ("score", "threshold", "is_defect", "defects", "map", "mask")
START_S = 300.0  # a busy machine builds the engine first
SITE = Path(sysconfig.get_paths()["purelib"])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "env"
    trouble = make_environment(folder)
    if trouble is not None:
        pytest.skip(f"needs nvidia-pytriton 0.7.0 and numpy<2 from the package index: {trouble[-200:]}")
    return folder


def make_environment(folder: Path) -> str | None:
    """Make a Python with this one's packages, but with a NumPy that Triton reads, and with tritonserver.

    Returns:
        What the package index lacks; None: nothing.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    root = Path(__file__).parents[2]
    (site / "others.pth").write_text("\n".join([str(root), *(one for one in sys.path if one.endswith("-packages"))]))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "numpy<2", "nvidia-pytriton==0.7.0"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


class Triton:
    """A running tritonserver."""

    def __init__(self, environment: Path, repository: Path, log: Path) -> None:
        (site,) = environment.glob("lib/python*/site-packages")
        server = site / "pytriton" / "tritonserver"
        backends = log.parent / "backends"
        shutil.copytree(server / "backends" / "python", backends / "python")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        self.ports = find_free_ports(3)
        libraries = [str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        variables = {
            **os.environ,
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join(libraries),
            "PYTHONPATH": str(site),
            "NDP_RT_CACHE": str(log.parent / "cache"),
        }
        names = ("--http-port", "--grpc-port", "--metrics-port")
        options = [f"{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        options += [f"--model-repository={repository}", f"--backend-directory={backends}"]
        options += ["--backend-config=python,shm-default-byte-size=4194304"]
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [server / "bin" / "tritonserver", *options], env=variables, stdout=stream, stderr=stream
            )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def wait_until_ready(self) -> bool:
        """Tell whether it is ready, or has ended."""
        end = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://{self.address}/v2/health/ready") as answer:
                    return bool(answer.status == 200)
            except urllib.error.URLError:
                time.sleep(0.2)
        return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=120)


def find_free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.ndp").path


@pytest.fixture(scope="module")
def triton(environment: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("served")
    words = [str(bundle_path), f"tiny:2={bundle_path}", f"other={bundle_path}", "-o", str(folder / "repository")]
    assert main(["export-triton", *words, "--threads", "2", "--queue", "8", "--instances", "1"]) == 0
    one = Triton(environment, folder / "repository", folder / "triton.log")
    try:
        assert one.wait_until_ready(), one.log.read_text(errors="replace")[-3000:]
        yield one
    finally:
        one.stop()


def make_input(module: Any, values: np.ndarray, datatype: str, name: str) -> Any:
    made = module.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def check_answers(found: Any, bundle_path: Path, names: Sequence[str] = OUTPUTS) -> None:
    """Compare with an inspector of the same backend, bit for bit."""
    with Inspector.open(bundle_path, threads=2) as inspector:
        results = [inspector.inspect(image) for image in IMAGES]
    for name in ("score", "threshold", "is_defect"):
        assert found.as_numpy(name).ravel().tolist() == [getattr(one, name) for one in results]
    peaks = [[box["peak"] for box in json.loads(text)] for text in found.as_numpy("defects").ravel()]
    assert peaks == [[defect.peak for defect in one.defects] for one in results]
    if "map" in names:
        np.testing.assert_array_equal(found.as_numpy("map"), np.stack([one.anomaly_map for one in results]))
        np.testing.assert_array_equal(found.as_numpy("mask"), np.stack([one.make_mask() for one in results]))


@pytest.mark.parametrize("module", [http_client, grpc_client])
def test_answers_are_the_inspectors(triton: Triton, bundle_path: Path, module: Any) -> None:
    address = triton.address if module is http_client else f"127.0.0.1:{triton.ports[1]}"
    with module.InferenceServerClient(address) as client:
        outputs = [module.InferRequestedOutput(name) for name in OUTPUTS]
        pixels = make_input(module, np.stack(IMAGES), "UINT8", "image")
        check_answers(client.infer("tiny", [pixels], outputs=outputs, priority=1), bundle_path)
        files = [[cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()] for image in IMAGES]
        encoded = make_input(module, np.array(files, dtype=object), "BYTES", "encoded")
        scalars = [module.InferRequestedOutput(name) for name in OUTPUTS[:4]]
        found = client.infer("other", [encoded], outputs=scalars, model_version="1", timeout=60_000_000)
        check_answers(found, bundle_path, OUTPUTS[:4])


def test_what_cannot_be_inspected_is_an_error_and_the_model_lives(triton: Triton, bundle_path: Path) -> None:
    with http_client.InferenceServerClient(triton.address) as client:
        junk = make_input(http_client, np.array([[b"junk"]], dtype=object), "BYTES", "encoded")
        with pytest.raises(InferenceServerException, match="expected PNG, JPEG"):
            client.infer("tiny", [junk])
        deep = make_input(http_client, np.zeros((1, 4, 4, 4), np.uint8), "UINT8", "image")
        with pytest.raises(InferenceServerException, match="got uint8"):
            client.infer("tiny", [deep])
        both = make_input(http_client, np.stack(IMAGES[:1]), "UINT8", "image")
        with pytest.raises(InferenceServerException, match="expected one"):
            client.infer("tiny", [both, junk])
        assert client.infer("tiny", [both]).as_numpy("score").shape == (1, 1)
        assert client.get_model_metadata("tiny")["versions"] == ["1", "2"]


def test_a_numpy_that_triton_misreads_is_named(environment: Path, bundle_path: Path, tmp_path: Path) -> None:
    assert main(["export-triton", str(bundle_path), "-o", str(tmp_path / "repository")]) == 0
    later = shutil.copytree(environment, tmp_path / "env", symlinks=True)
    (site,) = later.glob("lib/python*/site-packages")
    for path in site.glob("numpy*"):
        shutil.rmtree(path)
    one = Triton(later, tmp_path / "repository", tmp_path / "triton.log")
    try:
        assert not one.wait_until_ready()
        assert "expected NumPy below 2" in one.log.read_text(errors="replace")
    finally:
        one.stop()
