"""Traces take any batch and give the declared outputs, or are refused with the reason."""

from collections import namedtuple

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from hwsearch.errors import EvaluationError, InputError
from hwsearch.models import trace as tracing
from hwsearch.models.agreement import disagreement, probe_inputs
from hwsearch.models.artifact import read_card
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.models.onnx_file import opset_of
from hwsearch.models.trace import OPSET, trace
from hwsearch.supernets.interface import InputSpec, TensorSpec
from tests.models.conftest import write_artifact
from tests.models.networks import export

TRACES = True
SPEC = InputSpec(inputs=(TensorSpec(name="x", shape=(4, 6)),), outputs=("scores",))
Named = namedtuple("Named", ["features", "scores"])


class Net(nn.Module):
    """A linear layer, and what a test has forward do with its input and its result."""

    def __init__(self, forward):
        super().__init__()
        self.fc, self._forward = nn.Linear(6, 5), forward

    def forward(self, x):
        return self._forward(self, x)


def run(model, inputs):
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content).run(None, inputs)


def assert_takes_any_batch(model, net, spec=SPEC):
    for samples in (1, 2, 5):
        inputs = probe_inputs(spec.inputs, samples=samples)
        assert disagreement(run(model, inputs), torch_outputs(net, inputs, spec.outputs)) < 1e-4


FIXED_BY_RESHAPES = {
    "view": lambda net, x: net.fc(x).view(int(x.shape[0]), -1),
    "reshape in the middle": lambda net, x: net.fc(x.reshape(int(x.shape[0]), 2, 12)[..., :6]),
    "two": lambda net, x: net.fc(x.view(int(x.shape[0]), -1).view(int(x.shape[0]), 4, 6)),
}


@pytest.mark.parametrize("kind", FIXED_BY_RESHAPES)
def test_reshapes_to_the_traced_batch_are_repaired(kind):
    net = Net(FIXED_BY_RESHAPES[kind]).eval()
    assert_takes_any_batch(trace(net, SPEC), net)


FIXED_OTHERWISE = {
    "constant": lambda net, x: net.fc(x) + torch.zeros(int(x.shape[0]), 1, 5),
    "expand": lambda net, x: net.fc(x) + net.fc.bias.expand(int(x.shape[0]), 4, 5),
    "number": lambda net, x: net.fc(x) * int(x.shape[0]),
    "loop": lambda net, x: torch.stack([net.fc(x[i]) for i in range(int(x.shape[0]))]),
    "batch as width": lambda net, x: net.fc(x).transpose(0, 1).reshape(4, int(x.shape[0]) * 5),
}


@pytest.mark.parametrize("kind", FIXED_OTHERWISE)
def test_a_batch_fixed_otherwise_is_refused(kind):
    with pytest.raises(EvaluationError, match=r"batches of 2 samples alone.*x\.flatten\(1\)"):
        trace(Net(FIXED_OTHERWISE[kind]).eval(), SPEC)


def test_what_is_fixed_is_named():
    def expanding(net, x):
        return net.fc(x) + net.fc.bias.expand(int(x.shape[0]), 4, 5)

    with pytest.raises(EvaluationError, match=r"node '.+' takes the shape \[2, 4, 5\]"):
        trace(Net(expanding).eval(), SPEC)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.fc(x).view(2, 2, -1, 5).flatten(0, 1),  # two by number, not the batch
        lambda net, x: net.fc(x).reshape(x.shape[0], -1),
        lambda net, x: net.fc(x) / 0.0,
    ],
)
def test_other_networks_are_left_alone(forward):
    net = Net(forward).eval()
    if "view" in forward.__code__.co_names:
        inputs = probe_inputs(SPEC.inputs)
        assert disagreement(run(trace(net, SPEC), inputs), torch_outputs(net, inputs)) < 1e-4
    else:
        assert trace(net, SPEC).graph.output[0].name == "scores"


