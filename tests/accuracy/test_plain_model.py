"""A plain ONNX model from its file to scores against itself, in ONNX Runtime."""

from functools import partial

import numpy as np
import onnx
import pytest
from PIL import Image

from hwsearch import load_task, to_onnx
from hwsearch.accuracy.answers import answered
from hwsearch.accuracy.sample_shapes import sample_shapes
from hwsearch.accuracy.scoring import Scorer
from hwsearch.devices import load_device
from hwsearch.models.input_spec import input_spec_of
from hwsearch.supernets.cifar10_resnet import FAMILY, MEAN, STD
from hwsearch.supernets.supernet import Supernet

PREPROCESS = f"mean={'/'.join(map(str, MEAN))},std={'/'.join(map(str, STD))}"


@pytest.fixture(scope="module")
def net():
    return Supernet("cifar10-resnet", FAMILY.tiny(), "random:0")


@pytest.fixture(scope="module")
def device():
    device = load_device("ort-cpu:threads=1")
    yield device
    device.close()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The original, the largest subnet, and the smallest one."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for arch in (net.space.largest()[0], net.space.smallest()[0]):
        found[arch] = folder / f"{arch.key}.onnx"
        onnx.save(to_onnx(net, arch), found[arch])
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(90):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_the_spec_is_that_of_the_family(net, files):
    arch, path = next(iter(files.items()))
    found = input_spec_of(onnx.load(path), preprocess=PREPROCESS)
    declared = net.input_spec(arch)
    assert (found.inputs, found.outputs) == (declared.inputs, declared.outputs)
    assert found.preprocessing == declared.preprocessing
    assert len(found.classes) == len(declared.classes)


def test_subnets_are_scored_against_the_original(net, device, files, photos):
    (original, path), (small, _) = files.items()
    model, data = onnx.load(path), f"imagefolder:{photos}"
    spec = input_spec_of(model, sample_shapes(data, model), PREPROCESS)
    task = load_task(data, spec, "", labels="optional")
    task = answered(task, spec, partial(device.run, path), "digest", ["kl", "latency"])
    assert [metric.name for metric in task.metrics] == ["kl", "agreement"]
    scored = Scorer(net, device, task.metric, task.beside).score(files, task.search)
    assert scored[original].outcomes.max() == 0
    assert scored[original].beside["agreement"].all()
    assert scored[small].outcomes.min() > 0
    assert scored[small].outcomes.shape == (len(task.search),)
    assert scored[small].beside["agreement"].shape == (len(task.search),)
