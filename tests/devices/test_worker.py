import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hwsearch.devices.runtime import Declared
from hwsearch.devices.worker import Models, cpu_clock, synthetic_inputs, timed_run
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from tests.devices import tiny_models

ORT = "hwsearch.devices.ort_runtime:RUNTIME"


@pytest.fixture
def worker():
    with Worker(None, ORT) as worker:
        yield worker


def load(worker, path, batch=1):
    return worker.call("load", str(path), batch, {"threads": 1}, timeout_s=60)


def test_a_worker_serves_and_survives_refusals(worker, tmp_path):
    with pytest.raises(DeviceError, match="INVALID_PROTOBUF"):
        load(worker, tiny_models.garbage(tmp_path / "g.onnx"))
    assert worker.lost is None
    number, inputs = load(worker, tiny_models.conv(tmp_path / "a.onnx"))
    assert inputs == "image float32[1, 3, 8, 8]"
    modes = worker.call("time", number, 5, timeout_s=60)
    assert list(modes) == ["run"]
    times_s, waits_s = modes["run"]
    assert times_s.shape == waits_s.shape == (5,)
    assert np.all(times_s > 0)
    assert np.all(waits_s >= 0)


def test_what_the_runtime_prints_does_not_reach_the_messages(tmp_path):
    """A stand-in for a chatty runtime: its import writes to stdout and reads stdin."""
    (tmp_path / "onnxruntime.py").write_text(
        "import os\n__version__ = '0.0'\nprint('hello')\nos.write(1, b'noise')\n"
        "assert os.read(0, 1) == b''\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with Worker(None, ORT) as worker:
            assert worker.version == "0.0"


def test_what_is_printed_before_the_worker_runs_does_not_reach_the_messages(tmp_path):
    """A stand-in for an environment whose interpreter prints at its start."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nprint('welcome', flush=True)\nos.write(1, b'hws')\nprint('later')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with Worker(None, ORT) as worker:
            assert worker.version
            with pytest.raises(DeviceError, match="there is no file"):
                load(worker, tmp_path / "none.onnx")


def test_a_worker_that_cannot_start_says_why(tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('the library is missing')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(DeviceError, match="the library is missing"):
            Worker(None, ORT)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGILL"])
def test_a_killed_worker_is_lost_with_the_reason(worker, name):
    os.kill(worker.pid, getattr(signal, name))
    with pytest.raises(DeviceError, match=name):
        worker.call("unload", 0, timeout_s=60)
    assert name in worker.lost
    with pytest.raises(DeviceError, match=name):
        worker.call("unload", 0, timeout_s=60)


def test_a_hanging_worker_is_killed(worker, tmp_path):
    number, _ = load(worker, tiny_models.endless(tmp_path / "e.onnx"), batch=None)
    with pytest.raises(DeviceError, match=r"no answer within 0\.5 s"):
        worker.call("run", number, {"start": np.zeros(1, np.float32)}, timeout_s=0.5)
    assert worker.lost


def test_ctrl_c_is_left_to_the_parent(worker):
    os.kill(worker.pid, signal.SIGINT)
    worker.call("unload", 0, timeout_s=60)


PARENT = """
import sys, time
import numpy as np
from hwsearch.devices.worker_process import Worker
worker = Worker(None, "hwsearch.devices.ort_runtime:RUNTIME")
print(worker.pid, flush=True)
if len(sys.argv) > 1:
    number, _ = worker.call("load", sys.argv[1], None, {"threads": 1}, timeout_s=60)
    print("running", flush=True)
    worker.call("run", number, {"start": np.zeros(1, np.float32)}, timeout_s=600)
time.sleep(600)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_dies_with_its_parent(busy, tmp_path):
    args = [str(tiny_models.endless(tmp_path / "e.onnx"))] if busy else []
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *args], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        if busy:
            assert parent.stdout.readline().strip() == "running"
            time.sleep(0.2)
        parent.kill()
    deadline = time.monotonic() + 30
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_inputs_come_from_what_the_model_declares():
    declared = [
        Declared("image", "float32", ("N", 3, 4)),
        Declared("half", "float16", (2, 2)),
        Declared("ids", "int64", (None, 50)),
        Declared("mask", "bool", ("N", 5)),
        Declared("scale", "float32", ()),
    ]
    feeds = synthetic_inputs(declared, 2)
    assert {name: (str(a.dtype), a.shape) for name, a in feeds.items()} == {
        "image": ("float32", (2, 3, 4)),
        "half": ("float16", (2, 2)),
        "ids": ("int64", (2, 50)),
        "mask": ("bool", (2, 5)),
        "scale": ("float32", ()),
    }
    assert set(np.unique(feeds["ids"])) == {0, 1}
    again = synthetic_inputs(declared, 2)
    assert all(np.array_equal(again[name], feeds[name]) for name in feeds)


