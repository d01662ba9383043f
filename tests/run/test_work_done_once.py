"""A run recalibrates every subnet once, and scores those of one step together."""

import pytest
import torch

import hwsearch
import tests.run.search_parts as parts
from hwsearch.accuracy.scoring import Scorer
from hwsearch.accuracy.statistics_cache import StatisticsCache
from hwsearch.evaluation import build as building
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.supernets.zoo import load_supernet
from hwsearch.trials import MemoryStore

pytestmark = pytest.mark.usefixtures("quick_infer")


def test_no_subnet_of_a_run_is_recalibrated_twice(device, tmp_path, monkeypatch):
    recalibrated, keep = [], StatisticsCache.keep

    def watched(self, arch, subnet):
        recalibrated.append(arch.key)
        keep(self, arch, subnet)

    monkeypatch.setattr(StatisticsCache, "keep", watched)
    run = hwsearch.search(**{**parts.SETTINGS, "budget": 8}, out=tmp_path / "run")
    assert len(run.front) > 1
    assert recalibrated.pop(0), "the one by which the run's length is estimated"
    assert len(recalibrated) == len(set(recalibrated))
    assert set(run.trials["key"]) == set(recalibrated)


def test_the_front_is_scored_on_report_images_at_once(device, tmp_path, monkeypatch):
    scored, outcomes = [], Scorer.outcomes

    def watched(self, models, samples):
        scored.append((len(models), len(samples)))
        return outcomes(self, models, samples)

    monkeypatch.setattr(Scorer, "outcomes", watched)
    run = hwsearch.search(**{**parts.SETTINGS, "budget": 8}, out=tmp_path / "run")
    assert [n for n, samples in scored if samples == parts.SIZES["report"]] == [len(run.front)]
    assert sum(n for n, samples in scored if samples == parts.SIZES["search"]) == len(run.trials)


def test_what_is_built_again_is_the_same_file(device):
    net = load_supernet(parts.NET)
    task = parts.task(net.input_spec(net.space.largest()[0]))
    first = Evaluator(net, device, task, MemoryStore())
    (arch,) = net.space.sample(1, seed=0)
    once = first.build(arch)
    again = first.build(arch)
    fresh = Evaluator(net, device, task, MemoryStore()).build(arch)
    for other in (again, fresh):
        assert other.model.SerializeToString(deterministic=True) == (
            once.model.SerializeToString(deterministic=True)
        )
        pairs = zip(
            once.subnet.state_dict().values(), other.subnet.state_dict().values(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_what_is_built_again_costs_no_samples(device):
    net = load_supernet(parts.NET)
    task = parts.task(net.input_spec(net.space.largest()[0]))
    builder = building.Builder(net, device, task)
    archs = list(net.space.sample(3, seed=0))
    first = [built.calibrated for built in builder.build(archs)]
    assert sum(first) > parts.SIZES["calibration"]
    assert [built.calibrated for built in builder.build(archs)] == [0, 0, 0]
    (beside_new,) = list(builder.build([*archs, net.space.largest()[0]]))[3:]
    assert beside_new.calibrated == parts.SIZES["calibration"]
