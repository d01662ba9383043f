import json
from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hwsearch import to_onnx
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.models.onnx_file import read_metadata
from hwsearch.supernets.interface import InputSpec, TensorSpec
from hwsearch.supernets.zoo import supernet_names
from tests.models.networks import IMAGE, export

FAMILIES = pytest.mark.parametrize("name", supernet_names())
FEATURES = InputSpec(inputs=(TensorSpec(name="x", shape=(3,)),))


def ops(model):
    return [node.op_type for node in model.graph.node]


def initialisers(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def run(device, model, inputs, folder):
    path = folder / "model.onnx"
    onnx.save(model, path)
    (outputs,) = device.run(path, [inputs])
    return outputs


def assert_same_function(device, exported, spec, folder, tolerance=1e-5):
    """ONNX and PyTorch agree, and the file passes the checker."""
    onnx.checker.check_model(exported.model, full_check=True)
    inputs = probe_inputs(spec.inputs, seed=4)
    ours = run(device, exported.model, inputs, folder)
    for a, b in zip(ours, torch_outputs(exported.subnet, inputs), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@FAMILIES
@pytest.mark.parametrize("which", ["smallest", "largest", "sample"])
def test_equal_to_pytorch(name, which, exported_of, device, tmp_path):
    net, exported = exported_of(name, which)
    assert_same_function(device, exported, net.input_spec(exported.arch), tmp_path)


@FAMILIES
def test_same_bytes_twice(name, exported_of):
    net, exported = exported_of(name)
    again = to_onnx(net, exported.arch, exported.subnet, calibration="abc")
    twin = net.subnet(exported.arch)
    twin.load_state_dict(exported.subnet.state_dict())
    of_twin = to_onnx(net, exported.arch, twin, calibration="abc")
    first = exported.model.SerializeToString(deterministic=True)
    assert again.SerializeToString(deterministic=True) == first
    assert of_twin.SerializeToString(deterministic=True) == first


@FAMILIES
def test_other_statistics_are_other_bytes(name, exported_of):
    net, exported = exported_of(name)
    if not net.recalibrate:
        pytest.skip(f"{name} has no batch statistics")
    other = to_onnx(net, exported.arch, net.subnet(exported.arch), calibration="abc")
    assert other.SerializeToString() != exported.model.SerializeToString()


@FAMILIES
def test_inputs_outputs_and_batch(name, exported_of, device, tmp_path):
    net, exported = exported_of(name)
    spec, graph = net.input_spec(exported.arch), exported.model.graph
    assert [value.name for value in graph.input] == [tensor.name for tensor in spec.inputs]
    assert [value.name for value in graph.output] == list(spec.outputs)
    for value, tensor in zip(graph.input, spec.inputs, strict=True):
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param == "batch"
        assert tuple(dim.dim_value for dim in rest) == tensor.shape
    assert exported.model.opset_import[0].version >= 17
    inputs = probe_inputs(spec.inputs)
    for n in (1, 2, 5):
        some = {key: np.resize(array, (n, *array.shape[1:])) for key, array in inputs.items()}
        assert all(len(out) == n for out in run(device, exported.model, some, tmp_path))


@FAMILIES
def test_parameters_keep_their_names(name, exported_of):
    net, exported = exported_of(name)
    kept = initialisers(exported.model)
    modules = dict(exported.subnet.named_modules())
    assert all(key.rpartition(".")[0] in modules for key in kept), list(kept)
    assert len(kept) == len(set(kept))
    norms = net.recalibrate
    for key, parameter in exported.subnet.named_parameters():
        owner = modules[key.rpartition(".")[0]]
        # Transposed weights stay as they are; convolutions have taken in their norm.
        if key in kept and not norms:
            np.testing.assert_array_equal(kept[key], parameter.detach().numpy())
        assert key in kept or (norms and isinstance(owner, norms)), key


@FAMILIES
def test_batch_norm_is_gone(name, exported_of):
    _, exported = exported_of(name)
    assert "BatchNormalization" not in ops(exported.model)
    assert not any("running" in key for key in initialisers(exported.model))
    assert "Identity" not in ops(exported.model)


@FAMILIES
def test_metadata(name, exported_of):
    net, exported = exported_of(name)
    stated = read_metadata(exported.model)
    assert stated["key"] == exported.arch.key
    assert json.loads(stated["architecture"]) == exported.arch.mapping
    assert stated["checkpoint"] == net.digest
    assert stated["supernet"] == name
    assert stated["calibration"] == "abc"
    spec = net.input_spec(exported.arch)
    assert json.loads(stated["input"]) == json.loads(json.dumps(spec.to_dict()))
    assert read_metadata(to_onnx(net, exported.arch))["calibration"] == "none"


def test_subnet_as_it_is_where_none_is_given(exported_of):
    net, exported = exported_of("test-images")
    fresh = to_onnx(net, exported.arch)
    given = to_onnx(net, exported.arch, net.subnet(exported.arch))
    assert fresh.SerializeToString() == given.SerializeToString()


def test_subnet_in_training_mode_is_exported_in_eval_mode(exported_of):
    net, exported = exported_of("test-images")
    twin = net.subnet(exported.arch)
    twin.load_state_dict(exported.subnet.state_dict())
    again = to_onnx(net, exported.arch, twin.train(), calibration="abc")
    assert again.SerializeToString() == exported.model.SerializeToString()


def conv_bn(**bn):
    return [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, **bn)]


def folding(*layers):
    names = ("conv", "bn", "relu", "conv2", "bn2", "flatten", "head")
    return nn.Sequential(OrderedDict(zip(names, layers, strict=False)))


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        (conv_bn(), ["Conv"]),
        ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)], ["Conv"]),
        ([nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, eps=0.1)], ["Conv"]),
        (conv_bn(affine=False), ["Conv"]),
        ([*conv_bn(), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)], ["Conv", "Relu", "Conv"]),
        ([nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)], ["BatchNormalization", "Conv"]),
        (
            [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
            ["Conv", "Relu", "BatchNormalization"],
        ),
        (
            [nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)],
            ["ConvTranspose", "BatchNormalization"],
        ),
        (
            [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)],
            ["Conv"],
        ),
    ],
)
def test_norms_fold_into_the_convolution_before_them(layers, left, device, tmp_path):
    _, exported = export(folding(*layers))
    assert ops(exported.model) == left
    assert [value.name for value in exported.model.graph.output] == ["scores"]
    assert exported.model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert_same_function(device, exported, IMAGE, tmp_path)


