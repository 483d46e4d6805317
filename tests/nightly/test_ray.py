"""`ndp-rt inspect --ray` on a cluster of three nodes, of which workers and a node are killed: every row once."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyarrow import parquet

from ndp_rt.cli import EXIT_ERROR, EXIT_OK, EXIT_UNREADABLE, main
from ndp_rt.cli.demo_page import BUNDLE, IMAGES
from ndp_rt.pipeline.sinks import list_parts
from tests.archive.images import make_images, read_rows_of, remember, without_times
from tests.tiny_bundle import make_tiny_bundle

pytest.importorskip("ray", reason="needs Ray: pip install 'ndp-rt[ray]'")

IMAGE_COUNT = 10_000
RUN_S = 900.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(folder / "cache"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield make_tiny_bundle(folder / "tiny.ndp").path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, IMAGE_COUNT - 1, 50)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture
def cluster(tiny: Path) -> Iterator[Any]:
    """Three nodes of one core each, on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


def start(tiny: Path, images: Path, out: Path, address: str, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "ndp_rt.cli", "inspect", str(tiny), str(images), "-o", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, f"--ray={address}", *more], text=True, **pipes)


def list_workers(cluster: Any) -> list[psutil.Process]:
    """Return the processes of the actors on a cluster of ours."""
    found = []
    for node in cluster.list_all_nodes():
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error, IndexError):
                    found += [process] if process.cmdline()[0].startswith("ray::Worker") else []
    return found


