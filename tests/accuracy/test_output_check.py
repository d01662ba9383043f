"""The output that a metric scores is the declared one, or the search does not begin."""

from collections import namedtuple
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwsearch.accuracy.checks import check_outputs
from hwsearch.accuracy.images import DecodedImageCache, ImageSamples
from hwsearch.accuracy.metric import TOP1, Metric
from hwsearch.accuracy.scoring import Scorer
from hwsearch.accuracy.task import Samples, Task
from hwsearch.choices import Choice
from hwsearch.devices import load_device
from hwsearch.errors import EvaluationError, InputError
from hwsearch.models.export import to_onnx
from hwsearch.space import SearchSpace
from hwsearch.supernets.interface import Card, InputSpec, TensorSpec
from hwsearch.supernets.supernet import Supernet
from tests.accuracy.folders import image_spec
from tests.models.networks import One

CLASSES = ("a", "b", "c")
Pair = namedtuple("Pair", ["features", "logits"])


class Returning(nn.Module):
    """The class of a sample is its input's largest number; the features say the opposite."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(-x, x)


class Net:
    """A network whose subnets return what a form makes of features and logits."""

    def __init__(self, form, outputs, classes):
        self.space = SearchSpace([Choice("width", (1, 2))])
        self.card = Card(name="returning", description="", licence="", source="")
        self.digest, self.recalibrate = "0" * 64, ()
        self._form = form
        tensors = (TensorSpec(name="x", shape=(3,)),)
        self._spec = InputSpec(inputs=tensors, outputs=outputs, classes=classes)

    def subnet(self, arch):
        return Returning(self._form)

    def input_spec(self, arch):
        return self._spec

    def blocks(self, arch):
        return None


def net_of(form, outputs, classes=CLASSES):
    return Supernet("returning", Net(form, outputs, classes))


def task_of(metric=TOP1, targets=(0, 1, 2)):
    x = np.eye(3, dtype=np.float32)[np.array(targets) % 3]
    samples = Samples({"x": x}, np.array(targets), {})
    return Task(spec="my:data", metric=metric, search=samples, report=samples)


FORMS = {
    "one": (lambda features, logits: logits, ("scores",)),
    "tuple": (lambda features, logits: (features, logits), ("features", "logits")),
    "list": (lambda features, logits: [logits, features], ("logits", "features")),
    "dict": (lambda features, logits: {"features": features, "logits": logits}, ("logits",)),
    "dict of both": (
        lambda features, logits: {"logits": logits, "features": features},
        ("features", "logits"),
    ),
    "named tuple": (Pair, ("logits",)),
    "wide features": (
        lambda features, logits: (torch.cat([features, features], 1), logits),
        ("features", "logits"),
    ),
}


@pytest.fixture(scope="module")
def device():
    device = load_device("ort-cpu:threads=1")
    yield device
    device.close()


@pytest.mark.parametrize("form", FORMS)
def test_declared_outputs_are_accepted(form):
    check_outputs(net_of(*FORMS[form]), task_of())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_declared_outputs_are_scored(form, shared, device, tmp_path):
    net, task = net_of(*FORMS[form]), task_of()
    arch = net.space.smallest()[0]
    onnx.save(to_onnx(net, arch), tmp_path / "model.onnx")
    runner = device if shared else OneByOne(device)
    found = Scorer(net, runner, TOP1).score({arch: tmp_path / "model.onnx"}, task.search)
    assert found[arch].outcomes.tolist() == [True, True, True]


class OneByOne:
    """A device that can run one model at a time."""

    def __init__(self, device):
        self._device = device

    def run(self, model, batches):
        return self._device.run(model, batches)


@pytest.mark.parametrize(
    ("form", "outputs", "says"),
    [
        (
            lambda f, s: (f, s),
            ("features", "scores"),
            "metric 'top1' scores the output 'logits', ",
        ),
        (lambda f, s: (f, s), ("logits",), "returns 2 outputs, but input_spec names 1: logits"),
        (lambda f, s: s, ("features", "logits"), "returns 1 outputs, but input_spec names 2"),
        (lambda f, s: {"out": s}, ("logits",), "forward returns out, but input_spec names the"),
        (
            lambda f, s: (s, [f]),
            ("logits", "features"),
            "'features' of forward is a list, not a t",
        ),
        (lambda f, s: s[:, :2], ("logits",), r"shape \(2, 2\) for 2 samples, .* needs \(2, 3\)"),
        (lambda f, s: s[:, :, None], ("logits",), r"has shape \(2, 3, 1\) for 2 samples"),
        (lambda f, s: s.argmax(1), ("logits",), r"has shape \(2,\) for 2 samples"),
        (lambda f, s: (s[:, :2], s), ("logits", "scores"), r"'logits' has shape \(2, 2\) for 2"),
    ],
)
def test_refused(form, outputs, says):
    with pytest.raises(InputError, match=says) as caught:
        check_outputs(net_of(form, outputs), task_of())
    assert "supernet 'returning' and data 'my:data': " in str(caught.value)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_any_number_of_samples(n, tmp_path):
    """Of arrays and of files; the files are not opened."""
    task = task_of(targets=range(n))
    check_outputs(net_of(*FORMS["one"]), task)
    (tmp_path / "a").mkdir()
    paths = [str(tmp_path / "a" / f"{i}.png") for i in range(n)]
    spec = image_spec(3, 8, 8)
    files = ImageSamples(tmp_path, paths, np.zeros(n, int), spec, DecodedImageCache(0))
    net = Supernet("one", One(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), spec))
    check_outputs(net, replace(task, search=files))


def test_targets_that_no_output_scores():
    net = net_of(lambda f, s: s, ("scores",), classes=())
    check_outputs(net, task_of())
    with pytest.raises(InputError, match="'scores' scores 3 classes, but the data has class 5"):
        check_outputs(net, task_of(targets=(0, 1, 2, 5)))


class TestOtherMetrics:
    def test_get_all_outputs_in_the_declared_order(self):
        seen = []

        def difference(outputs, targets):
            seen.append(outputs)
            return (outputs[1] - outputs[0])[:, 0]

        metric = Metric(name="difference", per_sample=difference)
        form, _ = FORMS["dict of both"]
        check_outputs(net_of(form, ("features", "logits")), task_of(metric))
        ((features, logits),) = seen
        np.testing.assert_array_equal(features, -logits)

    def test_get_the_one_that_they_name(self):
        metric = replace(TOP1, output="scores")
        form, _ = FORMS["tuple"]
        check_outputs(net_of(form, ("features", "scores")), task_of(metric))
        with pytest.raises(InputError, match="scores the output 'scores'"):
            check_outputs(net_of(form, ("features", "logits")), task_of(metric))

    @pytest.mark.parametrize(
        ("per_sample", "says"),
        [
            (lambda outputs, targets: outputs[7], "metric 'mine' raised IndexError"),
            (
                lambda outputs, targets: outputs[0],
                r"gave an array of shape \(2, 3\) for 2 samples",
            ),
            (lambda outputs, targets: targets * np.nan, "metric 'mine' gave NaN or infinite"),
        ],
    )
    def test_that_fail(self, per_sample, says):
        metric = Metric(name="mine", per_sample=per_sample)
        with pytest.raises(InputError, match=says):
            check_outputs(net_of(*FORMS["one"]), task_of(metric))


def test_a_subnet_that_fails_is_left_to_its_trial():
    def fail(features, logits):
        raise RuntimeError

    check_outputs(net_of(fail, ("logits",)), task_of())


def test_a_model_of_other_outputs_fails_by_itself():
    with pytest.raises(EvaluationError, match="the model has 2 outputs, but 1 are declared: one"):
        TOP1.scored([np.zeros((1, 2))] * 2, ("one",))
