"""Other tensors of an asset go into a graph, or into their file, and nothing else changes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

from ndp_rt.bundle.assets import find_tensor_data, replace_initializers, replace_tensors
from ndp_rt.errors import BundleError, InputError

NAMES = {"reference_3": "f3", "reference_4": "f4", "reference_5": "f5"}
SHAPES = {"f3": (1, 2, 4, 4), "f4": (1, 4, 2, 2), "f5": (1, 4, 1, 1)}


def make_features(rng, dtype=np.float32):
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def make_graph(features, is_external=False):
    """Return a serialised graph that has the features, and another tensor, as initializers."""
    tensors = [numpy_helper.from_array(values, f"reference_{name[1]}") for name, values in features.items()]
    tensors.append(numpy_helper.from_array(np.arange(3, dtype=np.float32), "other"))
    if is_external:
        for tensor in tensors[:3]:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", "reference.safetensors"
    return helper.make_model(helper.make_graph([], "fused", [], [], tensors)).SerializeToString()


def read_graph(content):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(content).graph.initializer}


@pytest.mark.parametrize("is_external", [False, True])
def test_a_graph_gets_the_new_features_inside(rng, is_external):
    new = make_features(rng)
    found = read_graph(replace_initializers(make_graph(make_features(rng), is_external), NAMES, new))
    for name, values in new.items():
        assert np.array_equal(found[f"reference_{name[1]}"], values)
    assert np.array_equal(found["other"], np.arange(3, dtype=np.float32))


def test_a_graph_in_half_precision_stays_so(rng):
    new = make_features(rng)
    found = read_graph(replace_initializers(make_graph(make_features(rng, np.float16)), NAMES, new))
    assert found["reference_3"].dtype == np.float16
    assert np.array_equal(found["reference_3"], new["f3"].astype(np.float16))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_file_gets_the_new_features_and_keeps_header_and_size(rng, dtype):
    old, new = save(make_features(rng, dtype)), make_features(rng)
    changed = replace_tensors(old, new)
    start = 8 + int.from_bytes(old[:8], "little")
    assert changed[:start] == old[:start] and len(changed) == len(old)
    for name, values in load(changed).items():
        assert np.array_equal(values, new[name].astype(dtype))


def test_data_lies_where_it_is_said_to(rng):
    features = make_features(rng)
    content = save(features)
    for name, (start, length) in find_tensor_data(content, features).items():
        assert content[start : start + length] == features[name].tobytes()


def test_features_of_another_shape_are_refused(rng):
    new = {**make_features(rng), "f4": np.zeros((1, 4, 2, 3), np.float32)}
    for replace in (
        lambda: replace_initializers(make_graph(make_features(rng)), NAMES, new),
        lambda: replace_tensors(save(make_features(rng)), new),
    ):
        with pytest.raises(InputError, match=r"'f4': expected \[1, 4, 2, 2\], got float32 \[1, 4, 2, 3\]"):
            replace()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_half_precision_cannot_hold_are_refused(rng, value):
    new = make_features(rng)
    new["f5"][:] = value
    with pytest.raises(InputError, match="expected finite values"):
        replace_tensors(save(make_features(rng, np.float16)), new)


def test_missing_features_are_refused(rng):
    with pytest.raises(InputError, match="expected the tensor 'f3', got none"):
        replace_initializers(make_graph(make_features(rng)), NAMES, {})


@pytest.mark.parametrize(
    "content", [b"", b"no onnx at all", helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()]
)
def test_what_is_no_such_graph_is_refused(rng, content):
    with pytest.raises(BundleError, match="the graph"):
        replace_initializers(content, NAMES, make_features(rng))


def test_what_is_no_reference_file_is_refused(rng):
    good = save(make_features(rng))
    without = save({"f3": np.zeros(1, np.float32)})
    for content in (b"", b"x" * 100, good[: len(good) // 2], good[:-4], without):
        with pytest.raises(BundleError, match="expected the tensors f3, f4, f5"):
            replace_tensors(content, make_features(rng))
