"""Outcomes of several subnets at once are those of each by itself."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest

from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.scoring import GROUP_SIZE, SCORE_BATCH, Scored, Scorer, prefix_groups
from hwsearch.accuracy.task import Samples
from hwsearch.devices import load_device
from hwsearch.errors import EvaluationError
from hwsearch.models.export import to_onnx
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_family
from tests.models.networks import IMAGE, One

# The answers themselves: what is right by chance tells little.
LABEL = replace(TOP1, per_sample=lambda outputs, targets: outputs[0].argmax(axis=1))


class OneByOne:
    """A device that can run one model at a time."""

    def __init__(self, device):
        self._device = device

    def run(self, model, batches):
        return self._device.run(model, batches)


@pytest.fixture(scope="module")
def device():
    device = load_device("ort-cpu:threads=1")
    yield device
    device.close()


@pytest.fixture(scope="module", params=["cifar10-resnet", "ofa-mbv3-w1.0"])
def net(request):
    return Supernet(request.param, load_family(request.param).tiny(), "random:0")


@pytest.fixture(scope="module")
def models(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return written(net, net.restrict(["resolution=max"] if has_sizes(net) else []), folder)


def has_sizes(net):
    return any(choice.name == "resolution" for choice in net.full_space.choices)


def written(net, drawn_from, folder, n=8):
    models = {}
    for arch in net.space.architectures([a.mapping for a in drawn_from.space.sample(n, seed=0)]):
        models[arch] = folder / f"{arch.key}.onnx"
        onnx.save(to_onnx(net, arch), models[arch])
    return models


def samples(net, arch, n=SCORE_BATCH + 9):
    shape = net.input_spec(arch).inputs[0].shape
    images = np.random.default_rng(0).standard_normal((n, *shape)).astype(np.float32)
    return Samples({"image": images}, np.arange(n) % 4, {})


def test_outcomes_are_those_of_each_alone(net, models, device):
    data = samples(net, next(iter(models)))
    together = Scorer(net, device, LABEL).score(models, data)
    one_by_one = Scorer(net, OneByOne(device), LABEL).score(models, data)
    assert list(together) == list(one_by_one) == list(models)
    for arch in models:
        np.testing.assert_array_equal(together[arch].outcomes, one_by_one[arch].outcomes)
        assert together[arch].cost_s > 0
    (alone,) = Scorer(net, device, LABEL).score({arch: models[arch]}, data).values()
    np.testing.assert_array_equal(alone.outcomes, together[arch].outcomes)


def test_a_part_of_the_samples_has_a_part_of_the_outcomes(net, models, device):
    data = samples(net, next(iter(models)))
    whole = Scorer(net, device, LABEL).score(models, data)
    rows = np.random.default_rng(1).permutation(SCORE_BATCH + 9)[:20]
    some = Samples({"image": data.inputs["image"][rows]}, data.targets[rows], {})
    part = Scorer(net, device, LABEL).score(models, some)
    for arch in models:
        np.testing.assert_array_equal(part[arch].outcomes, whole[arch].outcomes[rows])


@pytest.mark.parametrize("shares", [True, False])
def test_one_that_fails_takes_no_others_along(net, models, device, shares, tmp_path):
    bad, *others = models
    broken = onnx.load(models[bad])
    broken.graph.node[-1].op_type = "NoSuchOperator"
    given = {**models, bad: tmp_path / "broken.onnx"}
    onnx.save(broken, given[bad])
    runner = device if shares else OneByOne(device)
    found = Scorer(net, runner, TOP1).score(given, samples(net, bad, 9))
    assert "NoSuchOperator" in str(found[bad])
    assert isinstance(found[bad], EvaluationError)
    assert all(isinstance(found[arch], Scored) for arch in others)


def test_outputs_that_are_no_numbers_are_that_subnets(net, models, device, tmp_path):
    bad, *others = models
    broken = onnx.load(models[bad])
    weight = next(t for t in broken.graph.initializer if len(t.dims) == 2)
    weight.raw_data = np.full(tuple(weight.dims), np.inf, np.float32).tobytes()
    given = {**models, bad: tmp_path / "broken.onnx"}
    onnx.save(broken, given[bad])
    found = Scorer(net, device, TOP1).score(given, samples(net, bad, 9))
    assert "NaN or infinite" in str(found[bad])
    assert all(isinstance(found[arch], Scored) for arch in others)


def test_a_process_that_dies_is_started_again_and_they_are_scored_one_by_one(
    net, models, device, monkeypatch
):
    data = samples(net, next(iter(models)), 9)
    before = Scorer(net, device, LABEL).score(models, data)
    device._runner._process.kill()
    after = Scorer(net, device, LABEL).score(models, data)
    for arch in models:
        np.testing.assert_array_equal(after[arch].outcomes, before[arch].outcomes)


def test_no_samples(net, models, device):
    with pytest.raises(EvaluationError, match="no samples"):
        Scorer(net, device, TOP1).score(models, samples(net, next(iter(models)), 0))


def test_several_resolutions_at_once(device, tmp_path):
    net = Supernet("ofa-mbv3-w1.0", load_family("ofa-mbv3-w1.0").tiny(), "random:0")
    net = net.restrict(only=["resolution in 24,32"])
    models = written(net, net, tmp_path)
    assert {arch["resolution"] for arch in models} == {24, 32}

    class Sized:
        targets = np.zeros(9, np.int64)

        def __len__(self):
            return 9

        def batches(self, size, spec):
            shape = spec.inputs[0].shape
            yield {"image": np.ones((9, *shape), np.float32)}, self.targets

    found = Scorer(net, device, LABEL).score(models, Sized())
    for arch, model in models.items():
        batch = {"image": np.ones((9, *net.input_spec(arch).inputs[0].shape), np.float32)}
        ((scores,),) = device.run(model, [batch])
        np.testing.assert_array_equal(found[arch].outcomes, scores.argmax(axis=1))


class TestPrefixGroups:
    def test_all_are_there_once_in_groups_that_fit(self, net):
        archs = list(net.full_space.sample(40, seed=0))
        groups = prefix_groups(net, archs)
        assert max(map(len, groups)) <= GROUP_SIZE
        assert sorted(a.key for group in groups for a in group) == sorted(a.key for a in archs)

    def test_those_with_equal_first_blocks_are_next_to_each_other(self, net):
        archs = list(net.full_space.sample(40, seed=0))
        ordered = [
            (net.input_spec(a).inputs[0].shape, net.blocks(a)[2].spec)
            for group in prefix_groups(net, archs)
            for a in group
        ]
        changes = sum(a != b for a, b in pairwise(ordered))
        assert changes == len(set(ordered)) - 1

    def test_no_chain(self):
        network = One(None, IMAGE)
        net = Supernet("one", network)
        (arch,) = net.space.sample(1, seed=0)
        assert prefix_groups(net, [arch]) == [[arch]]


@pytest.mark.parametrize("wrap", [lambda device: device, OneByOne])
def test_the_estimate_is_of_all_samples(net, models, device, wrap, monkeypatch):
    """The first few are run twice: only the second time counts, as loading is done once."""
    arch, path = next(iter(models.items()))
    runs, few, runner = [], samples(net, arch, 3 * SCORE_BATCH), wrap(device)
    name = "run" if isinstance(runner, OneByOne) else "run_shared"
    answer = getattr(runner, name)

    def watched(model, batches):
        runs.extend(batches)
        clock.append(clock[-1] + (100.0 if len(runs) == 1 else 2.0))
        return answer(model, batches)

    clock = [0.0]
    monkeypatch.setattr(runner, name, watched)
    monkeypatch.setattr("hwsearch.accuracy.scoring.time.perf_counter", lambda: clock[-1])
    assert Scorer(net, runner, LABEL).estimate_cost_s(arch, path, few) == pytest.approx(6.0)
    assert [len(next(iter(batch.values()))) for batch in runs] == [SCORE_BATCH] * 2
