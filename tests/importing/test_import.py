"""ONNX models of other programs as bundles: held to what they give, whatever image, results and end are like."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ndp_rt import ImportSettings, Inspector, import_onnx, open_bundle
from ndp_rt.cli import main
from ndp_rt.engines.backends.tensorrt_rtx.options import TensorRtRtxOptions
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import BundleError, EngineError, InputError
from ndp_rt.importing import convert
from ndp_rt.importing.terms import Convention, ImageInput
from tests.importing.models import (
    ANOMALIB_OUTPUTS,
    MAP,
    MAP_OUTPUT,
    NORMALISED,
    PEAK,
    RAW,
    SIDE,
    compute_raw,
    write_model,
)

SETTINGS: dict[str, Any] = {"threads": 1, "threshold": 5.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def to_planes(picture: np.ndarray) -> np.ndarray:
    return picture.transpose(2, 0, 1)[None].astype(np.float64) / 255


def inspect(bundle: Path, picture: np.ndarray, **settings: Any) -> Any:
    with Inspector.open(bundle, **{**SETTINGS, **settings}) as inspector:
        return inspector.inspect(picture)


def check(bundle: Path, picture: np.ndarray, expected: np.ndarray, **settings: Any) -> None:
    """Compare an inspection with a map [1, 1, h, w]."""
    result = inspect(bundle, picture, **settings)
    np.testing.assert_allclose(result.anomaly_map, expected[0, 0], rtol=1e-4, atol=1e-4)
    assert result.score == pytest.approx(expected.max(), rel=1e-4)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_map_is_the_models_own(tmp_path: Path, picture: np.ndarray, backend: str) -> None:
    done = import_onnx(write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT), tmp_path / "m.ndp")
    assert (done.result, done.removed, done.unused, done.batches) == ("anomaly_map", (), (), True)
    check(done.bundle.path, picture, compute_raw(to_planes(picture)), backend=backend)
    golden = done.bundle.golden()
    np.testing.assert_allclose(golden.map, compute_raw(golden.image), rtol=1e-4, atol=1e-4)
    assert np.array_equal(golden.score, golden.map.max(axis=(1, 2, 3)))


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOAT_NHWC = "  input = Transpose <perm = [0, 3, 1, 2]> (image)\n"
UINT8 = "  input = Cast <to = 1> (image)\n"
IMAGES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "normalised": ("", "float[N,3,32,32] input", {"mean": MEAN, "std": STD}, 3),
    "bytes": (UINT8, "uint8[N,3,32,32] image", {"scale": 255}, 3),
    "bgr of 255": ("", "float[1,3,32,32] input", {"scale": 255, "colour": "bgr"}, 3),
    "channels last": (FLOAT_NHWC, "float[N,32,32,3] image", {}, 3),
    "grey": ("", "float[N,1,32,32] input", {"colour": "grey", "mean": (0.5,), "std": (0.25,)}, 1),
}


@pytest.mark.nightly(but=3)
@pytest.mark.parametrize("case", IMAGES)
def test_an_image_becomes_what_the_model_expects(tmp_path: Path, picture: np.ndarray, case: str) -> None:
    nodes, image, settings, channels = IMAGES[case]
    path = write_model(tmp_path / "m.onnx", nodes + MAP, MAP_OUTPUT, image=image, channels=channels)
    done = import_onnx(path, tmp_path / "m.ndp", ImportSettings(convention=Convention(**settings)))
    planes = to_planes(picture) * settings.get("scale", 1)
    if settings.get("colour") == "bgr":
        planes = planes[:, ::-1]
    if channels == 1:
        planes = np.tensordot(planes, [0.299, 0.587, 0.114], axes=([1], [0]))[:, None]
    mean, std = (np.reshape(settings.get(name, other), (1, -1, 1, 1)) for name, other in (("mean", 0), ("std", 1)))
    check(done.bundle.path, picture, compute_raw((planes - mean) / std, channels))


def test_an_open_size_is_settled_and_photographs_are_resized_to_it(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_model(tmp_path / "m.onnx", MAP, "float[N,1,H,W] anomaly_map", image="float[N,3,H,W] input")
    with pytest.raises(InputError, match=r"leaves the size of its image open: input float32 \[N, 3, H, W\]"):
        import_onnx(path, tmp_path / "m.ndp")
    done = import_onnx(path, tmp_path / "m.ndp", ImportSettings(size_px=(24, 40)))
    assert (done.image.height_px, done.image.width_px) == (24, 40)
    large = rng.integers(0, 255, (120, 100, 3), dtype=np.uint8)
    assert inspect(done.bundle.path, large).anomaly_map.shape == (120, 100)


RESULTS: dict[str, tuple[str, str]] = {
    "channels last": (RAW + "  m = Transpose <perm = [0, 2, 3, 1]> (raw)\n", "float[N,32,32,1] m"),
    "no channel": (RAW + "  m = Squeeze(raw, channel)\n", "float[N,32,32] m"),
    "half": (RAW + "  m = Cast <to = 10> (raw)\n", "float16[N,1,32,32] m"),
    "double": (RAW + "  m = Cast <to = 11> (raw)\n", "double[N,1,32,32] m"),
}


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("case", RESULTS)
def test_maps_of_other_shapes_and_types_are_taken(tmp_path: Path, picture: np.ndarray, case: str) -> None:
    body, outputs = RESULTS[case]
    done = import_onnx(write_model(tmp_path / "m.onnx", body, outputs), tmp_path / "m.ndp")
    expected = compute_raw(to_planes(picture))
    result = inspect(done.bundle.path, picture)
    np.testing.assert_allclose(result.anomaly_map, expected[0, 0], rtol=1e-4, atol=1e-4)


SCORE = PEAK + "  score = Mul(peak, peak)\n"


def test_a_score_alone_is_taken(tmp_path: Path, picture: np.ndarray) -> None:
    done = import_onnx(write_model(tmp_path / "m.onnx", RAW + SCORE, "float[N] score"), tmp_path / "m.ndp")
    assert done.is_score_alone
    result = inspect(done.bundle.path, picture)
    assert result.score == pytest.approx(compute_raw(to_planes(picture)).max() ** 2, rel=1e-4)
    assert result.anomaly_map.shape == (SIDE, SIDE)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A model whose score is none of its map's."""
    return write_model(tmp_path / "m.onnx", MAP + SCORE, f"{MAP_OUTPUT}, float[N] score")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_score_that_is_none_of_the_maps_is_the_score(
    tmp_path: Path, scored: Path, picture: np.ndarray, backend: str
) -> None:
    done = import_onnx(scored, tmp_path / "m.ndp")
    assert done.bundle.manifest.decision.score == "output" and (done.score_difference or 0) > 1.0
    raw = compute_raw(to_planes(picture))
    with Inspector.open(done.bundle.path, backend=backend, batches=(1, 2), **SETTINGS) as inspector:
        for result in (inspector.inspect(picture), inspector.inspect_batch([picture[::-1], picture])[1]):
            assert result.score == pytest.approx(raw.max() ** 2, rel=1e-4)
            np.testing.assert_allclose(result.anomaly_map, raw[0, 0], rtol=1e-4, atol=1e-4)
        large = np.concatenate([picture, picture[::-1]])
        tiled = inspector.inspect_large(large, overlap_px=0)
        assert tiled.score == pytest.approx(max(raw.max(), compute_raw(to_planes(picture[::-1])).max()) ** 2, rel=1e-4)
    by_map = import_onnx(scored, tmp_path / "map.ndp", ImportSettings(score="max"))
    assert [value.name for value in onnx.load(str(by_map.bundle.path / "model.onnx")).graph.output] == ["map"]
    check(by_map.bundle.path, picture, raw)
    named = import_onnx(scored, tmp_path / "named.ndp", ImportSettings(score="score"))
    assert named.bundle.fingerprint == done.bundle.fingerprint


