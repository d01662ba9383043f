"""A run recalibrates every subnet once, and scores those of one step together."""

from collections import Counter
from contextlib import closing

import onnx
import pytest
import torch

import hwsearch
import tests.run.search_parts as parts
from hwsearch.accuracy.recalibrate import StatisticsCache
from hwsearch.accuracy.scoring import Scored, Scorer
from hwsearch.devices import load_device
from hwsearch.evaluation.build import Builder, BuiltModels
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.models.export import to_onnx
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_supernet
from hwsearch.trial_store import Store

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
    scored, score = [], Scorer.score

    def watched(self, models, samples):
        scored.append((len(models), len(samples)))
        return score(self, models, samples)

    monkeypatch.setattr(Scorer, "score", watched)
    run = hwsearch.search(**{**parts.SETTINGS, "budget": 8}, out=tmp_path / "run")
    assert [n for n, samples in scored if samples == parts.SIZES["report"]] == [len(run.front)]
    assert sum(n for n, samples in scored if samples == parts.SIZES["search"]) == len(run.trials)


def test_what_is_built_again_is_the_same_file(device):
    net = load_supernet(parts.NET)
    task = parts.task(net.input_spec(net.space.largest()[0]))
    first = Evaluator(net, device, task, Store())
    (arch,) = net.space.sample(1, seed=0)
    once = first.models.exported(arch)
    again = first.models.exported(arch)
    fresh = Evaluator(net, device, task, Store()).models.exported(arch)
    for other in (again, fresh):
        assert other.model.SerializeToString(deterministic=True) == (
            once.model.SerializeToString(deterministic=True)
        )
        pairs = zip(
            once.subnet.state_dict().values(), other.subnet.state_dict().values(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_an_architecture_is_built_once_from_search_to_shipping(device, tmp_path, monkeypatch):
    """Timing, scoring, confirming, the report's scores and export take one model and network."""
    exported, networks = [], []

    def export(net, arch, *args, **named):
        exported.append(arch.key)
        return to_onnx(net, arch, *args, **named)

    def subnet(self, arch):
        networks.append(arch.key)
        return supernet_subnet(self, arch)

    supernet_subnet, net = Supernet.subnet, load_supernet(parts.NET)
    monkeypatch.setattr("hwsearch.evaluation.recalibrated_modules.to_onnx", export)
    monkeypatch.setattr(Supernet, "subnet", subnet)
    run = hwsearch.search(**{**parts.SETTINGS, "budget": 8}, out=tmp_path / "run")
    assert len(run.front) > 1
    asked = networks.pop(0)  # its outputs are looked at before the search
    assert asked in {arch.key for arch in net.space.smallest()}
    for built in (exported, networks):
        assert len(built) == len(set(built))
        assert set(run.trials["key"]) <= set(built)
        assert len(built) <= len(run.trials) + 1  # the one by which the run's length is estimated


def test_a_model_in_memory_is_scored_without_parsing_its_file(monkeypatch):
    net, parsed = load_supernet(parts.NET), []
    task = parts.task(net.input_spec(net.space.largest()[0]))
    archs = list(net.space.sample(3, seed=0).unique())
    with closing(load_device("ort-cpu")) as device:
        evaluator = Evaluator(net, device, task, Store())
        monkeypatch.setattr(onnx, "load", lambda path, **named: parsed.append(path))
        built = evaluator.models.get(archs)
        scored = evaluator.outcomes({arch: built[arch].path for arch in archs}, task.search)
        evaluator.close()
    assert all(isinstance(found, Scored) for found in scored.values())
    assert not parsed


def test_blocks_of_an_architecture_are_asked_for_once(device, tmp_path, monkeypatch):
    net, asked = load_supernet(parts.NET), []
    blocks = type(net.network).blocks

    def counted(self, arch):
        asked.append(arch.key)
        return blocks(self, arch)

    monkeypatch.setattr(type(net.network), "blocks", counted)
    settings = {**parts.SETTINGS, "budget": 8, "objectives": ["top1", "latency"]}
    run = hwsearch.search(**settings, out=tmp_path / "run")
    of_trials = [key for key in asked if key in set(run.trials["key"])]
    assert max(Counter(of_trials).values()) <= 2  # for its graph and scores, and for its costs


def builder_of(device):
    net = load_supernet(parts.NET)
    task = parts.task(net.input_spec(net.space.largest()[0]))
    return net, Builder(net, device, task)


def test_what_leaves_memory_or_disk_is_built_again_to_the_same_bytes(device):
    net, builder = builder_of(device)
    archs = list(net.space.sample(4, seed=0).unique())
    with closing(BuiltModels(net, builder, memory=0, disk=0)) as models:
        first = {a: built.path.read_bytes() for a, built in models.get(archs).items()}
        entries = models.get(archs)
        assert all(built.exported is None for built in entries.values())
        assert all(built.path.is_file() for built in entries.values())
        exported = models.exported(archs[0])
        assert exported.model.SerializeToString(deterministic=True) == first[archs[0]]
        assert not entries[archs[1]].path.exists()
        again = models.get(archs)
        assert {arch: built.path.read_bytes() for arch, built in again.items()} == first


def test_building_is_charged_once(device):
    net, builder = builder_of(device)
    (arch,) = net.space.sample(1, seed=0)
    with closing(BuiltModels(net, builder)) as models:
        assert models.get([arch])[arch].charge() > 0
        assert models.get([arch])[arch].charge() == 0


def test_the_files_are_removed_at_the_end(device):
    net, builder = builder_of(device)
    archs = list(net.space.sample(2, seed=0))
    models = BuiltModels(net, builder)
    paths = [built.path for built in models.get(archs, only_timed=True).values()]
    assert all(built.only_timed for built in models.get(archs, only_timed=True).values())
    assert all(path.is_file() for path in paths)
    models.close()
    models.close()
    assert not paths[0].parent.exists()
