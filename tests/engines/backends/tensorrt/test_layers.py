"""What TensorRT's inspector says of layers, as it was seen to say it, read as kinds and types."""

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from ndp_rt.engines.backends.tensorrt.layers import check_products, compare_products, count_layers, sum_products
from ndp_rt.errors import EngineError


def make_lib(name: str, version: str) -> Any:
    return SimpleNamespace(__name__=name, __version__=version)


OLD = make_lib("tensorrt", "8.6.1")  # free to change types


def make_layer(kind: str, words: str = "Half", **more: Any) -> dict[str, Any]:
    return {"Name": "x", "LayerType": kind, "Inputs": [{"Name": "i", "Format/Datatype": words}], "Outputs": [], **more}


def count(*layers: Any) -> dict[str, dict[str, int]]:
    return count_layers(json.dumps({"Layers": list(layers), "Bindings": []}))


# LayerType, ParameterType, TacticName and datatype, from engines of 8.2 to 10.13 as published, and what they come to.
SEEN = [
    (
        "CaskConvolution",
        "Convolution",
        "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize256x64x32",
        "Channel major FP16 format where channel % 8 == 0",
        "convolution",
        "f16",
    ),
    (
        "CaskConvolution",
        "Convolution",
        "trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32_nhwc_nhwc",
        "Channel major FP16 format where channel % 4 == 0",
        "convolution",
        "f16",
    ),
    (
        "CaskConvolution",
        "Convolution",
        "ampere_h16816cudnn_128x128_ldg8_relu_exp_stages_64x3_large_nhwc_tn_v1",
        "Channel major FP16 format where channel % 8 == 0",
        "convolution",
        "f16",
    ),
    (
        "CaskConvolution",
        "Convolution",
        "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs",
        "Thirty-two wide channel vectorized row major Int8 format.",
        "convolution",
        "i8",
    ),
    (
        "CaskConvolution",
        "Convolution",
        "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc",
        "Channel major FP32 format where channel % 4 == 0",
        "convolution",
        "tf32",
    ),
    (
        "CaskConvolution",
        "Convolution",
        "ampere_scudnn_128x64_relu_medium_nn_v1",
        "Row major linear FP32",
        "convolution",
        "f32",
    ),
    ("CaskGemmConvolution", "Convolution", "cutlass_80_tensorop_s1688gemm_128x128", "Float", "convolution", "tf32"),
    ("CaskDeconvolutionV2", "Convolution", "sm80_xmma_dgrad_implicit_gemm_f16f16", "Half", "deconvolution", "f16"),
    ("CaskDeconvolution", "", "", "Half", "deconvolution", "f16"),
    ("correlation", "", "sm90_xmma_fprop_implicit_gemm_bf16bf16", "BFloat16", "convolution", "bf16"),
    ("gemm", "", "sm80_xmma_gemm_f16f16_f16f16_f16_nn", "Half", "matrix product", "f16"),
    ("MatrixMultiply", "MatrixMultiply", "", "Row major linear FP32", "matrix product", "f32"),
    ("kgen", "", "_gemm_mha_v2_tactic", "Half", "matrix product", "f16"),
    ("kgen", "", "__myl_ConvertMulAddSqrt_myl0_3", "Float", "kgen", "f32"),
    ("PointWiseV2", "PointWise", "", "Half", "PointWiseV2", "f16"),
    ("Reformat", "Reformat", "", "Row major linear FP32", "Reformat", "f32"),
    ("CaskConvolution", "Convolution", "", "N/A due to dynamic shapes", "convolution", "unknown"),
    ("CaskConvolution", "Convolution", "", "Row major linear BFloat16 format", "convolution", "bf16"),
    ("CaskConvolution", "Convolution", "", "FP8", "convolution", "fp8"),
]


@pytest.mark.parametrize(("kind", "parameter", "tactic", "words", "expected", "dtype"), SEEN)
def test_layers_as_they_were_seen(
    kind: str, parameter: str, tactic: str, words: str, expected: str, dtype: str
) -> None:
    layer = make_layer(kind, words, ParameterType=parameter, TacticName=tactic)
    assert count(layer) == {expected: {dtype: 1}}
    newer = {**layer, "Inputs": [{"Name": "i", "Format": "Row major linear", "Datatype": words}]}
    assert count(newer) == {expected: {dtype: 1}}


def test_layers_are_added_up_and_what_only_moves_data_is_no_product() -> None:
    conv, other = make_layer("CaskConvolution"), make_layer("CaskConvolution", "Float")
    counts = count(conv, conv, other, make_layer("gemm"), make_layer("Reformat"), make_layer("NoOp"))
    assert counts["convolution"] == {"f16": 2, "f32": 1} and counts["NoOp"] == {"f16": 1}
    assert sum_products(counts) == {"f16": 3, "f32": 1}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Layers": ["conv1 + relu1", "conv2"]}', '{"Layers": []}'])
def test_an_inspector_that_says_nothing_of_types_gives_nothing(text: str) -> None:
    assert count_layers(text) == {}


def test_raw_control_characters_are_read() -> None:
    text = '{"Layers": [{"Name": "a\x1eb", "LayerType": "gemm", "Inputs": [{"Datatype": "Half"}]}]}'
    assert count_layers(text) == {"matrix product": {"f16": 1}}


