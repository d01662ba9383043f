"""What the tests of runs are made of: a miniature supernet, a task, and a device in this process.

`network` and `task` are also named on command lines, as MODULE:FUNCTION.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hwsearch_test_plugin.scripted_device import FakeDevice, latency_by_size

import hwsearch
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.accuracy.task import Samples, Task
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.run.finish import CONFIRM
from hwsearch.supernets.cifar10_resnet import FAMILY

NET, TASK = "tests.run.search_parts:network", "tests.run.search_parts:task"
SETTINGS = {"net": NET, "device": "scripted", "data": TASK, "budget": 12}
SHORT = {**SETTINGS, "budget": 8}
FIRST = 16  # trials of the run that others start from
SIZES = {"calibration": 32, "search": 160, "report": 80}
FEW = (
    "batch statistics are those of 32 calibration samples: with fewer than 64, accuracies are "
    "lower than they could be"
)


class InProcess(FakeDevice):
    """A scripted device that computes outputs here; confirmed latencies may differ.

    Args:
        searched: Latencies while the search measures.
        confirmed: Latencies while the front is timed together; by default the same.
        precision: Of the files that it takes.
        job_spread: Of the common factors of jobs.
    """

    def __init__(
        self,
        searched=latency_by_size,
        confirmed=None,
        precision="fp32",
        job_spread=0.0,
        batch=1,
    ):
        super().__init__(searched, precision=precision, job_spread=job_spread, batch=batch)
        self.scripts = {"search": searched, "confirm": confirmed or searched}
        self.timed = []
        self.is_open = False
        self.batches = []  # of every job, in order

    def with_batch(self, batch):
        """A device that notes in the lists of this one what it times."""
        made = InProcess(precision=self.precision, job_spread=self._job_spread, batch=batch)
        made.scripts, made.timed, made.batches = self.scripts, self.timed, self.batches
        return made

    def measure(self, models, *, seed, settings=None, progress=None):
        phase = "confirm" if settings == CONFIRM else "search"
        self.timed += [(phase, name) for name in models]
        self.batches.append(self.batch)
        timing = FakeDevice(
            self.scripts[phase],
            precision=self.precision,
            job_spread=self._job_spread,
            batch=self.batch,
        )
        return timing.measure(models, seed=seed, settings=settings, progress=progress)

    def run(self, model, batches):
        import onnxruntime

        self.is_open = True
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        for batch in batches:
            yield session.run(None, dict(batch))

    def close(self):
        self.is_open = False


class Watcher:
    """A progress that remembers what it was told."""

    def __init__(self):
        self.notes, self.phases, self.states = [], [], []

    def phase(self, name, total, done=0):
        self.phases.append((name, total, done))

    def advance(self, steps=1):
        pass

    def state(self, **figures):
        self.states.append(figures)

    def note(self, text):
        self.notes.append(text)


def finished_search(out, on=None, /, **settings):
    """A run that nothing disturbs, for fixtures: not drawn, its `infer.py` not run."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        use(patch, on or InProcess())
        leave_undrawn(patch)
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        torch.set_num_threads(1)  # the same sums in every process that takes part in a test
        try:
            return hwsearch.search(**{**SETTINGS, **settings}, out=out)
        finally:
            torch.set_num_threads(before)


def use(patch, device):
    """Let every search measure on a device."""
    patch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    patch.setattr("hwsearch.devices.load_device", lambda spec: device)
    return device


def leave_undrawn(patch):
    """Let searches write placeholders for pictures and the page."""

    def write(run, setup=None):
        for name in ("report.html", "front.png"):
            (run.folder / name).write_text("not drawn\n")

    patch.setattr("hwsearch.report.write.write_own_report", write)


def network(checkpoint=None):
    """The bundled supernet's miniature: 72 architectures, by a name for which nothing ships."""
    net = FAMILY.tiny(int(checkpoint or 0))
    net.card = replace(net.card, name="miniature")
    return net


def task(input_spec, metric=TOP1):
    """Random images whose labels are what the largest subnet answers: there is much to trade."""
    images, labels = map(np.copy, _labelled(input_spec.inputs[0].shape))
    ends = np.cumsum(list(SIZES.values()))
    splits = {
        split: Samples({"image": images[end - size : end]}, labels[end - size : end], {})
        for (split, size), end in zip(SIZES.items(), ends, strict=True)
    }
    return Task(spec=TASK, metric=metric, **splits)


@cache
def _labelled(shape):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((sum(SIZES.values()), *shape)).astype(np.float32)
    net = network()
    largest = net.subnet(net.space.largest()[0])
    recalibrate(largest, net.recalibrate, iter([{"image": images}]))
    return images, torch_outputs(largest, {"image": images})[0].argmax(axis=1)


def interrupt_measuring(patch, call):
    """Let Ctrl-C come in the given call of a device's `measure`, from 1."""
    measure, calls = InProcess.measure, []

    def stopping(self, models, **settings):
        calls.append(models)
        if len(calls) == call:
            raise KeyboardInterrupt
        return measure(self, models, **settings)

    patch.setattr(InProcess, "measure", stopping)
