"""Triton's own clients get what an inspector answers, bit for bit: HTTP and gRPC, sync and asyncio, binary and JSON."""

import asyncio
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from ndp_rt import Inspector, Result
from ndp_rt.serve.messages import CLASSES, MESSAGES
from tests.serve.conftest import Served, describe_image, make_image

IMAGES = [make_image(seed) for seed in range(3)]
OUTPUTS = ("score", "threshold", "is_defect", "defects", "map", "mask")


@pytest.fixture(scope="module")
def expected(bundle_path: Path, cache: Path) -> list[Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(cache))
        with Inspector.open(bundle_path, threads=2) as inspector:
            return [inspector.inspect(image) for image in IMAGES]


def make_input(module: Any, values: np.ndarray, datatype: str = "UINT8", name: str = "image", **options: Any) -> Any:
    one = module.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values, **options)
    return one


def check_equal(found: Any, results: list[Result]) -> None:
    assert found.as_numpy("score").tolist() == [one.score for one in results]
    assert found.as_numpy("threshold").tolist() == [one.threshold for one in results]
    assert found.as_numpy("is_defect").tolist() == [one.is_defect for one in results]
    for text, one in zip(found.as_numpy("defects"), results, strict=True):
        boxes = json.loads(text)
        assert [box["peak"] for box in boxes] == [defect.peak for defect in one.defects]
    np.testing.assert_array_equal(found.as_numpy("map"), np.stack([one.anomaly_map for one in results]))
    np.testing.assert_array_equal(found.as_numpy("mask"), np.stack([one.make_mask() for one in results]))


@pytest.mark.parametrize("is_binary", [True, False])
def test_http(served: Served, expected: list[Result], is_binary: bool) -> None:
    with http_client.InferenceServerClient(served.address) as client:
        outputs = [http_client.InferRequestedOutput(name, binary_data=is_binary) for name in OUTPUTS]
        inputs = [make_input(http_client, np.stack(IMAGES), binary_data=is_binary)]
        found = client.infer("tiny", inputs, outputs=outputs, request_id="a 7")
        check_equal(found, expected)
        assert found.get_response()["id"] == "a 7" and found.get_response()["model_version"] == "2"


def test_grpc(served: Served, expected: list[Result]) -> None:
    with grpc_client.InferenceServerClient(served.grpc_address) as client:
        outputs = [grpc_client.InferRequestedOutput(name) for name in OUTPUTS]
        found = client.infer("tiny", [make_input(grpc_client, IMAGES[0])], outputs=outputs, model_version="1")
        check_equal(found, expected[:1])
        assert found.get_response().model_version == "1"


