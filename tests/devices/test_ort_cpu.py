import os
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import hwsearch.devices.ort_cpu as ort_cpu
import hwsearch.devices.worker_device as worker_device
from hwsearch.devices import Latency, MeasureSettings, load_device, measure
from hwsearch.devices.base import Profile
from hwsearch.devices.ort_runtime import read_profile
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError, InputError
from tests.contracts.device_contract import QUICK, DeviceContract
from tests.devices import tiny_models


class TestOrtCpu(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = load_device("ort-cpu:threads=1")
        yield device
        device.close()


class TestOrtCpuInt8(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        device = load_device("ort-cpu:precision=int8")
        yield device
        device.close()


@pytest.fixture
def device():
    device = load_device("ort-cpu")
    yield device
    device.close()


@pytest.fixture
def workers(monkeypatch):
    """Every worker process that is started, in order."""
    started = []

    class Noted(Worker):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(worker_device, "Worker", Noted)
    return started


@pytest.fixture
def pair(tmp_path):
    return {
        "a": tiny_models.conv(tmp_path / "a.onnx"),
        "b": tiny_models.conv(tmp_path / "b.onnx", channels=4),
    }


def test_fingerprint_says_what_decides_a_latency(device):
    fingerprint = device.fingerprint()
    assert fingerprint["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert fingerprint["threads"] == fingerprint["batch"] == 1
    assert "spinning" in fingerprint["provider options"]
    assert fingerprint["cores"] == os.cpu_count()
    assert fingerprint["waiting for a cpu"] in ("taken out", "included")
    pinned = fingerprint["affinity"]
    assert pinned == "none" or int(pinned) in os.sched_getaffinity(0)


def test_nan_outputs_are_named_before_anything_is_timed(device, pair, tmp_path):
    files = {
        "weight": tiny_models.conv(tmp_path / "w.onnx", nan=True),
        "always": tiny_models.elementwise(tmp_path / "n.onnx", "Exp", "Neg", "Log"),
        "positive": tiny_models.elementwise(tmp_path / "p.onnx", "Log"),
        "a": pair["a"],
    }
    results = device.measure(files, seed=0, settings=QUICK)
    assert "NaN in its weight 'weight'" in str(results["weight"])
    assert "output 'y' is NaN in" in str(results["always"])
    assert isinstance(results["positive"], Latency)
    assert isinstance(results["a"], Latency)


def test_measuring_works_where_there_is_no_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(worker_device, "choose_cpus", lambda n: [4095])
    device = ort_cpu.OrtCpu()
    assert device.fingerprint()["affinity"] == "none"
    files = {"a": tiny_models.conv(tmp_path / "a.onnx")}
    assert isinstance(device.measure(files, seed=0, settings=QUICK)["a"], Latency)


def test_outputs_equal_those_of_onnxruntime(device, tmp_path):
    model = tiny_models.conv(tmp_path / "a.onnx")
    images = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    batches = [{"image": images[:2]}, {"image": images[::-1][:4]}]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = [session.run(None, batch)[0] for batch in batches]
    got = [outputs[0] for outputs in device.run(model, batches)]
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert ours.flags.writeable


def test_many_models_share_one_process(device, pair, workers):
    image = {"image": np.ones((1, 3, 8, 8), np.float32)}
    for path in [*pair.values()] * 3:
        assert len(list(device.run(path, [image]))) == 1
    assert len(workers) == 1


def test_running_goes_on_after_a_crash(device, pair, workers):
    image = {"image": np.ones((1, 3, 8, 8), np.float32)}
    outputs = device.run(pair["a"], [image] * 3)
    next(outputs)
    os.kill(workers[0].pid, signal.SIGSEGV)
    with pytest.raises(DeviceError, match="SIGSEGV"):
        list(outputs)
    assert len(list(device.run(pair["b"], [image]))) == 1
    assert len(workers) == 2


def test_an_abandoned_run_leaves_no_model_behind(device, pair):
    image = {"image": np.ones((1, 3, 8, 8), np.float32)}
    outputs = device.run(pair["a"], [image] * 3)
    next(outputs)
    outputs.close()
    with pytest.raises(DeviceError, match="KeyError"):
        device._runner.call("run", 0, {}, timeout_s=60)


def killed_at(name):
    """Kill a worker process once it is asked to load a file of that name."""
    call = Worker.call

    def killing(worker, method, source, *arguments, **limits):
        if method == "load" and isinstance(source, str) and Path(source).stem == name:
            os.kill(worker.pid, signal.SIGABRT)
        return call(worker, method, source, *arguments, **limits)

    return killing


def test_a_crash_fails_only_the_model_at_work(device, pair, workers, tmp_path, monkeypatch):
    files = {"a": pair["a"], "fatal": tiny_models.conv(tmp_path / "fatal.onnx"), "b": pair["b"]}
    device.fingerprint()
    monkeypatch.setattr(Worker, "call", killed_at("fatal"))
    results = device.measure(files, seed=0, settings=QUICK)
    assert "SIGABRT" in str(results["fatal"])
    assert isinstance(results["a"], Latency)
    assert isinstance(results["b"], Latency)
    assert len(workers) == 3


def test_a_hang_fails_only_the_model_at_work(device, pair, tmp_path):
    settings = MeasureSettings(
        half_width=0.5,
        seconds_per_model=0.1,
        first_look=5,
        burst_s=0.002,
        warmup_floor_s=0.0,
        warmup_ceiling_s=0.1,
        hang_s=4.0,
    )
    files = {"endless": tiny_models.endless(tmp_path / "e.onnx"), "a": pair["a"]}
    results = device.measure(files, seed=0, settings=settings)
    assert "no answer within 4 s" in str(results["endless"])
    assert isinstance(results["a"], Latency)


def test_memory_that_there_is_not_fails_only_its_model(device, pair, tmp_path):
    files = {"greedy": tiny_models.greedy(tmp_path / "g.onnx"), "a": pair["a"]}
    results = device.measure(files, seed=0, settings=QUICK)
    assert isinstance(results["greedy"], DeviceError)
    assert isinstance(results["a"], Latency)


def test_a_worker_killed_once_while_the_anchor_is_at_work_harms_nobody(
    device, pair, workers, monkeypatch
):
    device.fingerprint()
    killed = []

    def kill_once(*args):
        if not killed:
            killed.append(workers[-1].pid)
            os.kill(workers[-1].pid, signal.SIGKILL)
            time.sleep(0.05)

    # The anchor loads first, so it is at work when the worker of the job has just started.
    start = worker_device.Worker

    def started(*args, **kwargs):
        worker = start(*args, **kwargs)
        kill_once()
        return worker

    monkeypatch.setattr(worker_device, "Worker", started)
    results = device.measure(pair, seed=0, settings=QUICK)
    assert killed
    assert all(isinstance(result, Latency) for result in results.values())


def test_an_anchor_that_never_works_is_said_to_be_the_reason(device, pair, monkeypatch):
    device.fingerprint()
    monkeypatch.setattr("hwsearch.devices.benchmark.anchors", lambda: (b"no model",))
    results = device.measure(pair, seed=0, settings=QUICK)
    assert all("anchor" in str(result) for result in results.values())


def test_a_symbolic_dimension_beyond_the_first_is_refused_by_name(device, tmp_path):
    model = tiny_models.tokens(tmp_path / "t.onnx", length="sequence")
    reason = str(device.measure({"t": model}, seed=0, settings=QUICK)["t"])
    assert "'ids'" in reason
    assert "sequence" in reason


def test_a_model_that_cannot_be_timed_can_still_be_run(device, tmp_path):
    model = tiny_models.tokens(tmp_path / "t.onnx", length="sequence")
    batches = [{"ids": np.zeros((2, length), np.int64)} for length in (3, 7)]
    assert [outputs[0].shape for outputs in device.run(model, batches)] == [(2, 4), (2, 4)]


def test_the_batch_is_the_devices(tmp_path):
    files = {
        "dynamic": tiny_models.conv(tmp_path / "d.onnx"),
        "fixed": tiny_models.conv(tmp_path / "f.onnx", batch=1),
        "fitting": tiny_models.conv(tmp_path / "g.onnx", batch=4),
    }
    device = load_device("ort-cpu:batch=4")
    results = device.measure(files, seed=0, settings=QUICK)
    assert results["dynamic"].inputs == "image float32[4, 3, 8, 8]"
    assert results["fitting"].inputs == "image float32[4, 3, 8, 8]"
    assert "fixed to 1" in str(results["fixed"])
    assert results["dynamic"].device == "ort-cpu:threads=1,batch=4"


def test_baseline_is_taken_once(device, pair, monkeypatch):
    first = device.measure(pair, seed=0, settings=QUICK)
    # Measuring it again would fail.
    monkeypatch.setattr("hwsearch.devices.benchmark._BASELINE", None)
    second = device.measure(pair, seed=1, settings=QUICK)
    assert first["a"].baseline_ms == second["a"].baseline_ms


def test_a_precision_is_written_only_where_it_is_not_the_default():
    assert load_device("ort-cpu:precision=fp32").spec == "ort-cpu:threads=1"
    assert load_device("ort-cpu:precision=int8").spec == "ort-cpu:threads=1,precision=int8"
    assert load_device("ort-cpu:precision=int8").slug == "ort-cpu-threads1-precisionint8"


def test_a_profile_names_the_nodes_of_the_file(device, pair):
    profiles = device.profile(pair, runs=6)
    for profile in profiles.values():
        assert isinstance(profile, Profile)
        # Named by the node, or by its output in a layout of ONNX Runtime's own.
        assert any("Pool" in name or "pooled" in name for name in profile.nodes_ms)
        assert any(name.startswith("stem/") for name in profile.nodes_ms), profile.nodes_ms


def test_a_crash_fails_only_the_model_that_is_profiled(
    device, pair, workers, tmp_path, monkeypatch
):
    files = {"a": pair["a"], "fatal": tiny_models.conv(tmp_path / "fatal.onnx"), "b": pair["b"]}
    monkeypatch.setattr(Worker, "call", killed_at("fatal"))
    profiles = device.profile(files, runs=1)
    assert "SIGABRT" in str(profiles["fatal"])
    assert isinstance(profiles["a"], Profile)
    assert isinstance(profiles["b"], Profile)


def test_profiles_are_read_run_by_run():
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 90},
        {"cat": "Node", "name": "a/Conv_kernel_time", "ts": 110, "dur": 7},
        {"cat": "Node", "name": "a/Conv_kernel_time", "ts": 119, "dur": 3},
        {"cat": "Node", "name": "b_kernel_time", "ts": 130, "dur": 0},
        {"cat": "Session", "name": "model_run", "ts": 100, "dur": 50},
        {"cat": "Node", "name": "a/Conv_kernel_time", "ts": 210, "dur": 8},
        {"cat": "Session", "name": "model_run", "ts": 200, "dur": 50},
    ]
    names, spent_s = read_profile(events)
    assert names == ["a/Conv", "b"]
    np.testing.assert_allclose(spent_s, [[11e-6, 0.5e-6], [8.5e-6, 0]])


def test_public_measure_gives_one_row_per_model(pair, tmp_path):
    broken = tiny_models.garbage(tmp_path / "broken.onnx")
    models = [pair["a"], onnx.load(pair["b"]), str(broken), pair["a"]]
    table = measure(models, settings=QUICK)
    assert list(table.columns[:8]) == [
        "model",
        "latency_ms",
        "low",
        "high",
        "p50",
        "p90",
        "p99",
        "rounds",
    ]
    assert list(table["model"]) == [str(pair["a"]), "b", str(broken), str(pair["a"])]
    assert table["latency_ms"].notna().tolist() == [True, True, False, True]
    assert (table["error"] != "").tolist() == [False, False, True, False]


@pytest.mark.parametrize("models", [[], ["nowhere.onnx"], [3]])
def test_public_measure_refuses_what_is_no_model(models):
    with pytest.raises(InputError):
        measure(models, settings=QUICK)