@pytest.mark.parametrize(
    ("precision", "products", "is_right"),
    [
        ("fp32", {"f32": 9}, True),
        ("fp32", {"f32": 8, "tf32": 1}, False),
        ("fp32", {"f32": 8, "f16": 1}, False),
        ("tf32", {"f32": 2, "tf32": 7}, True),
        ("tf32", {"f32": 9}, True),
        ("tf32", {"tf32": 8, "f16": 1}, False),
        ("fp16", {"f16": 9}, True),
        ("fp16", {"f16": 7, "f32": 2}, True),
        ("fp16", {"f32": 9}, False),
        ("fp16", {"f16": 4, "f32": 4}, False),
        ("bf16", {"bf16": 9}, True),
        ("bf16", {"f16": 9}, False),
        ("int8", {"i8": 5, "f16": 4}, True),
        ("int8", {"i8": 1, "f16": 8}, True),
        ("int8", {"f16": 9}, False),
        ("int8", {"i8": 2, "f32": 7}, False),
        ("fp16", {"unknown": 9}, False),
        ("fp16", {}, False),
        ("fp32", {}, False),
    ],
)
def test_what_was_asked_for_is_what_most_layers_multiply_in(
    precision: str, products: dict[str, int], is_right: bool
) -> None:
    if is_right:
        check_products({"convolution": products}, precision, OLD, "it")
        return
    with pytest.raises(EngineError, match=f"asked for {precision}, it multiplies in "):
        check_products({"convolution": products}, precision, OLD, "it")


def test_deconvolutions_stay_in_float32_in_bf16() -> None:
    check_products({"convolution": {"bf16": 1}, "deconvolution": {"f32": 4}}, "bf16", OLD, "it")
    with pytest.raises(EngineError, match="asked for fp16, it multiplies in 1 x f16, 4 x f32"):
        check_products({"convolution": {"f16": 1}, "deconvolution": {"f32": 4}}, "fp16", OLD, "it")
    with pytest.raises(EngineError, match="asked for bf16, it multiplies in 1 x bf16, 1 x f32"):
        check_products({"convolution": {"f32": 1}, "deconvolution": {"bf16": 1}}, "bf16", OLD, "it")


@pytest.mark.parametrize(
    ("built", "asked", "precision", "is_right"),
    [
        ({"f16": 20, "f32": 1}, {"f16": 24, "f32": 1}, "fp16", True),
        ({"f16": 12}, {"f16": 24, "f32": 1}, "fp16", True),
        ({"f16": 11, "f32": 1}, {"f16": 24, "f32": 1}, "fp16", False),
        ({"f16": 23, "f32": 2}, {"f16": 24, "f32": 1}, "fp16", False),
        ({"f16": 23, "tf32": 2}, {"f16": 24, "f32": 1}, "fp16", False),
        ({"tf32": 25}, {"f32": 25}, "tf32", True),
        ({"i8": 9, "f16": 4}, {"i8": 10, "f16": 4}, "int8", True),
        ({"i8": 2, "f16": 12}, {"i8": 10, "f16": 4}, "int8", False),
    ],
)
def test_an_engine_is_compared_with_its_network(
    built: dict[str, int], asked: dict[str, int], precision: str, is_right: bool
) -> None:
    if is_right:
        compare_products(built, asked, precision, OLD)
        return
    with pytest.raises(
        EngineError, match=r"TensorRT 8.6.1 changed the types: .* were .* in the network and are .* in the"
    ):
        compare_products(built, asked, precision, OLD)


ODD_PRODUCTS = [
    ("fp16", {"unknown": 9}),
    ("fp16", {}),
    ("fp32", {"f32": 8, "unknown": 1}),
    ("fp16", {"f16": 4, "unknown": 5}),
]
ODD_ENGINES = [
    ({"f16": 2, "unknown": 22}, {"f16": 24}),
    ({"f16": 2, "f32": 1}, {"f16": 24, "f32": 1}),
    ({}, {"f16": 9}),
]


@pytest.mark.parametrize("version", ["tensorrt 10.0.1", "tensorrt 11.4.0.106", "tensorrt_rtx 1.7.0"])
def test_words_that_are_not_known_are_warned_of_where_types_bind_the_compiler(
    caplog: pytest.LogCaptureFixture, version: str
) -> None:
    lib = make_lib(*version.split())
    with caplog.at_level(logging.WARNING, "ndp_rt"):
        for precision, products in ODD_PRODUCTS:
            check_products({"convolution": products}, precision, lib, "it")
        for built, asked in ODD_ENGINES:
            compare_products(built, asked, "fp16", lib)
    assert len(caplog.messages) == len(ODD_PRODUCTS) + len(ODD_ENGINES)
    assert "asked for fp16, it multiplies in 9 x unknown. No layer is known to be of a wrong type" in caplog.text
    caplog.clear()
    for precision, products in (("fp16", {"f32": 5, "unknown": 4}), ("fp32", {"f16": 1, "unknown": 8})):
        with pytest.raises(EngineError, match="it multiplies in"):
            check_products({"convolution": products}, precision, lib, "it")
    for built in ({"f16": 12, "f32": 3}, {"bf16": 24}):
        with pytest.raises(EngineError, match="changed the types"):
            compare_products(built, {"f16": 24}, "fp16", lib)
    assert not caplog.messages
