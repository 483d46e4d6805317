"""The graphs of a bundle: names, dynamic batch, the same bytes each time, folded references, shared weights."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ndp_rt.bundle.assets import replace_initializers
from ndp_rt.export.models.ndpnet.graphs import build_stages
from ndp_rt.export.models.ndpnet.program import export_network
from ndp_rt.export.onnx.bundle import write_graphs
from ndp_rt.export.onnx.weights import ALIGNMENT_BYTES, SMALLEST_BYTES, WEIGHTS_FILE, Place, WeightStore, move_weights
from ndp_rt.kernels.rbfrm.definition import rbfrm
from ndp_rt.program.version1 import REFERENCE_FILE
from tests.export.random_run import random_network
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

KINDS = [(True, "fp32"), (True, "fp16"), (False, "fp32"), (False, "fp16")]
STAGES = ("encoder", "decoder", "head", "segmentation", "fused")


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return random_network(64, 128)


@pytest.fixture(scope="module", params=KINDS, ids=["rewritten", "rewritten-fp16", "plain", "plain-fp16"])
def graphs(request, network, tmp_path_factory):
    """Folder with the graphs of one kind, their stages, and the kind."""
    rewrite, weights = request.param
    folder = tmp_path_factory.mktemp("graphs")
    model = export_network(network, rewrite=rewrite, weights=weights)
    write_graphs(model, folder, weights=weights)
    return folder, {stage.name: stage for stage in model.stages}, request.param


def load(folder, name):
    return onnx.load(str(folder / f"{name}.onnx"), load_external_data=False)


def find_dims(values):
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def run_torch(module, *inputs):
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(x) for x in inputs))
    return [x.numpy() for x in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.nightly(but=2)
def test_tensors_have_the_bundles_names_and_a_dynamic_batch(graphs):
    folder, stages, _ = graphs
    assert tuple(stages) == STAGES
    for name, stage in stages.items():
        graph = load(folder, name).graph
        assert find_dims(graph.input) == {spec.name: spec.to_dims() for spec in stage.inputs}
        assert find_dims(graph.output) == {spec.name: spec.to_dims() for spec in stage.outputs}
    assert find_dims(load(folder, "fused").graph.input) == {"image": ["n", 3, 64, 128]}


@pytest.mark.parametrize("batch", [1, 3])
def test_every_graph_equals_its_module_at_any_batch(graphs, rng, batch):
    folder, stages, _ = graphs
    for name, stage in stages.items():
        inputs = [rng.random(spec.with_batch(batch), np.float32) for spec in stage.inputs]
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        named = {spec.name: x for spec, x in zip(stage.inputs, inputs, strict=True)}
        actual = session.run([spec.name for spec in stage.outputs], named)
        for found, expected in zip(actual, run_torch(stage.module, *inputs), strict=True):
            assert_close(found, expected, "rewrite", "float32")


def test_stages_in_a_row_equal_the_fused_module(graphs, rng):
    _, stages, _ = graphs
    net = stages["fused"].module
    image = rng.random((2, 3, 64, 128), np.float32)
    features = run_torch(stages["encoder"].module, image)
    repaired = [
        rbfrm(features[level - 1], getattr(net, f"reference_{level}").numpy(), size).astype(np.float32)
        for level in (3, 4, 5)
        for size in (2, 4)
    ]
    reconstruction = run_torch(stages["decoder"].module, *features[2:], *repaired)[0]
    rebuilt = run_torch(stages["head"].module, reconstruction)
    image_map = run_torch(stages["segmentation"].module, *features[:3], *rebuilt)[0]
    expected_map, expected_reconstruction = run_torch(net, image)
    assert_close(reconstruction, expected_reconstruction, "rewrite", "float32")
    assert_close(image_map, expected_map, "map", "float32")


@pytest.mark.nightly
def test_the_same_network_gives_the_same_bytes(graphs, network, tmp_path):
    folder, _, (rewrite, weights) = graphs
    write_graphs(export_network(network, rewrite=rewrite, weights=weights), tmp_path, weights=weights)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_openvino_folds_all_that_derives_from_weights_and_reference(graphs):
    folder, _, _ = graphs
    import openvino  # here: a GPU machine that collects these tests may lack it

    core = openvino.Core()
    model = core.read_model(str(folder / "fused.onnx"))
    model.reshape({"image": [1, 3, 64, 128]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    checked = 0
    for layer in compiled.get_runtime_model().get_ops():
        if kind_of(layer) in ("Convolution", "Deconvolution"):
            weights = layer.inputs()[1].get_source_output().get_node()
            assert kind_of(weights) == "Const", f"{layer.get_friendly_name()} reads {weights.get_friendly_name()}"
            checked += 1
    assert checked > 40


def kind_of(layer):
    return layer.get_rt_info()["layerType"].astype(str)


def test_no_path_time_or_note_of_the_exporter_is_in_a_graph(graphs):
    folder, _, _ = graphs
    for name in STAGES:
        content = (folder / f"{name}.onnx").read_bytes()
        for trace in (b"/ndp_rt/", b"site-packages", b".py", b"pytorch"):
            assert trace not in content
        model = load(folder, name)
        assert (model.producer_name, model.opset_import[0].version, model.ir_version) == ("ndp-rt", 17, 8)


def test_large_tensors_lie_outside_the_graphs_and_references_in_their_own_file(graphs):
    folder, _, (_, weights) = graphs
    for name in STAGES:
        for tensor in load(folder, name).graph.initializer:
            external = {entry.key: entry.value for entry in tensor.external_data}
            if tensor.name.startswith("reference_"):
                assert external["location"] == REFERENCE_FILE
            elif external:
                assert external["location"] == WEIGHTS_FILE
                assert int(external["offset"]) % ALIGNMENT_BYTES == 0
            else:
                assert len(tensor.raw_data) < SMALLEST_BYTES
            if weights == "fp16" and len(tensor.dims) > 1:
                assert tensor.data_type == onnx.TensorProto.FLOAT16


def test_rewrites_reach_the_graph(network, tmp_path):
    write_graphs(export_network(network, rewrite=True), tmp_path, weights="fp32")
    found = Counter(node.op_type for node in load(tmp_path, "fused").graph.node)
    assert not {"Softmax", "BatchNormalization", "Concat", "Shape", "Identity", "Gather"} & found.keys()
    assert found["ConvTranspose"] == 4 + 6  # upsampling, and RBFRM at three levels and two patch sizes
    readers = [
        node.input[2] for node in load(tmp_path, "fused").graph.node if len(node.input) > 2 and "Conv" in node.op_type
    ]
    assert len(readers) == len(set(readers))


def test_replacing_the_reference_equals_an_export_with_it(graphs, network, rng, tmp_path):
    folder, _, (rewrite, weights) = graphs
    other = random_network(64, 128)
    image = rng.random((1, 3, 64, 128), np.float32)
    other.set_reference(torch.from_numpy(rng.random((1, 3, 64, 128), np.float32)))
    stages = build_stages(other, rewrite=rewrite, weights=weights)
    names = {f"reference_{level}": f"f{level}" for level in (3, 4, 5)}
    features = {f"f{level}": getattr(other, f"reference_{level}").numpy() for level in (3, 4, 5)}
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "fused.onnx").write_bytes(replace_initializers((folder / "fused.onnx").read_bytes(), names, features))
    session = onnxruntime.InferenceSession(str(tmp_path / "fused.onnx"), providers=["CPUExecutionProvider"])
    expected = run_torch(stages["fused"].module, image)[0]
    assert_close(session.run(["map"], {"image": image})[0], expected, "map", "float32")
    with torch.no_grad():
        assert np.abs(expected - network(torch.from_numpy(image))[0].numpy()).max() > 1e-4


def test_equal_tensors_share_their_bytes():
    store = WeightStore()
    first, second = store.add(b"a" * 100), store.add(b"b" * 10)
    assert (first, second, store.add(b"a" * 100)) == (0, 128, 0)
    assert len(store.to_bytes()) == 138


def test_a_tensor_whose_place_has_another_length_is_refused():
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "x")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(ValueError, match="16 bytes"):
        move_weights(model, WeightStore(), {"x": Place(file="f", offset=0, length=8)})