def test_nothing_is_left_out_of_a_score_that_the_model_gives(tmp_path: Path, scored: Path, picture: np.ndarray) -> None:
    path = import_onnx(scored, tmp_path / "m.ndp").bundle.path
    with pytest.raises(InputError, match="neither an ignore mask nor a smallest area, because its model gives"):
        Inspector.open(path, smallest_area_px=3, **SETTINGS)


def test_a_score_that_is_not_finite_is_no_decision(tmp_path: Path, scored: Path, picture: np.ndarray) -> None:
    body = MAP + "  flat = ReduceMin <axes = [1, 2, 3], keepdims = 0> (input)\n  score = Div(flat, flat)\n"
    path = write_model(tmp_path / "nan.onnx", body, f"{MAP_OUTPUT}, float[N] score")
    light, dark = np.full((SIDE, SIDE, 3), 200, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)
    folder = tmp_path / "golden"
    folder.mkdir()
    cv2.imwrite(str(folder / "light.png"), light)
    done = import_onnx(path, tmp_path / "nan.ndp", ImportSettings(golden=folder, score="score"))
    assert inspect(done.bundle.path, light).score == pytest.approx(1.0)
    with pytest.raises(EngineError, match="finite"):
        inspect(done.bundle.path, dark)


def test_the_mean_of_the_largest_values_may_be_the_score(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT)
    done = import_onnx(path, tmp_path / "m.ndp", ImportSettings(score="top_k_mean:20"))
    largest = np.sort(compute_raw(to_planes(picture)).ravel())[-20:]
    assert inspect(done.bundle.path, picture).score == pytest.approx(largest.mean(), rel=1e-4)


