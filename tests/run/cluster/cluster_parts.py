"""A supernet and a device whose workers do what a folder says: die, sleep, or be another one.

Processes of workers load them by name, so that nothing can be patched in them.
"""

import os
import signal
import time
from pathlib import Path

from hwsearch_test_plugin.devices import alone

import tests.run.search_parts as parts
from hwsearch.accuracy.metric import TOP1
from hwsearch.run.config import RunConfig

NET = "tests.run.cluster.cluster_parts:network"
TASK = "tests.run.cluster.cluster_parts:task"


class Folder:
    """What the workers are to do, and what they did."""

    def __init__(self, path):
        self.path = Path(path)

    def kill(self, key, times):
        """Let the next workers that build an architecture die."""
        for number in range(times):
            (self.path / f"kill-{key}-{number}").touch()

    def hold(self, key):
        """Let workers that build an architecture go on for longer than a test."""
        (self.path / f"hold-{key}").touch()

    def release(self, key):
        """Let workers build an architecture again; one that holds it goes on."""
        (self.path / f"hold-{key}").unlink()

    def held(self, key):
        """The process id of the worker that holds it, once there is one."""
        text = self.path / f"held-{key}"
        while not (text.is_file() and text.read_text()):
            time.sleep(0.02)
        return int(text.read_text())

    def exchange(self):
        """Let workers that start from now on find other weights."""
        (self.path / "exchanged").touch()

    @property
    def loaded(self):
        """Process ids of those that have loaded the supernet."""
        return [int(path.name.split("-")[1]) for path in self.path.glob("loaded-*")]

    def nodes(self, what):
        """Process ids of the parents of those that did something: of the nodes, on a cluster."""
        return {int(path.name.split("-")[2]) for path in self.path.glob(f"{what}-by-*")}

    def obey(self, key):
        assert not alone(self.path).exists(), "something is measured beside this"
        for order in sorted(self.path.glob(f"kill-{key}-*")):
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.path / f"hold-{key}").exists():
            (self.path / f"held-{key}").write_text(str(os.getpid()))
            time.sleep(600)


def network(checkpoint):
    folder = Folder(checkpoint)
    (folder.path / f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()
    (folder.path / f"evaluates-by-{os.getppid()}").touch()
    net = parts.network("1" if (folder.path / "exchanged").exists() else None)
    subnet = net.subnet

    def obedient(arch):
        folder.obey(arch.key)
        return subnet(arch)

    net.subnet = obedient
    return net


def task(input_spec):
    made = parts.task(input_spec, TOP1)
    object.__setattr__(made, "spec", TASK)
    return made


def settings(folder, **others):
    """Those of a search by what is here."""
    return {
        "supernet": NET,
        "checkpoint": str(folder.path),
        "device": f"by-key:{folder.path}",
        "data": TASK,
        "budget": 10,
        **others,
    }


def config(folder, **others):
    return RunConfig(**settings(folder, **others))
