"""Whatever is sent, the answer is the protocol's, and the service lives."""

import contextlib
import json
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from ndp_rt.errors import InputError
from ndp_rt.serve.json_form import HEADER, parse_request
from ndp_rt.serve.protocol import split_elements
from tests.serve.conftest import Served, describe_image, make_image

IMAGE = make_image(0, 8, 8)
GOOD = describe_image(IMAGE)
INPUT = GOOD["inputs"][0]


def change(**values: Any) -> dict[str, Any]:
    """Return a request whose input has other values; None leaves one out."""
    one = {name: value for name, value in {**INPUT, **values}.items() if value is not None}
    return {"inputs": [one]}


BAD_DOCUMENTS = [
    {},
    [],
    "text",
    None,
    7,
    {"inputs": []},
    {"inputs": {}},
    {"inputs": "image"},
    {"inputs": [1]},
    {"inputs": [INPUT, INPUT]},
    {"inputs": [{}]},
    *(change(name=name) for name in ("other", "", None, 3, ["image"])),
    *(change(datatype=kind) for kind in ("FP32", "INT8", "BYTES", "uint8", "", None, 1, "UINT16 ")),
    *(
        change(shape=shape)
        for shape in (
            [8, 8],
            [8, 8, 4],
            [3, 8, 8],
            [192],
            [0, 8, 3],
            [-8, -8, 3],
            [8, 8, 3, 1, 1],
            [2**62, 2**62, 3],
            [8.0, 8, 3],
            [True, 8, 3],
            ["8", 8, 3],
            [],
            "8,8,3",
            [9] * 200_000,
            [10**4000, 10**4000],
            None,
            {},
        )
    ),
    *(
        change(data=data)
        for data in (
            None,
            [],
            [0],
            [0] * 191,
            [256] * 192,
            [-1] * 192,
            [0.5] * 192,
            ["0"] * 192,
            [None] * 192,
            [10**400] * 192,
            [[0], [0, 1]],
            [{}] * 192,
            "AAAA",
            {"a": 1},
            [True] * 192,
        )
    ),
    *(change(parameters=parameters) for parameters in ([], "x", {"binary_data_size": 5}, {"binary_data_size": -1})),
    *(
        {**GOOD, "outputs": outputs}
        for outputs in ([{"name": "x"}], [{"name": 1}], [{}], ["score"], {"name": "score"}, 5)
    ),
    *(
        {**GOOD, "parameters": parameters}
        for parameters in ([1], {"priority": -1}, {"priority": "1"}, {"timeout": 1.5})
    ),
    {**GOOD, "parameters": {"timeout": True}},
    {**GOOD, "parameters": {"timeout": 10**400}},
    change(name="\ud800"),
    {"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]},
    {"inputs": [{"name": "encoded", "datatype": "UINT8", "shape": [4], "data": [1, 2, 3, 4]}]},
]
RAW_BODIES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"inputs": [NaN]}',
    b'{"inputs": [' + b"{}," * 1000 + b"{}]}",
    json.dumps(GOOD).encode()[:-10],
    json.dumps(GOOD).encode() + b"more",
    b"\0" * 1000,
]


@pytest.mark.parametrize("number", range(len(BAD_DOCUMENTS)))
def test_a_document_of_another_form_is_refused_with_a_sentence(served: Served, number: int) -> None:
    status, body = served.ask("POST", "/v2/models/tiny/infer", json.dumps(BAD_DOCUMENTS[number]).encode())
    assert status == 400 and "expected" in json.loads(body)["error"]


@pytest.mark.parametrize("body", RAW_BODIES, ids=range(len(RAW_BODIES)))
def test_a_body_that_is_no_json_is_refused(served: Served, body: bytes) -> None:
    status, text = served.ask("POST", "/v2/models/tiny/infer", body)
    assert status == 400 and "expected" in json.loads(text)["error"]


def pack_request(size: int | None, data: bytes, **values: Any) -> bytes:
    document = change(data=None, **values)
    document["inputs"][0]["parameters"] = {"binary_data_size": size}
    return json.dumps(document).encode() + data


