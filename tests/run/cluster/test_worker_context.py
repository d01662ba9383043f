"""The functions that run on nodes, called in this process with pickled arguments and results."""

import json
import pickle
import shutil
from collections import deque

import numpy as np
import pandas as pd
import pytest
import torch
from hwsearch_test_plugin.scripted_device import BATCH_EXPONENT
from safetensors.torch import save_file

import hwsearch
import tests.run.search_parts as parts
from hwsearch.devices import MeasureSettings
from hwsearch.errors import HwsearchError, InputError
from hwsearch.files import sha256_of
from hwsearch.kit.device import DeviceInfo, output_device
from hwsearch.run import settings as run_settings
from hwsearch.run.cluster import scheduler, worker_context
from hwsearch.run.cluster.scheduler import JobResult, JobScheduler, cluster_device
from hwsearch.run.cluster.worker_context import WorkerContext, measure_models, run_job, search_spec
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.supernets.checkpoint_files import read_state
from hwsearch.supernets.weight_sources import bundled_file
from hwsearch.trials import Measurement
from tests.elastic_parts import write_model, write_samples
from tests.run.cluster.cluster_parts import config, settings
from tests.run.test_search_jobs import SPREAD, latency_by_key

WEIGHTS = bundled_file("cifar10-resnet", "weights.safetensors")


@pytest.fixture(autouse=True)
def _contexts_of_this_test(monkeypatch):
    monkeypatch.setattr(worker_context, "_contexts", {})
    monkeypatch.setattr(worker_context, "_devices", {})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def sent(value):
    """Return a value as it arrives in another process."""
    return pickle.loads(pickle.dumps(value))


class LocalQueue:
    """Runs the jobs of a search in this process, oldest first."""

    n_workers = 1

    def __init__(self, setup):
        self.spec, self.waiting = sent(search_spec(setup)), deque()

    def submit(self, job):
        self.waiting.append(job)

    def next(self):
        job = self.waiting.popleft()
        bridges = [dict(arch.mapping) for arch in job.bridges]
        arguments = sent((dict(job.arch.mapping), job.quantity, job.pace, bridges, job.known))
        return job, sent(run_job(self.spec, *arguments))

    def close(self):
        self.waiting.clear()


def everything(run):
    found = {}
    for m in run.measurements():
        details = {k: v for k, v in m.details.items() if k != "weights"}
        samples = None if m.samples is None else m.samples.tobytes()
        found[m.identity] = (m.value, m.low, m.high, m.count, samples, details)
    return found


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("quick_infer")
def test_a_search_by_jobs_is_the_same_to_the_last_bit(folder, tmp_path, monkeypatch):
    given = settings(folder, tactic="random", batch=1, budget=10)
    net = given.pop("supernet")
    alone = hwsearch.search(net, **given, out=tmp_path / "alone")

    def by_jobs(_, setup, evaluator, *rest):
        return JobScheduler(LocalQueue(setup), evaluator, setup.measured)

    monkeypatch.setattr("hwsearch.run.search.make_scheduler", by_jobs)
    through = hwsearch.search(net, **given, out=tmp_path / "through")
    assert set(through.trials["state"]) == {"done", "failed"}
    assert through.trials.equals(alone.trials)
    assert everything(through).items() <= everything(alone).items()  # a failing one stops earlier
    assert through.front.equals(alone.front)
    latencies = [m for m in through.measurements() if m.identity[1::2] == ("latency", "search")]
    assert {m.details["weights"] for m in latencies} == {"a repeated tile in the same graph"}


