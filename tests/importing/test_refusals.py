"""ONNX models that cannot be brought in: one sentence each, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest

from ndp_rt import ImportSettings, import_onnx
from ndp_rt.errors import InputError, NdpRtError, StorageError
from ndp_rt.importing.terms import Convention
from tests.importing.models import MAP, MAP_OUTPUT, PEAK, RAW, make_loop, write_model

CUSTOM = ', "com.example" : 1'
TROUBLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "boxes": (
        {
            "body": "  b = Constant <value = float[1,4,4] {0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1}> ()\n"
            "  s = Constant <value = float[1,1,4] {1,1,1,1}> ()\n  boxes = NonMaxSuppression(b, s)\n",
            "outputs": "int64[K,3] boxes",
        },
        {},
        "node 'boxes' of type NonMaxSuppression: it gives boxes",
    ),
    "ultralytics' boxes and prototypes": (
        {
            "body": "  f = Conv <pads = [1, 1, 1, 1]> (input, w)\n  s = Constant <value = int64[3] {1, 4, 1024}> ()\n"
            "  output0 = Reshape(f, s)\n  p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (f)\n"
            "  output1 = Identity(p)\n",
            "outputs": "float[1,4,1024] output0, float[1,4,16,16] output1",
            "image": "float[1,3,32,32] input",
        },
        {},
        r"expected an anomaly map .*, got output0 float32 \[1, 4, 1024\]; output1 .* boxes",
    ),
    "random": (
        {"body": "  noise = RandomNormalLike(input)\n" + MAP.replace("input", "noise"), "outputs": MAP_OUTPUT},
        {},
        "node 'noise' of type RandomNormalLike: it is random",
    ),
    "custom": (
        {
            "body": "  x = com.example.Magic(input)\n",
            "outputs": "float[N,1,32,32] x",
            "extra_opset": ', "com.example" : 1',
        },
        {},
        "node 'x' of type Magic of domain 'com.example', whose code is not in the file",
    ),
    "several inputs": (
        {"body": MAP, "outputs": MAP_OUTPUT, "image": "float[N,3,32,32] input, float[N] other"},
        {},
        r"expected one input, the image, got input float32 \[N, 3, 32, 32\]; other float32 \[N\]",
    ),
    "a picture": (
        {"body": "  rebuilt = Relu(input)\n", "outputs": "float[N,3,32,32] rebuilt"},
        {},
        r"expected an anomaly map \[n, 1, h, w\] or a score \[n\] .*, got rebuilt float32 \[1, 3, 32, 32\]",
    ),
    "integers": (
        {"body": RAW + "  m = Cast <to = 7> (raw)\n", "outputs": "int64[N,1,32,32] m"},
        {},
        r"expected an anomaly map .*, got m int64 \[1, 1, 32, 32\]",
    ),
    "two maps": (
        {
            "body": MAP + "  second = Relu(raw)\n",
            "outputs": f"float[N,1,32,32] first, {MAP_OUTPUT}".replace("first", "second"),
        },
        {"map": "third"},
        "expected a map called 'third', got the outputs second float32",
    ),
    "no such image": ({"body": MAP, "outputs": MAP_OUTPUT}, {"image": "x"}, "expected the image 'x' as the one input"),
    "no such score": ({"body": MAP, "outputs": MAP_OUTPUT}, {"score": "x"}, "expected a score called 'x'"),
    "score rule": ({"body": MAP, "outputs": MAP_OUTPUT}, {"score": "top_k_mean:x"}, "top_k_mean:K with K from 1"),
    "pairs": (
        {"body": MAP, "outputs": "float[2,1,32,32] anomaly_map", "image": "float[2,3,32,32] input"},
        {},
        r"expected a model of 1 image, or of any number, got input float32 \[2, 3, 32, 32\]",
    ),
    "size": ({"body": MAP, "outputs": MAP_OUTPUT}, {"size_px": (8, 8)}, "--size: expected what the model takes"),
    "colour": (
        {"body": MAP, "outputs": MAP_OUTPUT},
        {"convention": Convention(colour="grey")},
        "colour: expected rgb or bgr for a model of 3 channels, got grey",
    ),
    "layout": (
        {"body": MAP, "outputs": MAP_OUTPUT, "image": "float[N,3,32,3] input"},
        {},
        "with 1 or 3 channels in one place, got input .* by --layout nchw or nhwc",
    ),
    "larger map": (
        {
            "body": RAW + "  s = Constant <value = float[4] {1, 1, 2, 2}> ()\n  m = Resize(raw, , s)\n",
            "outputs": "float[N,1,64,64] m",
        },
        {},
        "expected a map no larger than the image, 32x32, got m",
    ),
    "not finite": (
        {"body": RAW + "  z = Sub(raw, raw)\n  m = Div(raw, z)\n", "outputs": "float[N,1,32,32] m"},
        {},
        "expected finite results of its golden images, got NaN or infinity",
    ),
    "own score not finite": (
        {
            "body": MAP + PEAK + "  z = Sub(peak, peak)\n  score = Div(z, z)\n",
            "outputs": f"{MAP_OUTPUT}, float[N] score",
        },
        {},
        "expected finite results of its golden images, got NaN or infinity",
    ),
    "huge size": (
        {"body": MAP, "outputs": "float[N,1,H,W] anomaly_map", "image": "float[N,3,H,W] input"},
        {"size_px": (10**7, 10**7)},
        r"expected an image of 1 to \d+ px a side, got 10000000x10000000",
    ),
    "undefined tensor": (
        {"body": MAP.replace("Identity(raw)", "Identity(nowhere)"), "outputs": MAP_OUTPUT},
        {},
        "expected shapes that follow from the image's, got another",
    ),
    "unknown operator": (
        {"body": RAW + "  m = Nope(raw)\n", "outputs": "float[N,1,32,32] m"},
        {},
        "m.onnx: ",
    ),
    "huge constant": (
        {
            "body": RAW + "  s = Constant <value = int64[2] {10000000, 10000000}> ()\n  c = ConstantOfShape(s)\n"
            "  m = Add(raw, c)\n",
            "outputs": "float[N,1,32,32] m",
        },
        {},
        "m.onnx: ",
    ),
    "opset": ({"body": MAP, "outputs": MAP_OUTPUT, "opset": 22}, {}, "expected ONNX opset 11 to 21, got 22"),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_what_cannot_be_brought_in_is_one_sentence_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    model, settings, message = TROUBLE[case]
    path = write_model(tmp_path / "m.onnx", **model)
    with pytest.raises(NdpRtError, match=message) as caught:
        import_onnx(path, tmp_path / "m.ndp", ImportSettings(**settings))
    assert "\n" not in str(caught.value) and not (tmp_path / "m.ndp").exists()


def test_a_constant_is_held_to_the_limit_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 GB of ones, which the process that asks for the import never sees."""
    monkeypatch.setenv("NDP_RT_BUILD_MEMORY_MB", "2000")
    body = RAW + "  s = Constant <value = int64[2] {1000000, 1000}> ()\n  c = ConstantOfShape(s)\n"
    body += "  m = ReduceMax <keepdims = 0> (c)\n  anomaly_map = Add(raw, m)\n"
    path = write_model(tmp_path / "m.onnx", body, MAP_OUTPUT)
    with pytest.raises(InputError, match="fits into memory, got one that does not. NDP_RT_BUILD_MEMORY_MB allows more"):
        import_onnx(path, tmp_path / "m.ndp")


