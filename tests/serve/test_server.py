"""The service's process: who may ask, its ports, and its stop."""

import asyncio
import contextlib
import datetime
import json
import shutil
import signal
import socket
import ssl
import sys
import threading
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from ndp_rt.bundle import open_bundle
from ndp_rt.cli import main
from ndp_rt.editing import set_threshold
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.serve import connections, server
from ndp_rt.serve.server import _listen
from tests.serve.conftest import Served, describe_image, make_image

IMAGE = make_image(0, 32, 32)
GOOD = describe_image(IMAGE)


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_loses_nothing_that_was_accepted(bundle_path: Path, cache: Path, number: int) -> None:
    with Served([str(bundle_path), "--queue", "1000"], cache) as one:
        document = describe_image(np.stack([IMAGE] * 16))
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(one.infer(document)), daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        while one.read_metric("ndp_rt_images_total") + one.read_metric("ndp_rt_waiting_images") < 8 * 16:
            pass  # until all are accepted, some done, some waiting
        one.process.send_signal(number)
        for thread in threads:
            thread.join()
        assert one.process.wait(timeout=300) == 0
        assert [status for status, _ in answers] == [200] * 8
        assert all(len(answer["outputs"][0]["data"]) == 16 for _, answer in answers)


def test_a_token_is_asked_for_everywhere_but_health(bundle_path: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret\n")
    with Served([str(bundle_path), "--token-file", str(tmp_path / "token")], cache) as one:
        for path, body in (("/v2", None), ("/metrics", None), ("/v2/models/tiny/infer", json.dumps(GOOD).encode())):
            method = "GET" if body is None else "POST"
            for words in (
                {},
                {"authorization": "Bearer a secre"},
                {"authorization": "a secret"},
                {"authorization": "\xe9"},
            ):
                assert one.ask(method, path, body, **words)[0] == 401
            assert one.ask(method, path, body, authorization="Bearer a secret")[0] == 200
        assert one.ask("GET", "/v2/health/ready")[0] == 200
        with grpc_client.InferenceServerClient(one.grpc_address) as client:
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.get_server_metadata()
            assert client.get_server_metadata(headers={"authorization": "Bearer a secret"}).name == "ndp-rt"
        assert one.stop() == 0


def make_certificates(folder: Path) -> None:
    """Write a certificate for 127.0.0.1 that signs itself, and its key: server.pem, server.key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(private)


def test_with_tls_clients_show_certificates(bundle_path: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="certificates are made with it: pip install cryptography")
    make_certificates(tmp_path)
    pem, key = tmp_path / "server.pem", tmp_path / "server.key"
    options = ["--tls-certificate", str(pem), "--tls-key", str(key), "--tls-client-ca", str(pem)]
    with Served([str(bundle_path), *options], cache) as one:
        url = f"https://{one.address}/v2/health/ready"
        context = ssl.create_default_context(cafile=str(pem))
        with pytest.raises(OSError):  # no certificate: the handshake, or the first read after it, fails
            urllib.request.urlopen(url, context=context).read()
        context.load_cert_chain(pem, key)
        assert json.loads(urllib.request.urlopen(url, context=context).read()) == {"ready": True}
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://{one.address}/v2/health/ready").read()
        files = {"root_certificates": str(pem), "private_key": str(key), "certificate_chain": str(pem)}
        with grpc_client.InferenceServerClient(one.grpc_address, ssl=True, **files) as client:
            assert client.is_server_ready()
        with (
            grpc_client.InferenceServerClient(one.grpc_address, ssl=True, root_certificates=str(pem)) as client,
            pytest.raises(InferenceServerException, match="UNAVAILABLE"),
        ):
            client.is_server_ready()
        assert one.stop() == 0


def test_a_bundle_that_is_replaced_on_disk_answers_after_it_is_loaded(
    bundle_path: Path, cache: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(bundle_path, tmp_path / "own.ndp")
    with Served([f"tiny={own}"], cache) as one:

        def read_threshold() -> float:
            status, answer = one.infer({**GOOD, "outputs": [{"name": "threshold"}]})
            assert status == 200
            return float(answer["outputs"][0]["data"][0])

        before = read_threshold()
        set_threshold(open_bundle(own), "fp32", ThresholdSpec(value=0.125, source="manual"))
        assert read_threshold() == before
        assert one.ask("POST", "/v2/repository/models/tiny/load")[0] == 200 and read_threshold() == 0.125
        (own / "manifest.json").write_text("{}")
        status, body = one.ask("POST", "/v2/repository/models/tiny/load")
        assert status == 503 and "manifest" in json.loads(body)["error"]
        assert read_threshold() == 0.125  # the former one goes on
        assert one.stop() == 0


def ask_while(served: Served, change: Callable[[http_client.InferenceServerClient], None]) -> list[int]:
    """Return the statuses that four clients got while a model was changed five times, each at least one."""
    found: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while True:
            found.append(served.infer(GOOD)[0])
            if stop.is_set():
                return

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with http_client.InferenceServerClient(served.address) as client:
            for _ in range(5):
                change(client)
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    assert len(found) >= len(threads)  # none has died
    return found


def test_unloading_under_load_answers_every_request(served: Served) -> None:
    def change(client: http_client.InferenceServerClient) -> None:
        client.unload_model("tiny")
        client.load_model("tiny")

    assert set(ask_while(served, change)) <= {200, 503} and served.infer(GOOD)[0] == 200


def test_loading_again_under_load_refuses_nobody(served: Served) -> None:
    assert set(ask_while(served, lambda client: client.load_model("tiny"))) == {200}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing.ndp"], "missing.ndp"),
        (["tiny={path}", "tiny={path}"], "each name and version once"),
        (["a/b={path}"], "NAME:VERSION=PATH"),
        (["={path}"], "NAME:VERSION=PATH"),
        (["{path}", "--queue", "0"], "--queue: expected a number from 1 on"),
        (["{path}", "--max-body-mb", "-1"], "--max-body-mb"),
        (["{path}", "--token-file", "missing"], "--token-file"),
        (["{path}", "--tls-key", "missing"], "expected both or none"),
        (["{path}", "--tls-client-ca", "missing"], "expected --tls-certificate"),
        (["{path}", "--tls-key", "missing", "--tls-certificate", "missing"], "expected a PEM file"),
        (
            ["{path}", "--tls-key", "{path}/manifest.json", "--tls-certificate", "{path}/manifest.json"],
            "PEM files that",
        ),
        (["{path}", "--port", "70000"], "--port 70000"),
        (["{path}", "--port", "{port}"], "--port {port}: cannot listen"),
        (["{path}", "--port", "0", "--grpc-port", "{port}"], "--grpc-port {port}: cannot listen"),
        (["{path}", "--host", "no.such.host.invalid", "--port", "0"], "cannot listen at no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    bundle_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = [word.format(path=bundle_path, port=port) for word in words]
        if "--port" not in given:
            given += ["--port", "0"]
        if "--grpc-port" not in given:
            given += ["--no-grpc"]
        assert main(["serve", *given, "--threads", "1"]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert sentence.format(port=port) in errors[-1] and errors[-1].startswith("ndp-rt: error: ")


def test_answers_are_sent_at_once() -> None:
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on: 40 ms an answer


@pytest.mark.skipif(sys.platform == "win32", reason="needs Unix, where asyncio calls a socket's accept")
def test_handshakes_that_do_not_come_end_and_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography", reason="certificates are made with it: pip install cryptography")
    make_certificates(tmp_path)
    monkeypatch.setattr(connections, "PEER_COUNT", 2)
    options = server.ServerOptions(certificate=tmp_path / "server.pem", key=tmp_path / "server.key")
    face: Any = types.SimpleNamespace(app=None)

    async def listen(head_s: float, opened_count: int) -> None:
        """Open connections, and wait until the last of them is closed."""
        monkeypatch.setattr(server, "HEAD_S", head_s)
        web = server.HttpServer(server._configure(face, options))
        with server._listen("127.0.0.1", 0, has_tls=True) as listening:
            await web.startup([listening])
            port = listening.getsockname()[1]
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(opened_count)]
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(held[-1][0].read(), 50) == b""
            for _, writer in held:
                writer.close()
            while connections.CountedSocket.holders:
                await asyncio.sleep(0)
            for one in web.servers:
                one.close()

    asyncio.run(listen(0.05, 1))  # its time is over
    asyncio.run(listen(600, 3))  # it is one above the share