def test_anomalibs_end_is_taken_off_where_that_is_said(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_model(tmp_path / "m.onnx", NORMALISED, ANOMALIB_OUTPUTS)
    expected = compute_raw(to_planes(picture))
    raw = import_onnx(path, tmp_path / "raw.ndp", ImportSettings(source="anomalib"))
    assert raw.removed == ("max 0", "min 1", "add 0.5", "div 8", "sub 3") and raw.score_difference == 0.0
    assert [words.split()[0] for words in raw.unused] == ["pred_score", "pred_label", "pred_mask"]
    check(raw.bundle.path, picture, expected)
    baked = import_onnx(path, tmp_path / "baked.ndp")
    assert baked.removed == ()
    check(baked.bundle.path, picture, np.clip((expected - 3) / 8 + 0.5, 0, 1))


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_other_opsets_give_the_same(tmp_path: Path, picture: np.ndarray, opset: int) -> None:
    body = MAP
    if opset < 13:
        body = body.replace("ReduceSum(squares, channel)", "ReduceSum <axes = [1]> (squares)")
    done = import_onnx(write_model(tmp_path / "m.onnx", body, MAP_OUTPUT, opset=opset), tmp_path / "m.ndp")
    check(done.bundle.path, picture, compute_raw(to_planes(picture)))


def test_weights_beside_the_model_and_in_half_precision_are_taken(tmp_path: Path, picture: np.ndarray) -> None:
    model = onnx.load(str(write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT)))
    beside = tmp_path / "beside.onnx"
    onnx.save(model, str(beside), save_as_external_data=True, location="beside.bin", size_threshold=0)
    done = import_onnx(beside, tmp_path / "beside.ndp")
    check(done.bundle.path, picture, compute_raw(to_planes(picture)))
    (tmp_path / "beside.bin").unlink()
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        import_onnx(beside, tmp_path / "gone.ndp")
    half = "  input = Cast <to = 10> (image)\n" + MAP.replace("Identity(raw)", "Cast <to = 1> (raw)")
    path = write_model(tmp_path / "h.onnx", half, MAP_OUTPUT, image="float[N,3,32,32] image", kind=TensorProto.FLOAT16)
    result = inspect(import_onnx(path, tmp_path / "h.ndp").bundle.path, picture)
    np.testing.assert_allclose(result.anomaly_map, compute_raw(to_planes(picture))[0, 0], rtol=2e-2)