def test_both_beside_each_other_by_asyncio(served: Served, expected: list[Result]) -> None:
    async def ask() -> list[Any]:
        async with (
            http_aio.InferenceServerClient(served.address) as by_http,
            grpc_aio.InferenceServerClient(served.grpc_address) as by_grpc,
        ):
            web = [http_client.InferRequestedOutput(name) for name in OUTPUTS]
            rpc = [grpc_client.InferRequestedOutput(name) for name in OUTPUTS]
            calls = [
                call
                for image in IMAGES
                for call in (
                    by_http.infer("tiny", [make_input(http_client, image)], outputs=web),
                    by_grpc.infer("tiny", [make_input(grpc_client, image)], outputs=rpc),
                )
            ]
            return await asyncio.gather(*calls)

    for index, found in enumerate(asyncio.run(ask())):
        check_equal(found, [expected[index // 2]])


@pytest.mark.parametrize("module", [http_client, grpc_client])
def test_image_files_are_decoded(served: Served, expected: list[Result], module: Any) -> None:
    files = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in IMAGES]
    address = served.address if module is http_client else served.grpc_address
    with module.InferenceServerClient(address) as client:
        values = np.array(files, dtype=object)
        found = client.infer("tiny", [make_input(module, values, "BYTES", "encoded")], priority=1, timeout=60_000_000)
    assert found.as_numpy("score").tolist() == [one.score for one in expected]


def test_sixteen_bits_and_grey(served: Served, bundle_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (64, 64), dtype=np.uint16)
    with Inspector.open(bundle_path, threads=2) as inspector:
        score = inspector.inspect(grey).score
    with http_client.InferenceServerClient(served.address) as client:
        assert client.infer("tiny", [make_input(http_client, grey, "UINT16")]).as_numpy("score") == [score]
    with grpc_client.InferenceServerClient(served.grpc_address) as client:
        assert client.infer("tiny", [make_input(grpc_client, grey, "UINT16")]).as_numpy("score") == [score]


@pytest.mark.parametrize("module", [http_client, grpc_client])
def test_what_a_client_asks_first(served: Served, module: Any) -> None:
    address = served.address if module is http_client else served.grpc_address
    with module.InferenceServerClient(address) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("tiny") and client.is_model_ready("tiny", "2") and not client.is_model_ready("no")
        options = {} if module is http_client else {"as_json": True}
        assert client.get_server_metadata(**options)["name"] == "ndp-rt"
        metadata = client.get_model_metadata("tiny", **options)
        assert metadata["versions"] == ["1", "2"]
        assert [one["name"] for one in metadata["outputs"]] == list(OUTPUTS)
        index = client.get_model_repository_index(**options)
        states = index if module is http_client else index["models"]
        assert [(one["name"], one["version"], one["state"]) for one in states] == [
            ("tiny", "1", "READY"),
            ("tiny", "2", "READY"),
        ]
        for call in (client.get_model_config, client.get_inference_statistics):
            with pytest.raises(InferenceServerException):  # Triton's own extensions are not offered
                call("tiny")


def test_a_model_is_unloaded_and_loaded_again_from_the_disk(served: Served) -> None:
    document = describe_image(IMAGES[0])
    with http_client.InferenceServerClient(served.address) as client:
        client.unload_model("tiny")
        assert not client.is_model_ready("tiny") and client.is_server_ready()
        assert served.infer(document)[0] == 503
        with pytest.raises(InferenceServerException, match="unavailable: unloaded"):
            client.infer("tiny", [make_input(http_client, IMAGES[0])])
        client.load_model("tiny")
        assert served.infer(document)[0] == 200
    with grpc_client.InferenceServerClient(served.grpc_address) as client:
        client.unload_model("tiny")
        assert not client.is_model_ready("tiny")
        for body, count in ((None, 2), (b"{}", 2), (b'{"ready": false}', 2), (b'{"ready": true}', 0)):
            status, index = served.ask("POST", "/v2/repository/index", body)
            assert status == 200 and len(json.loads(index)) == count
        client.load_model("tiny")
        assert client.is_model_ready("tiny")
        with pytest.raises(InferenceServerException, match="expected one of the models tiny, got 'other'"):
            client.load_model("other")


def test_what_was_done_is_counted(served: Served) -> None:
    before = served.read_metric("ndp_rt_images_total"), served.read_metric("ndp_rt_requests_total", outcome="ok")
    image = make_image()
    stack = np.stack([image] * 3)
    assert served.infer(describe_image(stack))[0] == 200
    after = served.read_metric("ndp_rt_images_total"), served.read_metric("ndp_rt_requests_total", outcome="ok")
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)
    assert served.read_metric("ndp_rt_stage_seconds_count", stage="queue") == served.read_metric("ndp_rt_images_total")
    assert served.read_metric("ndp_rt_waiting_images") == 0


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_those_of_the_protocol(name: str) -> None:
    theirs: Any = service_pb2
    for part in name.split("."):
        theirs = getattr(theirs, part)
    known = theirs.DESCRIPTOR.fields_by_name
    for field in CLASSES[name].DESCRIPTOR.fields:
        other = known[field.name]
        assert (field.number, field.type) == (other.number, other.type)
        assert CLASSES[name]().DESCRIPTOR.full_name == theirs.DESCRIPTOR.full_name