@pytest.mark.parametrize(
    ("size", "data", "values"),
    [
        (192, b"", {}),
        (192, bytes(191), {}),
        (192, bytes(193), {}),
        (191, bytes(191), {}),
        (2**70, bytes(192), {}),
        ("192", bytes(192), {}),
        (None, bytes(192), {}),
        (4, struct.pack("<I", 100), {"name": "encoded", "datatype": "BYTES", "shape": [1]}),
        (3, b"abc", {"name": "encoded", "datatype": "BYTES", "shape": [1]}),
        (8, struct.pack("<I", 4) + b"junk", {"name": "encoded", "datatype": "BYTES", "shape": [1]}),
        (8, struct.pack("<I", 4) + b"junk", {"name": "encoded", "datatype": "BYTES", "shape": [2]}),
        (4, struct.pack("<I", 0), {"name": "encoded", "datatype": "BYTES", "shape": [1]}),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(served: Served, size: Any, data: bytes, values: Any) -> None:
    body = pack_request(size, data, **values)
    headers = {HEADER: str(len(body) - len(data))}
    status, text = served.ask("POST", "/v2/models/tiny/infer", body, **headers)
    assert status == 400 and json.loads(text)["error"]


@pytest.mark.parametrize("header", ["-1", "x", "1e3", "99999999", "9" * 5000, "\u00b2".encode().decode("latin-1"), ""])
def test_a_header_that_is_no_length_is_refused(served: Served, header: str) -> None:
    body = json.dumps(GOOD).encode()
    assert served.ask("POST", "/v2/models/tiny/infer", body, **{HEADER: header})[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/nothing/ready", 404),
        ("GET", "/v2/models/tiny/versions/9", 404),
        ("GET", "/v2/models/tiny/versions/9/ready", 404),
        ("POST", "/v2/models/nothing/infer", 404),
        ("POST", "/v2/models/tiny/versions/9/infer", 404),
        ("POST", "/v2/models/%00/infer", 404),
        ("POST", "/v2/models/..%2f..%2fetc%2fpasswd/infer", 404),
        ("POST", f"/v2/models/{'x' * 5000}/infer", 404),
        ("POST", "/v2/repository/models/nothing/load", 404),
        ("POST", "/v2/repository/models/nothing/unload", 404),
        ("GET", "/v2/models/tiny/infer", 405),
        ("DELETE", "/v2/models/tiny", 405),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_what_is_not_there_is_told(served: Served, method: str, path: str, expected: int) -> None:
    body = json.dumps(GOOD).encode() if method == "POST" else None
    status, text = served.ask(method, path, body)
    assert status == expected and json.loads(text)["error"]


def test_a_request_that_the_queue_has_no_room_for_is_refused(served: Served) -> None:
    document = describe_image(np.stack([IMAGE] * 33))
    status, answer = served.infer(document)
    assert status == 429 and "at most 32 may" in answer["error"]
    with grpc_client.InferenceServerClient(served.grpc_address) as client:
        one = grpc_client.InferInput("image", [33, 8, 8, 3], "UINT8")
        one.set_data_from_numpy(np.stack([IMAGE] * 33))
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            client.infer("tiny", [one])
    assert served.read_metric("ndp_rt_requests_total", outcome="full") >= 2
    assert served.read_metric("ndp_rt_waiting_images") == 0


def test_a_request_whose_time_is_over_is_not_begun(served: Served) -> None:
    status, answer = served.infer({**GOOD, "parameters": {"timeout": 1}})
    assert status == 504 and "time was over" in answer["error"]
    with grpc_client.InferenceServerClient(served.grpc_address) as client:
        one = grpc_client.InferInput("image", [8, 8, 3], "UINT8")
        one.set_data_from_numpy(IMAGE)
        with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
            client.infer("tiny", [one], timeout=1)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": 1}', b'{"ready": null}', b"\xff"])
def test_an_index_is_asked_for_by_an_object(served: Served, body: bytes) -> None:
    status, text = served.ask("POST", "/v2/repository/index", body)
    assert status == 400 and "expected" in json.loads(text)["error"]


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-encoding": "br"}])
def test_a_compressed_body_is_refused(served: Served, headers: dict[str, str]) -> None:
    status, text = served.ask("POST", "/v2/models/tiny/infer", b"\x1f\x8b", **headers)
    assert status == 400 and "not compressed" in json.loads(text)["error"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as raw:
        raw.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as raw:
        raw.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + bytes(2**20) + b"\r\n"
        with contextlib.suppress(OSError):  # it stops to read
            for _ in range(80):
                raw.sendall(piece)
        with contextlib.suppress(ConnectionResetError):  # what it had not read lies in between
            assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_clients_that_vanish_cost_nothing(bundle_path: Path, cache: Path) -> None:
    with Served([str(bundle_path), "--queue", "32"], cache) as own:  # what is still on its way would meet another test
        body = json.dumps(describe_image(np.stack([IMAGE] * 8))).encode()
        head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        for end in (0, 10, len(head), len(head) + 100, len(head) + len(body)):
            for _ in range(4):
                with socket.create_connection(("127.0.0.1", own.port), timeout=60) as raw:
                    raw.sendall((head + body)[:end])
        while (status := own.infer(GOOD)[0]) != 200:  # as long as those that came whole wait for their turn
            assert status == 429
        assert own.stop() == 0


def test_bodies_that_never_end_do_not_fill_the_memory(bundle_path: Path, cache: Path) -> None:
    with Served([str(bundle_path), "--max-body-mb", "1"], cache) as own:
        head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n"
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", own.port), timeout=60))
                with contextlib.suppress(OSError):  # the last ones are refused
                    raw.sendall(head + bytes(1000))
            # The first sixteen are held; what else comes is refused until they go.
            while (status := own.infer(GOOD)[0]) != 429:
                assert status == 200  # not all of them have been read yet
        while (status := own.infer(GOOD)[0]) != 200:
            assert status == 429
        assert own.stop() == 0


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01" * 50]
)
def test_what_is_no_http_is_answered_or_closed(served: Served, junk: bytes) -> None:
    for port in (served.port, served.grpc_port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(1000):
                    pass
    assert served.infer(GOOD)[0] == 200


@given(st.binary(max_size=400), st.one_of(st.none(), st.text(max_size=5), st.integers(0, 400).map(str)))
def test_any_body_is_read_or_refused(body: bytes, header: str | None) -> None:
    with contextlib.suppress(InputError):
        parse_request(body, header)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), JSON), st.binary(max_size=40)
)
def test_any_input_is_read_or_refused(values: dict[str, Any], data: bytes) -> None:
    for document in (
        {"inputs": [values]},
        {"inputs": [{**INPUT, **values}]},
        {**GOOD, "outputs": [values]},
        {**GOOD, **values},
    ):
        text = json.dumps(document).encode()
        with contextlib.suppress(InputError):
            parse_request(text + data, str(len(text)))


@given(st.binary(max_size=60))
def test_any_elements_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        split_elements(data, 3)