def test_a_model_of_one_image_at_a_time_says_so_and_larger_batches_are_refused(tmp_path: Path) -> None:
    body = RAW + "  one = Constant <value = int64[4] {1, 1, 32, 32}> ()\n  anomaly_map = Reshape(raw, one)\n"
    path = write_model(tmp_path / "m.onnx", body, "float[1,1,32,32] anomaly_map", image="float[1,3,32,32] input")
    done = import_onnx(path, tmp_path / "m.ndp")
    assert not done.batches
    with pytest.raises(EngineError):
        build_engine(done.bundle, EngineSpec(batches=(2,)))
    build_engine(done.bundle, EngineSpec(batches=(1,)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nvidias_compiler_takes_it(tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
    done = import_onnx(write_model(tmp_path / "m.onnx", NORMALISED, ANOMALIB_OUTPUTS), tmp_path / "m.ndp")
    build = TensorRtRtxOptions(targets="sm86,sm89")
    record = build_engine(
        done.bundle, EngineSpec(device="cuda", backend="tensorrt-rtx", precision=precision, build=build)
    )
    assert record.precision_by_layer_type()


def test_a_bundle_goes_through_the_commands(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path / "m.onnx", NORMALISED, ANOMALIB_OUTPUTS)
    good, bundle = tmp_path / "good", tmp_path / "m.ndp"
    good.mkdir()
    for number in range(8):
        cv2.imwrite(str(good / f"{number}.png"), rng.integers(110, 140, (SIDE, SIDE, 3), dtype=np.uint8))
    command = ["import", str(path), "-o", str(bundle), "--from", "anomalib", "--golden", str(good)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert (
        "map     anomaly_map; score: max\nremoved max 0\n" in out and "unused  pred_mask bool [1, 1, 32, 32]\n" in out
    )
    assert main(command) == 1 and "exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(open_bundle(bundle).golden().image) == 4
    assert main(["set-threshold", str(bundle), "--calibrate", str(good), "--false-alarm-rate", "0.1"]) == 0
    assert main(["inspect", str(bundle), str(good), "-o", str(tmp_path / "out")]) in (0, 3)
    assert main(["doctor", str(bundle)]) == 0
    assert main(["build-engine", str(bundle), "--batch", "1,3", "--precision", "bf16"]) == 0


def test_local_functions_are_put_in_place(tmp_path: Path, picture: np.ndarray) -> None:
    body = MAP.replace("Identity(raw)", "local.Same(raw)")
    path = write_model(tmp_path / "m.onnx", body, MAP_OUTPUT, extra_opset=', "local" : 1')
    model = onnx.load(str(path))
    same = onnx.helper.make_node("Relu", ["x"], ["y"])
    function = onnx.helper.make_function("local", "Same", ["x"], ["y"], [same], [onnx.helper.make_opsetid("", 17)])
    model.functions.append(function)
    onnx.save(model, str(path))
    command = [sys.executable, "-c", "import sys; from ndp_rt import import_onnx; import_onnx(*sys.argv[1:])"]
    subprocess.run([*command, str(path), str(tmp_path / "m.ndp")], check=True, timeout=300)
    check(tmp_path / "m.ndp", picture, compute_raw(to_planes(picture)))


def test_a_negative_factor_is_left_in_its_place(tmp_path: Path) -> None:
    body = RAW + "  k = Constant <value = float {-1.0}> ()\n  lo = Constant <value = float {-60.0}> ()\n"
    body += "  hi = Constant <value = float {-1.0}> ()\n  a = Mul(raw, k)\n  m = Clip(a, lo, hi)\n"
    done = import_onnx(
        write_model(tmp_path / "m.onnx", body, "float[N,1,32,32] m"),
        tmp_path / "m.ndp",
        ImportSettings(source="anomalib"),
    )
    assert done.removed == ("clip -60 to -1",)
    assert float(done.bundle.golden().map.max()) <= 0.0


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("name", ["to_map", "to_model", "adapt/Cast_1_1", "map", "own_score", "image"])
def test_names_of_ours_in_the_model_do_no_harm(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    path = write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT)
    model = onnx.load(str(path))
    model.graph.node[0].name = name
    for node in model.graph.node:
        for which in (node.input, node.output):
            which[:] = [name if one == "squares" else one for one in which]
    onnx.save(model, str(path))
    check(import_onnx(path, tmp_path / "m.ndp").bundle.path, picture, compute_raw(to_planes(picture)))


def test_one_golden_image_and_scores_of_the_whole_batch_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    folder.mkdir()
    cv2.imwrite(str(folder / "one.png"), np.full((SIDE, SIDE, 3), 90, np.uint8))
    path = write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT)
    assert import_onnx(path, tmp_path / "m.ndp", ImportSettings(golden=folder)).batches
    body = MAP + "  score = ReduceMean <axes = [0, 1, 2, 3], keepdims = 0> (raw)\n"
    mixed = write_model(tmp_path / "mixed.onnx", body, f"{MAP_OUTPUT}, float score")
    assert not import_onnx(mixed, tmp_path / "mixed.ndp").batches


def test_an_engine_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path) -> None:
    body = RAW + "  most = ReduceMax <axes = [0, 1, 2, 3], keepdims = 1> (raw)\n  anomaly_map = Div(raw, most)\n"
    done = import_onnx(write_model(tmp_path / "m.onnx", body, MAP_OUTPUT), tmp_path / "m.ndp")
    with pytest.raises(EngineError, match="disagrees with the bundle's golden vectors.* --batch 1, or another"):
        build_engine(done.bundle, EngineSpec(batches=(2,)))
    build_engine(done.bundle, EngineSpec(batches=(1,)))


@pytest.mark.parametrize("count", [1, 4])
def test_golden_pictures_that_are_the_same_tell_of_mixed_batches_too(
    tmp_path: Path, picture: np.ndarray, count: int
) -> None:
    for number in range(count):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    image = ImageInput(name="input", kind=1, layout="nchw", channels=3, height_px=SIDE, width_px=SIDE)
    one, other = convert._read_pictures(tmp_path, image)
    assert one.shape == other.shape and (one != other).any()


def test_memory_that_runs_out_is_not_a_model_of_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_error(model: object, count: int) -> None:
        raise MemoryError

    monkeypatch.setattr(convert, "fix_batch", raise_error)
    with pytest.raises(MemoryError):
        convert._takes_pairs(onnx.load(str(write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT))))


def test_a_shape_of_one_image_between_layers_is_found(tmp_path: Path) -> None:
    """As of a transformer that was exported for one image: by its shapes alone, what is added has two again."""
    body = RAW + "  one = Constant <value = int64[4] {1, 1, 32, 32}> ()\n  same = Reshape(raw, one)\n"
    body += "  anomaly_map = Add(same, raw)\n"
    path = write_model(tmp_path / "m.onnx", body, "float[1,1,32,32] anomaly_map", image="float[1,3,32,32] input")
    assert not import_onnx(path, tmp_path / "m.ndp").batches


def test_arithmetic_of_shapes_that_only_one_image_fits_leaves_one_at_a_time(
    tmp_path: Path, picture: np.ndarray
) -> None:
    body = RAW + "  shape = Shape <start = 0, end = 1> (input)\n  zeros = ConstantOfShape(shape)\n"
    body += "  one = Constant <value = int64[1] {1}> ()\n  zero = Reshape(zeros, one)\n  anomaly_map = Add(raw, zero)\n"
    done = import_onnx(write_model(tmp_path / "m.onnx", body, MAP_OUTPUT), tmp_path / "m.ndp")
    assert not done.batches
    check(done.bundle.path, picture, compute_raw(to_planes(picture)))


def test_weights_of_constant_nodes_may_lie_beside_the_model(tmp_path: Path, picture: np.ndarray) -> None:
    model = onnx.load(str(write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT)))
    weights = model.graph.initializer.pop()
    constant = onnx.helper.make_node("Constant", [], ["w"], value=weights)
    tensor = constant.attribute[0].t
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    model.graph.node.insert(0, constant)
    path = tmp_path / "beside.onnx"
    path.write_bytes(model.SerializeToString())
    done = import_onnx(path, tmp_path / "beside.ndp")
    check(done.bundle.path, picture, compute_raw(to_planes(picture)))


