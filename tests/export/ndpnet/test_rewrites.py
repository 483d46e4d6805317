"""Every rewrite equals what it replaces, on random weights, random statistics and odd sizes."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.models.ndpnet import network as ndpnet
from ndp_rt.export.models.ndpnet import rewrites
from ndp_rt.export.models.ndpnet.graphs import RewrittenNet
from ndp_rt.export.models.ndpnet.network import FFM, Decoder, Encoder
from ndp_rt.export.onnx import batch_norm
from ndp_rt.kernels.fuse_maps.definition import fuse_maps
from ndp_rt.kernels.rbfrm.definition import rbfrm
from tests.export.random_run import WIDTH, random_network
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

SIZES = [(1, 1), (1, 6), (3, 5), (8, 8)]


@pytest.fixture(autouse=True)
def quiet_torch():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def randomise(module: nn.Module) -> None:
    """Give every parameter and every batch norm's statistics random values."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.5, 0.5)
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_var.uniform_(0.1, 2.0)
    module.eval()


def check(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual.numpy(), expected.numpy(), "rewrite", "float32")


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_folded_batch_norm_equals_convolution_and_batch_norm(size, has_bias):
    pair = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=has_bias), nn.BatchNorm2d(5))
    randomise(pair)
    x = torch.randn(2, 3, *size)
    check(batch_norm.fold_batch_norm(pair[0], pair[1])(x), pair(x))


def test_folding_leaves_no_batch_norm_and_the_original_as_it_was():
    encoder = Encoder(WIDTH)
    randomise(encoder)
    x = torch.randn(1, 3, 48, 80)
    before = encoder(x)
    folded = batch_norm.fold_batch_norms(encoder)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for actual, expected, again in zip(folded(x), before, encoder(x), strict=True):
        check(actual, expected)
        assert torch.equal(expected, again)


def test_folding_reaches_nested_blocks():
    decoder = Decoder(WIDTH)
    randomise(decoder)
    features = torch.randn(2, 16, 12, 20), torch.randn(2, 32, 6, 10), torch.randn(2, 32, 3, 5)
    folded = batch_norm.fold_batch_norms(decoder)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    check(folded(*features), decoder(*features))


def test_a_batch_norm_without_statistics_is_refused():
    with pytest.raises(ValueError, match="running statistics"):
        batch_norm.fold_batch_norm(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_merged_convolution_equals_upsampling_and_convolution_borders_included(size, has_bias):
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=has_bias)
    x = torch.randn(2, 3, *size)
    merged = rewrites.merge_upsample_conv(conv)
    check(merged(x), conv(functional.interpolate(x, scale_factor=2.0, mode="nearest")))
    assert merged.weight.shape == (3, 5, 4, 4)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("size", SIZES)
def test_ffm_by_differences_equals_softmax_over_three(size, scale):
    ffm = FFM(6, 4)
    for attend in (ffm.attend_rep4, ffm.attend_rep2, ffm.attend_features):
        attend.weight *= scale  # at 300 logits differ by hundreds, where exp alone would overflow
    features, rep2, rep4 = torch.randn(3, 2, 6, *size)
    actual = rewrites.ffm_softmax_differences(ffm)(features, rep2, rep4)
    if scale == 1.0:
        check(actual, ffm(features, rep2, rep4))
    else:  # float32 logits in the thousands: compare with float64
        expected = ffm.double()(features.double(), rep2.double(), rep4.double())
        assert torch.isfinite(actual).all()
        assert_close(actual.numpy(), expected.numpy(), "ffm_large_logits", "float32")