OUTPUTS = {
    "dict": lambda net, x: {"features": x * 2, "scores": net.fc(x)},
    "dict with others": lambda net, x: {"aux": x, "scores": net.fc(x), "features": x * 2},
    "named tuple": lambda net, x: Named(x * 2, net.fc(x)),
    "tuple": lambda net, x: (net.fc(x), x * 2),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_are_those_declared(kind):
    net = Net(OUTPUTS[kind]).eval()
    spec = InputSpec(inputs=SPEC.inputs, outputs=("scores", "features"))
    model = trace(net, spec)
    assert [each.name for each in model.graph.output] == ["scores", "features"]
    assert {each.name for each in model.graph.initializer} == {"fc.weight", "fc.bias"}
    assert_takes_any_batch(model, net, spec)
    scores = run(model, probe_inputs(SPEC.inputs))[0]
    assert scores.shape == (2, 4, 5)
    assert "forward" not in vars(net)


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda net, x: (net.fc(x), x), "returns 2 outputs, but input_spec names 1"),
        (lambda net, x: {"logits": net.fc(x)}, "returns logits, but input_spec names"),
        (lambda net, x: {"scores": 3}, "is a int, not a tensor"),
    ],
)
def test_outputs_that_are_not_declared_are_refused(forward, says):
    with pytest.raises(InputError, match=says):
        trace(Net(forward).eval(), SPEC)


class Scored(nn.Module):
    """Its outputs have names."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return {"scores": self.fc(x)}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_script_module_is_taken_where_it_returns_a_tensor_or_a_tuple():
    x = torch.zeros(2, 4, 6)
    net = torch.jit.trace(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), x).eval()
    assert_takes_any_batch(trace(net, SPEC), net)
    with pytest.raises(EvaluationError, match="let it return a plain tuple"):
        trace(torch.jit.trace(Scored().eval(), x, strict=False), SPEC)


@pytest.mark.parametrize(
    ("layers", "tried"),
    [
        ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)], []),
        ([nn.Conv2d(3, 4, 3), nn.Softmax(1)], [3]),
    ],
)
def test_another_batch_is_tried_where_an_operator_may_mix_samples(layers, tried, monkeypatch):
    asked = []
    monkeypatch.setattr(tracing, "_agrees", lambda *args: asked.append(args[-1]) or True)
    spec = InputSpec(inputs=(TensorSpec(name="x", shape=(3, 8, 8)),), outputs=("scores",))
    trace(nn.Sequential(*layers).eval(), spec)
    assert asked == tried


def test_the_opset_is_raised_where_an_operator_needs_it(tmp_path):
    def folded(net, x):
        y = nn.functional.fold(net.fc(x).reshape(x.shape[0], 4, 5), (6, 2), (2, 2))
        return y.flatten(1)

    net = Net(folded).eval()
    model = trace(net, SPEC)
    assert opset_of(model) > OPSET
    assert_takes_any_batch(model, net)


def test_an_operator_without_counterpart_is_named():
    with pytest.raises(EvaluationError, match=r"operator 'aten::\w+' has no counterpart in ONNX"):
        trace(Net(lambda net, x: torch.linalg.qr(net.fc(x))[0]).eval(), SPEC)


def test_file_probe_and_card_name_the_declared_outputs(tmp_path):
    module = Net(lambda net, x: {"features": x * 2, "scores": net.fc(x)}).eval()
    spec = InputSpec(inputs=SPEC.inputs, outputs=("scores", "features"))
    net, exported = export(module, spec)
    assert [each.name for each in exported.model.graph.output] == ["scores", "features"]
    probe = read_card(write_artifact(tmp_path / "subnet", net, exported))["probe"]["outputs"]
    answers = run(exported.model, probe_inputs(spec.inputs))
    assert [np.shape(each) for each in probe] == [(2, 4, 5), (2, 4, 6)]
    assert disagreement(answers, [np.float32(each) for each in probe]) < 1e-4