def trouble(cluster: Any, out: Path, run: "subprocess.Popen[str]", chance: random.Random) -> None:
    """Kill workers, and then a node, one after another as parts come."""
    for part_count in (1, 4, 8, 12, 16):
        while run.poll() is None and not (len(list_parts(out)) >= part_count and list_workers(cluster)):
            time.sleep(0.05)
        if part_count == 8:
            cluster.remove_node(chance.choice([one for one in cluster.list_all_nodes() if not one.head]), False)
        else:
            for worker in sorted(list_workers(cluster), key=lambda _: chance.random())[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()


@pytest.mark.parametrize("seed", [1])
def test_every_row_once_whatever_is_killed(cluster: Any, tiny: Path, images: Path, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    run = start(tiny, images, out, cluster.address)
    trouble(cluster, out, run, random.Random(seed))
    said, complained = run.communicate(timeout=RUN_S)
    assert run.returncode == EXIT_UNREADABLE, complained[-3000:]
    assert complained.count("a worker died; ") >= 1, complained[-3000:]
    assert f"{IMAGE_COUNT - 1} images inspected" in said and "1 could not be read" in said
    rows = read_rows_of(out)
    assert len(rows) == len({row["path"] for row in rows}) == IMAGE_COUNT
    assert main(["inspect", str(tiny), str(images), "-o", str(tmp_path / "alone"), "--format", "parquet"]) == 4
    alone = parquet.read_table(tmp_path / "alone" / "results.parquet").to_pylist()
    assert without_times(rows) == sorted(without_times(alone), key=lambda row: row["path"])
    assert not list(out.glob("*.tmp"))
    before = remember(out)
    again = start(tiny, images / "1", out, cluster.address)
    said, complained = again.communicate(timeout=RUN_S)
    assert again.returncode == EXIT_OK and "200 images inspected" in said, complained[-3000:]
    assert remember(out) == before


def test_a_cluster_of_its_own(
    tiny: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ndp_rt", "selectors", "cv2"):  # nothing of the working directory is imported
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('foreign {name}')")
    monkeypatch.chdir(tmp_path)
    words = ["inspect", str(tiny), str(images / "1"), "-o", str(tmp_path / "out"), "--overlays"]
    assert main([*words, "--ray", "--workers", "2"]) == EXIT_OK
    assert len(list((tmp_path / "out" / "overlays").rglob("*.png"))) == len(read_rows_of(tmp_path / "out")) == 200
    before = remember(tmp_path / "out")
    assert main([*words, "--workers", "1"]) == EXIT_OK  # processes do what Ray has left: nothing
    assert remember(tmp_path / "out") == before
    assert "usage" not in capfd.readouterr().err.lower()


def test_evaluate_takes_the_same_way(tiny: Path, tmp_path: Path) -> None:
    figures = []
    for out, more in ((tmp_path / "alone", []), (tmp_path / "ray", ["--ray"])):
        assert main(["evaluate", str(BUNDLE), str(IMAGES), "-o", str(out), "--threads", "1", *more]) == EXIT_OK
        document = json.loads((out / "evaluation.json").read_text())
        figures.append((document["figures"], document["engine"]))
    assert figures[0] == figures[1]


def find_closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:CLOSED", "expected a Ray cluster, got no connection"),
        ("127.0.0.1:SILENT", "expected a Ray cluster, got something else"),
        ("auto", "expected a Ray cluster, got none"),
        ("ray://127.0.0.1:10001", "expected HOST:PORT of a cluster's head, auto or local, got 'ray://"),
        ("local", "expected a cluster with 999 CPUs for a worker, got one with "),
    ],
)
def test_an_address_without_a_cluster_is_one_error(
    tiny: Path, images: Path, tmp_path: Path, address: str, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = address.replace("CLOSED", str(find_closed_port()))
        address = address.replace("SILENT", str(silent.getsockname()[1]))
        more = ["--worker-cpus", "999"] if address == "local" else []
        run = start(tiny, images / "1", tmp_path / "out", address, *more)
        complained = run.communicate(timeout=RUN_S)[1]
    assert run.returncode == EXIT_ERROR
    assert complained.count("error:") == 1 and words in complained and "Traceback" not in complained
    assert list_parts(tmp_path / "out") == []


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ndp_rt":
            raise ModuleNotFoundError("No module named 'ndp_rt'", name="ndp_rt")
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize(
    ("customised", "words"),
    [
        ("import ndp_rt; ndp_rt.__version__ = '0.0.1'", "as where the run began, got 0.0.1"),
        (BLOCK, "got: ModuleNotFoundError: No module named 'ndp_rt'. Install the same on every node"),
    ],
    ids=["another version", "none"],
)
def test_workers_without_this_ndp_rt_say_so(
    tiny: Path, images: Path, tmp_path: Path, customised: str, words: str
) -> None:
    from ray.cluster_utils import Cluster

    (tmp_path / "sitecustomize.py").write_text(customised)
    node = {"num_cpus": 1, "include_dashboard": False, "env_vars": {"PYTHONPATH": str(tmp_path)}}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        run = start(tiny, images / "1", tmp_path / "out", made.address)
        complained = run.communicate(timeout=RUN_S)[1]
    finally:
        made.shutdown()
    assert run.returncode == EXIT_ERROR
    assert complained.count("error:") == 1 and words in complained, complained


def test_a_cluster_that_wants_a_token_gets_it_or_says_so(tiny: Path, images: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        port = find_closed_port()
        ray = [sys.executable, "-m", "ray.scripts.scripts"]
        head = ["start", "--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
        with subprocess.Popen([*ray, *head], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as cluster:
            try:
                assert cluster.stdout is not None
                while "Ray runtime started" not in (line := cluster.stdout.readline()):
                    assert line, "the cluster has not started"
                threading.Thread(target=cluster.stdout.read, daemon=True).start()  # so that the pipe never fills
                run = start(tiny, images / "1", tmp_path / "out", f"127.0.0.1:{port}")
                assert run.communicate(timeout=RUN_S)[0] and run.returncode == EXIT_OK
                patch.setenv("RAY_AUTH_TOKEN", "f" * 64)
                run = start(tiny, images / "1", tmp_path / "other", f"127.0.0.1:{port}")
                complained = run.communicate(timeout=RUN_S)[1]
            finally:
                cluster.terminate()
    assert run.returncode == EXIT_ERROR
    assert complained.count("error:") == 1 and "expected the token of that cluster" in complained
