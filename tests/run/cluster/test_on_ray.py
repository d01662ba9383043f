"""Searches on the nodes of a Ray cluster."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import hwsearch
from hwsearch.errors import EvaluationError, InputError
from hwsearch.run.cluster.scheduler import cluster_device, make_scheduler
from hwsearch.run.setup import prepare
from hwsearch.trial_store import Store
from tests.run.cluster.cluster_parts import config, settings
from tests.run.cluster.conftest import ON_RAY, is_alive
from tests.run.search_parts import Watcher

pytestmark = [*ON_RAY, pytest.mark.usefixtures("quick_infer")]


def test_there_has_to_be_a_cluster(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(InputError, match=r"no Ray cluster .* RAY_ADDRESS=.* 'hwsearch worker'"):
        cluster_device("ray", "scripted")


def test_a_node_has_to_declare_the_device(cluster):
    with pytest.raises(InputError, match=r"no node .* declares device 'scripted' .*: none.*; on"):
        cluster_device("ray", "scripted")


def test_a_machine_becomes_a_cluster_until_ctrl_c(monkeypatch, tmp_path):
    import ray

    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys; from hwsearch.run.cluster import start_node; "
        f"start_node.PORT = {port}; from hwsearch.cli import main; "
        "sys.argv = ['hwsearch', 'worker', '--device', 'scripted']; main()"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        first = worker.stdout.readline()
        assert "this machine evaluates, and measures scripted" in first
        address = worker.stdout.readline().split("--address ")[1].strip()
        assert address.endswith(f":{port}")
        monkeypatch.setenv("RAY_ADDRESS", address)
        device = None
        while device is None:
            assert worker.poll() is None
            try:
                device = cluster_device("ray", "scripted")
            except InputError:
                continue
        assert (device.spec, ray.cluster_resources()["CPU"]) == ("scripted", 1.0)
        device.close()
    finally:
        os.kill(worker.pid, signal.SIGINT)
        worker.wait()
    assert worker.stdout.read().count("\n") == 1
    worker.stdout.close()
    with pytest.raises(InputError, match="no Ray cluster"):
        cluster_device("ray", "scripted")


class Search:
    """A scheduler, with all of a small space proposed."""

    def __init__(self, folder, workers, n=10):
        chosen = config(folder)
        self.setup = prepare(chosen, device=cluster_device(workers, chosen.device))
        self.store, self.watcher = Store(), Watcher()
        self.archs = list(self.setup.net.space.sample_distinct(n, np.random.default_rng(3)))
        self.store.propose(self.archs, 0, "test")
        evaluator = self.setup.evaluator(self.store)
        self.scheduler = make_scheduler(workers, self.setup, evaluator, self.watcher)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.scheduler.close()
        self.setup.device.close()

    def evaluate(self):
        """Return all results, errors as text."""
        self.scheduler.start(self.archs)
        results = {}
        while len(results) < len(self.archs):
            new = self.scheduler.finished()
            assert not new.keys() & results.keys()
            results |= new
        return {k: str(r) if isinstance(r, EvaluationError) else r for k, r in results.items()}


def stored(store, failed):
    """Return what is the same wherever it was measured."""
    return {
        m.identity: (m.value, m.low, m.high, m.count, m.samples.tobytes())
        for m in store.measurements()
        if m.key not in failed
    }


def test_results_are_those_of_one_process_even_when_workers_die(folder, nodes):
    with Search(folder, None) as search:
        expected = search.evaluate()
        failed = {key for key, result in expected.items() if isinstance(result, str)}
        assert 0 < len(failed) < len(expected)
        measurements = stored(search.store, failed)
    timed_here = folder.nodes("timed")
    once, twice = [key for key in expected if key not in failed][:2]
    with Search(folder, "ray") as search:
        folder.kill(once, times=1)
        folder.kill(twice, times=4)  # a latency needs no build where its blocks are cached
        found = search.evaluate()
        assert "its worker was lost 2 times" in found.pop(twice)
        assert found == {key: value for key, value in expected.items() if key != twice}
        measured = stored(search.store, {*failed, twice})
    pids = [n.all_processes["raylet"][0].process.pid for n in nodes]
    assert folder.nodes("timed") - timed_here == {pids[0]}  # the node that declares the device
    assert folder.nodes("evaluates") >= set(pids)
    assert measured == {k: v for k, v in measurements.items() if k[0] != twice}


def test_a_worker_with_other_weights_ends_the_search(folder, nodes):
    with Search(folder, "ray", n=2) as search:
        folder.exchange()
        with pytest.raises(InputError, match="scores are not comparable: weights was"):
            search.evaluate()


def test_closing_ends_running_jobs(folder, nodes):
    with Search(folder, "ray", n=4) as search:
        held = search.archs[0].key
        folder.hold(held)
        search.scheduler.start(search.archs)
        pid = folder.held(held)
        search.scheduler.close()
        while is_alive(pid):
            time.sleep(0.05)


class Stopping(Watcher):
    """Interrupts a search as Ctrl-C does."""

    left = 3

    def advance(self, steps=1):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_an_interrupted_search_goes_on_in_one_process(folder, nodes, tmp_path):
    given = settings(folder, tactic="random", batch=1)
    net, out = given.pop("supernet"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="hwsearch resume"):
        hwsearch.search(net, **given, out=out, workers="ray", progress=Stopping())
    before = {m.identity: m.value for m in hwsearch.Run(out).measurements()}
    assert before
    run = hwsearch.resume(out)
    assert before.items() <= {m.identity: m.value for m in run.measurements()}.items()
    unbroken = hwsearch.search(net, **given, out=tmp_path / "unbroken")
    values = ["key", "state", "top1", "latency"]
    assert run.trials[values].equals(unbroken.trials[values])
    assert np.array_equal(run.front["key"], unbroken.front["key"])


def kill_node_of(key, folder, cluster):
    """Wait until a worker holds an architecture, and kill the node that it belongs to."""
    held = folder.held(key)
    parent = int(Path(f"/proc/{held}/stat").read_text().rsplit(")", 1)[1].split()[1])
    folder.release(key)
    (node,) = [
        n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid == parent
    ]
    cluster.remove_node(node, allow_graceful=False)


def test_a_killed_node_loses_nothing(cluster, folder, nodes, tmp_path):
    nodes.append(cluster.add(f"by-key:{folder.path}"))
    cluster.wait_for_nodes()
    given = settings(folder, tactic="random", batch=1, budget=8)
    net = given.pop("supernet")
    alone = hwsearch.search(net, **given, out=tmp_path / "alone")
    key = alone.trials.query("state == 'done'")["key"].iloc[2]
    folder.hold(key)
    killing = threading.Thread(target=kill_node_of, args=(key, folder, cluster), daemon=True)
    killing.start()
    run = hwsearch.search(net, **given, out=tmp_path / "run", workers="ray")
    killing.join()
    assert sum(node in cluster.worker_nodes for node in nodes) == 2
    values = ["key", "state", "top1", "latency"]
    assert run.trials[values].equals(alone.trials[values])
    assert run.front.equals(alone.front)