@pytest.mark.usefixtures("quick_infer")
def test_throughputs_by_jobs_are_corrected_at_every_batch_size(tmp_path, monkeypatch):
    """The first latency is known from a process that was stopped before the next batch size."""

    def device(spec="scripted"):
        batch = int(spec.partition("batch=")[2] or 1)
        return parts.InProcess(latency_by_key, job_spread=SPREAD, batch=batch)

    def by_jobs(_, setup, evaluator, *rest):
        return JobScheduler(LocalQueue(setup), evaluator, setup.measured)

    parts.use(monkeypatch, device())
    monkeypatch.setattr(worker_context, "load_device", device)
    given = {**parts.SETTINGS, "objectives": ["latency", "throughput"], "batch_sizes": [1, 4]}
    with monkeypatch.context() as patch:
        parts.interrupt_measuring(patch, call=2)
        with pytest.raises(KeyboardInterrupt):
            hwsearch.search(**{**given, "batch": 1}, out=tmp_path / "run")
    (begun,) = hwsearch.Run(tmp_path / "run").measurements()
    monkeypatch.setattr("hwsearch.run.search.make_scheduler", by_jobs)
    run = hwsearch.resume(tmp_path / "run")
    assert run.measurements()[0].value == begun.value
    jobs = {}
    for m in run.measurements():
        if "job" in m.details and m.purpose != "confirm":
            jobs.setdefault((m.quantity, m.details["job"]), []).append(m.purpose)
    assert set(jobs) == {(q, n) for q in ("latency", "batch_latency") for n in range(12)}
    assert [len(purposes) for purposes in jobs.values()].count(1) == 2  # the first ones
    scale = 4.0 ** (1 - BATCH_EXPONENT)
    trials = run.trials.set_index("key")
    true = pd.Series({key: latency_by_key(key, None) for key in trials.index})
    assert np.ptp(np.log(trials["throughput"] * true / scale)) < 0.02
    raw = {
        m.key: m.value for m in run.measurements() if m.identity[1::2] == ("throughput", "search")
    }
    assert np.ptp(np.log(pd.Series(raw) * true)) > 0.1


@pytest.fixture
def made(folder):
    setup = prepare(config(folder))
    yield setup
    setup.device.close()


def run_largest(spec, setup):
    arch = setup.net.space.largest()[0]
    return run_job(spec, arch.mapping, "latency", (0.0, 0))


def test_a_process_loads_a_search_once_and_one_search_at_a_time(made, folder):
    first, second = search_spec(made), search_spec(made)
    for spec in (first, first, second):
        (measured,) = run_largest(spec, made).measurements
        assert measured.quantity == "latency"
    assert list(worker_context._contexts) == [second["id"]]
    assert len(folder.loaded) == 3  # here, and once for each search


class TestRefuses:
    def test_another_version(self, made):
        with pytest.raises(InputError, match=r"it has hwsearch .*, the search 0\.0\.0; install"):
            WorkerContext({**search_spec(made), "version": "0.0.0"})

    def test_other_weights(self, made, folder):
        spec = search_spec(made)
        folder.exchange()
        with pytest.raises(InputError, match="scores are not comparable: weights was"):
            WorkerContext(spec)

    def test_to_measure_on_another_device(self, made):
        info = DeviceInfo.of(made.device)
        info = info._replace(fingerprint={**info.fingerprint, "cpu": "another"})
        spec = {**search_spec(made), "device": info}
        with pytest.raises(InputError, match=r"another fingerprint here.*cpu was another, is"):
            run_largest(spec, made)

    def test_measurements_of_another_context(self, made):
        store = hwsearch.trial_store.Store()
        arch = made.net.space.smallest()[0]
        store.propose([arch], 0, "test")
        strange = Measurement(
            key=arch.key,
            quantity="latency",
            context="another device",
            purpose="search",
            value=5.0,
            count=1,
            cost_s=0.0,
        )

        class Queue:
            def submit(self, job):
                self.job = job

            def next(self):
                return self.job, JobResult(measurements=(strange,))

        scheduler = JobScheduler(Queue(), made.evaluator(store), made.measured)
        scheduler.start([arch])
        with pytest.raises(HwsearchError, match=r"latency of .* in another context"):
            scheduler.finished()


def test_outputs_come_from_the_same_runtime_where_a_machine_has_too_few_processors():
    device = output_device(DeviceInfo("ort-cpu:threads=100000,precision=int8", "", "int8", {}))
    assert (device.spec, device.precision) == ("ort-cpu:threads=1,precision=int8", "int8")
    with pytest.raises(InputError, match="unknown device"):
        output_device(DeviceInfo("no-such", "", "fp32", {}))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the bundled weights are not there")