def test_control_flow_names_its_node(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="node 'decide' of type If: its graph branches or loops"):
        import_onnx(make_loop(tmp_path / "m.onnx", "If"), tmp_path / "m.ndp")


@pytest.mark.parametrize("content", [b"", b"not ONNX at all", b"\x08\x07\x12"])
def test_files_that_are_no_model_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(NdpRtError, match=r"m\.onnx: "):
        import_onnx(path, tmp_path / "m.ndp")


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT)
    with pytest.raises(InputError, match=r"expected a name that ends in \.ndp"):
        import_onnx(path, tmp_path / "m")
    with pytest.raises(InputError, match="source: expected anomalib, got 'keras'"):
        import_onnx(path, tmp_path / "m.ndp", ImportSettings(source="keras"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected images, here or in subfolders, got none"):
        import_onnx(path, tmp_path / "m.ndp", ImportSettings(golden=tmp_path / "empty"))
    (tmp_path / "m.ndp").mkdir()
    with pytest.raises(StorageError):
        import_onnx(path, tmp_path / "m.ndp")
    for settings in ({"scale": 2}, {"std": (0.0,)}, {"mean": (1.0, 2.0)}, {"colour": "hsv"}, {"mean": (float("nan"),)}):
        with pytest.raises(InputError):
            Convention(**settings)