def test_open_sizes_are_those_that_the_file_states():
    declared = [
        Declared("ids", "int64", ("N", "length")),
        Declared("x", "float32", ("N", None, 3)),
    ]
    feeds = synthetic_inputs(declared, 2, {"ids": (7,), "x": (7, 4)})
    assert feeds["ids"].shape == (2, 7)
    assert feeds["x"].shape == (2, 7, 3)
    with pytest.raises(ValueError, match="is not fixed"):
        synthetic_inputs(declared, 2, {"ids": (7, 7)})


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (Declared("ids", "int64", ("N", "length")), "dimension 1 .length. is not fixed"),
        (Declared("ids", "int64", ("N", None)), "dimension 1 .unnamed. is not fixed"),
        (Declared("x", "float32", (3, 4)), "fixed to 3"),
        (Declared("text", "string", ("N",)), "not a tensor of numbers"),
    ],
)
def test_inputs_that_cannot_be_made_are_named(declared, reason):
    with pytest.raises(ValueError, match=reason):
        synthetic_inputs([declared], 1)


class Machine:
    """A thread's life in nanoseconds: its CPU clock stands still while it is interrupted."""

    def __init__(self, interrupted_at=None):
        self.now, self.ran, self.readings = 0, 0, 0
        self._interrupted_at = interrupted_at

    def wall(self):
        self._read()
        return self.now

    def cpu(self):
        self._read()
        return self.ran

    def _read(self):
        self.readings += 1
        self._goes_on(100)
        if self.readings == self._interrupted_at:
            self.now += 4_000_000

    def _goes_on(self, lasting):
        self.now += lasting
        self.ran += lasting

    def run(self, *, interrupted=False):
        self._goes_on(500_000)
        if interrupted:
            self.now += 4_000_000


@pytest.mark.parametrize("interrupted", [False, True])
def test_waiting_is_told_from_running(interrupted):
    machine = Machine()
    took, waited = timed_run(
        lambda: machine.run(interrupted=interrupted), machine.wall, machine.cpu
    )
    assert took == pytest.approx(500_000, abs=1_000)
    assert waited == pytest.approx(4_000_000 if interrupted else 0, abs=1_000)


@pytest.mark.parametrize("reading", range(1, 5))
def test_an_interruption_beside_any_reading_spoils_nothing(reading):
    machine = Machine(interrupted_at=reading)
    took, _ = timed_run(machine.run, machine.wall, machine.cpu)
    assert machine.readings == 4
    assert took == pytest.approx(500_000, abs=1_000)


def test_without_a_cpu_clock_times_are_wall_times():
    machine = Machine()
    took, waited = timed_run(lambda: machine.run(interrupted=True), machine.wall, None)
    assert took == pytest.approx(4_500_000, abs=1_000)
    assert waited == 0


def test_a_coarse_cpu_clock_is_not_used(monkeypatch):
    monkeypatch.setattr(time, "thread_time_ns", lambda: 15_625_000)
    assert cpu_clock() is None


def test_the_cpu_clock_of_linux_is_fine_enough():
    clock = cpu_clock()
    if clock is None:
        pytest.skip("the CPU clock of this system moves in coarse steps")
    before = clock()
    time.sleep(0.05)
    assert clock() - before < 25_000_000


class Speaks:
    """A model whose outputs are texts, and its runtime."""

    inputs = (Declared("x", "float64", (None,)),)

    def run(self, feeds):
        return [np.array(["a cat"], object)]

    def load(self, source, *, batch, options):
        return self


def test_outputs_that_are_no_numbers_are_refused():
    models = Models(Speaks(), None)
    number, inputs = models.load(b"", None, {})
    assert inputs == ""
    with pytest.raises(ValueError, match="type object, not a tensor of numbers"):
        models.run(number, {"x": np.ones(3)})
    with pytest.raises(ValueError, match="not a tensor of numbers"):
        models.run_shared({number: None}, {number}, {"x": np.ones(3)}, 2, 1)