class TestWeights:
    def setup_of(self, **given):
        return prepare(RunConfig(device="scripted", data="bundled", **given))

    def test_of_a_checkpoint_travel(self, tmp_path):
        file = tmp_path / "mine.safetensors"
        file.write_bytes(WEIGHTS.read_bytes())
        setup = self.setup_of(checkpoint=str(file))
        spec = search_spec(setup)
        assert spec["weights"][file.name].tobytes() == WEIGHTS.read_bytes()
        file.unlink()
        assert len(run_largest(spec, setup).measurements) == 1

    def test_in_a_folder_travel(self, tmp_path):
        file = tmp_path / "folder" / "mine.safetensors"
        file.parent.mkdir()
        file.write_bytes(WEIGHTS.read_bytes())
        setup = self.setup_of(checkpoint=str(file.parent))
        spec = search_spec(setup)
        file.unlink()
        assert len(run_largest(spec, setup).measurements) == 1

    @pytest.mark.parametrize("name", ["ema", "raw"])
    def test_of_one_of_several_states_travel(self, tmp_path, name):
        file, raw = tmp_path / "both.pt", read_state(WEIGHTS)
        average = {key: tensor * 0.5 for key, tensor in raw.items()}
        torch.save({"model": raw, "ema": average}, file)
        setup = self.setup_of(checkpoint=f"{file}#{name}")
        spec = sent(search_spec(setup))
        assert list(spec["weights"]) == ["both.pt"]
        file.unlink()
        assert len(run_largest(spec, setup).measurements) == 1

    def test_of_shards_travel(self, tmp_path):
        state, shards = read_state(WEIGHTS), ("a.safetensors", "b.safetensors")
        shard_of = {key: shards[n % 2] for n, key in enumerate(state)}
        for shard in shards:
            part = {key: tensor for key, tensor in state.items() if shard_of[key] == shard}
            save_file(part, tmp_path / shard)
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": shard_of}))
        setup = self.setup_of(checkpoint=str(index))
        spec = sent(search_spec(setup))
        assert sorted(spec["weights"]) == [*shards, index.name]
        for file in (index, *(tmp_path / shard for shard in shards)):
            file.unlink()
        assert len(run_largest(spec, setup).measurements) == 1

    def test_imported_by_name_travel(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "here"))
        hwsearch.import_checkpoint(WEIGHTS, "mine")
        setup = self.setup_of(supernet="mine")
        spec = search_spec(setup)
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "a node"))
        assert len(run_largest(spec, setup).measurements) == 1

    def test_that_ship_do_not_travel(self):
        assert not search_spec(self.setup_of())["weights"]
        assert not search_spec(self.setup_of(checkpoint="random:3"))["weights"]


def test_a_node_measures_models_that_come_as_bytes(made, tmp_path):
    arch = made.net.space.largest()[0]
    evaluator = made.evaluator(None)  # its files last as long as it does
    path = evaluator.files_of([arch])[arch.key]
    before, info = sha256_of(path), DeviceInfo.of(made.device)
    content = {arch.key: np.fromfile(path, np.uint8)}
    found = measure_models(info, content, 0, MeasureSettings())
    expected = made.device.measure({arch.key: path}, seed=0)
    assert {k: v.latency_ms for k, v in found.items()} == {arch.key: expected[arch.key].latency_ms}
    assert sha256_of(path) == before
    with pytest.raises(InputError, match="another fingerprint here"):
        measure_models(
            info._replace(fingerprint={"cpu": "another"}), content, 0, MeasureSettings()
        )


class TestOption:
    def test_is_ray_or_nothing(self, monkeypatch):
        monkeypatch.setattr(scheduler, "find_spec", lambda name: True)
        assert run_settings.check_workers("ray")
        assert not any(run_settings.check_workers(given) for given in (None, 1, "1"))
        assert cluster_device(None, "no such device") is None
        assert cluster_device("ray", "kit:table.json") is None

    @pytest.mark.parametrize("given", [0, 2, -2, "2", "two", 1.5, True, "", "Ray"])
    def test_other_values_are_refused_with_what_to_do(self, given):
        with pytest.raises(InputError, match=r"run 'hwsearch worker' on each node and give .*ray"):
            run_settings.check_workers(given)

    def test_needs_ray(self, monkeypatch):
        monkeypatch.setattr(scheduler, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install 'hwsearch\[ray\]'"):
            cluster_device("ray", "kit:table.json")


def test_an_elastic_model_is_sent_as_its_folder(tmp_path):
    data = write_samples(tmp_path / "data.npz", write_model(tmp_path / "model.onnx"))
    file = tmp_path / "model.onnx"
    made = prepare(RunConfig(supernet=str(file), device="ort-cpu:threads=1", data=data))
    spec = sent(search_spec(made))
    assert {"model.onnx", "space.json"} <= set(spec["weights"])
    file.unlink()
    shutil.rmtree(made.net.network.folder)
    context = WorkerContext(spec)
    (arch,) = made.net.space.smallest()
    result = context.run(dict(arch.mapping), "top1", (0.0, 0), ())
    context.close()
    assert result.failed is None
    assert "top1" in {m.quantity for m in result.measurements}