def test_it_is_evaluated_on_labelled_images(tmp_path: Path, rng: np.random.Generator) -> None:
    """A bright square in a grey picture: features of large values, which the map shows."""
    data, mask = tmp_path / "data", np.zeros((SIDE, SIDE), np.uint8)
    mask[8:20, 8:20] = 255
    for folder in ("test/good", "test/spot", "ground_truth/spot"):
        (data / folder).mkdir(parents=True)
    for number in range(3):
        good = rng.integers(100, 110, (SIDE, SIDE, 3), dtype=np.uint8)
        cv2.imwrite(str(data / f"test/good/{number}.png"), good)
        good[8:20, 8:20] = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(data / f"test/spot/{number}.png"), good)
        cv2.imwrite(str(data / f"ground_truth/spot/{number}_mask.png"), mask)
    body = RAW + "  m = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (raw)\n"
    path = import_onnx(write_model(tmp_path / "m.onnx", body, "float[N,1,16,16] m"), tmp_path / "m.ndp").bundle.path
    assert main(["set-threshold", str(path), "6"]) == 0
    assert main(["evaluate", str(path), str(data), "-o", str(tmp_path / "out")]) == 0
    assert '"image_rocauc": 1.0' in (tmp_path / "out" / "evaluation.json").read_text()