def test_norm_after_no_convolution_stays(device, tmp_path):
    _, exported = export(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), FEATURES)
    assert ops(exported.model) == ["Gemm", "BatchNormalization"]
    assert "1.running_var" in initialisers(exported.model)
    assert_same_function(device, exported, FEATURES, tmp_path)


class Branching(nn.Module):
    """The convolution's output is used beside its norm too."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y


class Reused(nn.Module):
    """One convolution, two norms behind its two uses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x)).relu())).flatten(1)


class Sliced(nn.Module):
    """The graph computes the convolution's weight."""

    def __init__(self):
        super().__init__()
        self.weight, self.bn = nn.Parameter(torch.randn(4, 3, 5, 5)), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(nn.functional.conv2d(x, self.weight[:, :, 1:4, 1:4])).flatten(1)


@pytest.mark.parametrize(("network", "norms"), [(Branching, 1), (Reused, 0), (Sliced, 1)])
def test_convolutions_that_others_use_too(network, norms, device, tmp_path):
    _, exported = export(network())
    assert ops(exported.model).count("BatchNormalization") == norms
    assert_same_function(device, exported, IMAGE, tmp_path)


class Twins(nn.Module):
    """Parameters of equal content, which the tracer would keep once."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.load_state_dict(self.a.state_dict())
        self.norm = nn.LayerNorm(3)

    def forward(self, x):
        return self.norm(self.b(self.a(x).relu()))


def test_initialisers_of_equal_content_are_each_there(device, tmp_path):
    _, exported = export(Twins(), FEATURES)
    assert {"a.weight", "b.weight", "a.bias", "b.bias"} <= set(initialisers(exported.model))
    assert_same_function(device, exported, FEATURES, tmp_path)


def test_equal_norms_fold_each_into_its_own(device, tmp_path):
    """Fresh norms are equal number by number, so the tracer shares all of them."""
    module = nn.Sequential(
        *conv_bn(), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
    )
    net, exported = export(module)
    for norm in (module[1], module[4]):
        norm.reset_parameters()
        norm.reset_running_stats()
    model = to_onnx(net, exported.arch)
    assert set(initialisers(model)) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    inputs = probe_inputs(IMAGE.inputs)
    np.testing.assert_allclose(
        run(device, model, inputs, tmp_path)[0], torch_outputs(module, inputs)[0], atol=1e-5
    )


def test_two_inputs_of_two_types(device, tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.mix = nn.Embedding(7, 4), nn.Linear(5, 4)

        def forward(self, ids, features):
            return self.table(ids).mean(dim=1) + self.mix(features), features.sum(dim=1)

    spec = InputSpec(
        inputs=(
            TensorSpec(name="ids", shape=(6,), dtype="int64", high=7),
            TensorSpec(name="features", shape=(5,)),
        ),
        outputs=("embedding", "total"),
    )
    _, exported = export(Two(), spec)
    assert [value.name for value in exported.model.graph.output] == ["embedding", "total"]
    assert_same_function(device, exported, spec, tmp_path)