@pytest.mark.parametrize("patch", [2, 4])
@pytest.mark.parametrize("size", [(4, 4), (4, 12), (8, 20)])
def test_rbfrm_by_convolution_equals_rbfrm_by_patches(size, patch):
    features, model = torch.relu(torch.randn(2, 5, *size)), torch.relu(torch.randn(1, 5, 8, 12))
    features[0, :, :patch, :patch] = 0.0  # a patch of zeros has cosine 0 with everything
    model[0, :, :patch, patch : 2 * patch] = 0.0
    raw, unit = rewrites.PatchFilters(5, 8, 12, patch)(model)
    squares = rewrites.sum_of_squares(features)
    actual = rewrites.rbfrm_as_convolution(features, squares, raw, unit, patch)
    check(actual, ndpnet.rbfrm(features, model, patch))
    assert_close(actual.numpy(), rbfrm(features.numpy(), model.numpy(), patch), "rbfrm", "float32")


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_rbfrm_by_convolution_holds_for_tiny_and_huge_features(scale):
    features, model = torch.randn(1, 3, 4, 4) * scale, torch.randn(1, 3, 4, 4)
    raw, unit = rewrites.PatchFilters(3, 4, 4, 2)(model)
    actual = rewrites.rbfrm_as_convolution(features, rewrites.sum_of_squares(features), raw, unit, 2)
    check(actual, ndpnet.rbfrm(features, model, 2))


@pytest.mark.parametrize("first_count", [1, 3, 6])
@pytest.mark.parametrize("size", SIZES)
def test_split_convolution_equals_convolution_of_the_concatenation(size, first_count):
    conv = nn.Conv2d(7, 4, 3, padding=1)
    a, b = torch.randn(2, first_count, *size), torch.randn(2, 7 - first_count, *size)
    check(rewrites.split_concat_conv(conv, first_count)(a, b), conv(torch.cat([a, b], dim=1)))


@pytest.mark.parametrize("size", [(2, 2), (2, 6), (10, 4)])
def test_blocked_convolution_equals_convolution_and_sigmoid(size):
    conv = nn.Conv2d(5, 3, 3, padding=1)
    x = torch.randn(2, 5, *size)
    check(rewrites.block_last_conv(conv)(x), torch.sigmoid(conv(x)))


@pytest.mark.parametrize(("source", "target"), [(1, 4), (3, 6), (5, 5), (7, 28), (4, 9)])
def test_upsampling_by_matrix_equals_interpolation(source, target):
    x = torch.randn(1, 1, source)
    expected = functional.interpolate(x, size=target, mode="linear", align_corners=False)
    check(x @ rewrites.upsample_by_matrix(source, target).T, expected)


@pytest.mark.parametrize(("h", "w"), [(4, 4), (12, 20)])
def test_fusing_maps_by_matrices_equals_interpolation(h, w):
    maps = [torch.rand(2, 1, h // down, w // down) for down in (1, 2, 4)]
    actual = rewrites.MatrixFuseMaps(h, w)(*maps)
    check(actual, ndpnet.fuse_maps(maps))
    assert_close(actual.numpy(), fuse_maps([one.numpy() for one in maps]), "fuse_maps", "float32")


@pytest.mark.parametrize(("height_px", "width_px"), [(64, 64), (64, 128)])
def test_rewritten_network_equals_the_network(height_px, width_px):
    model = random_network(height_px, width_px)
    image = torch.rand(2, 3, height_px, width_px)
    expected = model(image)
    assert np.ptp(expected[0].numpy()) > 0.01  # a map that is flat would show nothing
    for actual, wanted in zip(RewrittenNet(model).eval()(image), expected, strict=True):
        check(actual, wanted)


def test_every_convolution_has_a_bias_of_its_own_and_gives_the_same():
    def convolve(source: str, output: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, "weight", "bias"], [output], kernel_shape=[1, 1])

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 5]) for name in ("x", "z")]
    tensors = {"weight": torch.randn(3, 3, 1, 1).numpy(), "bias": torch.randn(3).numpy()}
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph([convolve("x", "y"), convolve("y", "z")], "twice", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = torch.randn(1, 3, 4, 5).numpy()
    before = ReferenceEvaluator(model).run(None, {"x": x})[0]
    rewrites.duplicate_shared_biases(model)
    assert len({node.input[2] for node in model.graph.node}) == 2
    assert np.array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], before)


def test_every_listed_rewrite_is_a_function():
    for name in rewrites.REWRITES:
        assert any(callable(getattr(home, name, None)) for home in (rewrites, batch_norm)), name
