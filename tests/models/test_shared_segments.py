"""Models cut into segments are the same models."""

import numpy as np
import onnx
import onnxruntime
import pytest

from hwsearch.models.export import to_onnx
from hwsearch.models.shared_segments import shared_segments
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family

FAMILIES = ["cifar10-resnet", "ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"]


def run(content, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def outputs_of(segments, batch):
    passed, found = [], {}
    for segment in segments:
        given = batch if segment.before is None else passed[segment.before]
        passed.append(run(segment.content, given))
        found |= dict.fromkeys(segment.ends, passed[-1])
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def models(request):
    net = Supernet(request.param, load_family(request.param).tiny(), "random:0")
    if request.param != "cifar10-resnet":
        net = net.restrict(["resolution=max"])
    return {arch.key: to_onnx(net, arch) for arch in net.space.sample(10, seed=0)}


def test_answers_are_the_same_to_the_last_bit(models):
    shape = [
        d.dim_value for d in next(iter(models.values())).graph.input[0].type.tensor_type.shape.dim
    ]
    batch = np.random.default_rng(0).standard_normal((5, *shape[1:])).astype(np.float32)
    segments = shared_segments(models)
    found = outputs_of(segments, batch)
    for name, model in models.items():
        np.testing.assert_array_equal(found[name], run(model.SerializeToString(), batch))
    assert len(segments[0].models) > 1


def test_each_part_comes_after_what_it_takes_and_no_node_is_there_twice(models):
    segments = shared_segments(models)
    n_nodes = sum(len(onnx.load_from_string(segment.content).graph.node) for segment in segments)
    assert n_nodes < sum(len(model.graph.node) for model in models.values())
    for number, segment in enumerate(segments):
        onnx.checker.check_model(segment.content)
        if segment.before is not None:
            assert segment.before < number
            assert set(segment.models) < set(segments[segment.before].models)
    ends = [name for segment in segments for name in segment.ends]
    assert sorted(ends) == sorted(models)


def test_one_model_is_one_part(models):
    name, model = next(iter(models.items()))
    (segment,) = shared_segments({name: model})
    assert (segment.before, segment.models, segment.ends) == (None, (name,), (name,))


def test_equal_models_are_one_part(models):
    model = next(iter(models.values()))
    (segment,) = shared_segments({"a": model, "b": model})
    assert segment.models == segment.ends == ("a", "b")


def test_other_weights_are_not_shared(models):
    model = next(iter(models.values()))
    other = onnx.ModelProto()
    other.CopyFrom(model)
    weight = other.graph.initializer[0]
    weight.raw_data = weight.raw_data[:-1] + b"\x7f"
    assert [segment.models for segment in shared_segments({"a": model, "b": other})] == [
        ("a",),
        ("b",),
    ]


def test_nothing():
    assert shared_segments({}) == []
