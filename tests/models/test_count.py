import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn

from hwsearch.errors import VerificationError
from hwsearch.models.agreement import count_macs, count_params
from hwsearch.models.onnx_file import read_metadata
from hwsearch.supernets.interface import InputSpec, TensorSpec
from hwsearch.supernets.zoo import supernet_names
from tests.models.networks import IMAGE, export, promised
from tests.models.test_to_onnx import Branching, Reused


def counted(exported):
    buffers = [name for name, _ in exported.subnet.named_buffers()]
    folded = int(read_metadata(exported.model)["params_folded"])
    params = count_params(exported.model, buffers) + folded
    return {"macs": count_macs(exported.model), "params": params}


@pytest.mark.parametrize("name", supernet_names())
@pytest.mark.parametrize("which", ["smallest", "largest", "sample"])
def test_the_file_costs_what_was_promised(name, which, exported_of):
    net, exported = exported_of(name, which)
    assert counted(exported) == promised(net, exported.arch)


class Tied(nn.Module):
    """One matrix looks words up and scores them."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.table(ids).mean(dim=1))


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), IMAGE),
        (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)), IMAGE),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), IMAGE),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)), IMAGE),
        (Branching(), IMAGE),
        (Reused(), IMAGE),
        (Tied(), InputSpec(inputs=(TensorSpec(name="ids", shape=(5,), dtype="int64", high=9),))),
        (
            nn.Sequential(nn.Conv1d(3, 4, 3, dilation=2), nn.BatchNorm1d(4)),
            InputSpec(inputs=(TensorSpec(name="x", shape=(3, 9)),)),
        ),
        (
            nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, affine=False)),
            InputSpec(inputs=(TensorSpec(name="x", shape=(3,)),)),
        ),
    ],
)
def test_networks_of_every_kind(module, spec):
    net, exported = export(module, spec)
    assert counted(exported) == promised(net, exported.arch)


def test_by_hand():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], group=2),
        helper.make_node("Flatten", ["y"], ["f"]),
        helper.make_node("Gemm", ["f", "m", "c"], ["z"], transB=1),
        helper.make_node("MatMul", ["z", "n"], ["out"]),
    ]
    shapes = {"w": [6, 2, 3, 3], "m": [5, 24], "c": [5], "n": [5, 7]}
    weights = [helper.make_tensor(k, 1, s, [0.0] * _size(s)) for k, s in shapes.items()]
    # An axis list: whole numbers are nobody's parameters.
    weights.append(helper.make_tensor("axes", TensorProto.INT64, [2], [0, 1]))
    graph = helper.make_graph(
        nodes,
        "by-hand",
        [helper.make_tensor_value_info("x", 1, ["batch", 4, 5, 5])],
        [helper.make_tensor_value_info("out", 1, ["batch", 7])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    # 6 x 2 x 2 outputs of 2 x 3 x 3 products, 24 x 5, 5 x 7.
    assert count_macs(model) == 24 * 18 + 120 + 35
    assert count_params(model, []) == 108 + 120 + 5 + 35
    assert count_params(model, ["c"]) == 108 + 120 + 35


def _size(shape):
    size = 1
    for side in shape:
        size *= side
    return size


def unknown(nodes, **output):
    graph = helper.make_graph(
        nodes,
        "unknown",
        [helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [helper.make_tensor_value_info("z", 1, ["batch", *output.get("shape", ["n"])])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_shape_that_nobody_knows():
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["f", "t"], ["squares"]),
        helper.make_node("Relu", ["x"], ["z"]),
    ]
    with pytest.raises(VerificationError, match="cannot infer the shape of 'f'"):
        count_macs(unknown(nodes, shape=[4]))


def test_shapes_that_contradict_each_other():
    model = unknown([helper.make_node("Relu", ["x"], ["z"])], shape=[5])
    with pytest.raises(VerificationError, match="cannot infer the shapes for one sample"):
        count_macs(model)
