"""Machines that join: what they declare, what is refused, and what people are told."""

import json
import socket
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.errors import HwsearchError, InputError
from hwsearch.run.cluster import start_node as node
from hwsearch.run.cluster.connection import SEAT
from hwsearch.run.cluster.given import check_workers
from hwsearch.run.cluster.workers import device_of
from tests.run.cluster.cluster_parts import settings
from tests.run.cluster.conftest import HAS_RAY, WITHOUT_RAY
from tests.run.search_parts import Watcher


def on_ray(tests):
    lacking = pytest.mark.skipif(not HAS_RAY, reason=WITHOUT_RAY)
    return pytest.mark.ray(pytest.mark.timeout(300)(lacking(tests)))


def invoke(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_a_number_of_processes_or_ray():
    assert [check_workers(given) for given in (1, "3", 8)] == [1, 3, 8]
    assert device_of(3, "no such device") is None
    assert device_of("ray", "kit:table.json") is None


@pytest.mark.parametrize("given", [0, -2, "0", "two", "1.5", 1.5, True, "", "Ray"])
def test_other_workers_are_refused(given):
    with pytest.raises(InputError, match=r"whole number of processes .* from 1 up, or 'ray'"):
        check_workers(given)


@pytest.mark.parametrize("command", ["search", "resume"])
def test_bad_workers_are_one_line_and_leave_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    where = ["--out", out] if command == "search" else [out]
    if command == "resume":
        out.mkdir()
        hwsearch.run.config.write_config(out, hwsearch.run.config.RunConfig(), {})
    before = sorted(tmp_path.rglob("*"))
    result = invoke(command, *where, "--workers", "many")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: workers 'many' are not usable; give a whole number")
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_without_ray_the_line_that_installs_it_is_said(monkeypatch):
    for module in ("given", "node"):
        monkeypatch.setattr(f"hwsearch.run.cluster.{module}.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'hwsearch\[ray\]'"):
        check_workers("ray")
    result = invoke("worker")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: a worker needs Ray: pip install 'hwsearch[ray]'\n",
    )


@pytest.mark.parametrize("address", ["10.0.0.1", ":6379", "host:", "host:port", "host:70000"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(InputError, match="not of the form HOST:PORT"):
        node.check_address(address)
    assert node.check_address("10.0.0.1:6379") == "10.0.0.1:6379"


def test_devices_are_declared_as_they_are_written_down():
    assert node.declared(["scripted", " scripted"]) == ("scripted",)
    assert node.declared(["ort-cpu"]) == ("ort-cpu:threads=1",)
    with pytest.raises(InputError, match="unknown device 'scriptd'"):
        node.declared(["scriptd"])


def test_a_node_offers_one_seat_and_its_devices():
    head = node.command(["ort-cpu:threads=2"], None)
    joined = node.command([], "10.0.0.1:6379")
    assert "--head" in head
    assert "--address=10.0.0.1:6379" in joined
    for command, devices in ((head, {"hwsearch:ort-cpu:threads=2": 1.0}), (joined, {})):
        assert "--num-cpus=1" in command
        assert "--disable-usage-stats" in command
        (custom,) = [each for each in command if each.startswith("--resources=")]
        assert json.loads(custom.partition("=")[2]) == {"hwsearch": 1.0, **devices}
    assert "--include-dashboard=false" in head


def test_a_node_that_does_not_start_says_why(monkeypatch):
    failing = ["sh", "-c", "echo starting; echo 'Error: no such port'; exit 3"]
    monkeypatch.setattr(node, "find_spec", lambda name: True)
    monkeypatch.setattr(node, "command", lambda *args: failing)
    with pytest.raises(HwsearchError, match=r"did not start \(exit code 3\): Error: no such port"):
        node.run_node([], None, lambda at: None)


def test_an_interrupted_node_ends(monkeypatch):
    lasting = ["sh", "-c", "echo Ray runtime started.; exec sleep 600"]
    monkeypatch.setattr(node, "find_spec", lambda name: True)
    monkeypatch.setattr(node, "command", lambda *args: lasting)

    def ready(at):
        assert at == "10.0.0.1:6379"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        node.run_node([], "10.0.0.1:6379", ready)


@on_ray
class TestCluster:
    def test_there_has_to_be_one(self, monkeypatch):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
            result = invoke("search", "--workers", "ray")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: no Ray cluster was found at RAY_ADDRESS=127.0.0.1")
        assert "'hwsearch worker'" in result.stderr

    def test_a_node_has_to_declare_the_device(self, cluster):
        with pytest.raises(
            InputError, match=r"no node .* declares device 'scripted' .*: none.*; on"
        ):
            device_of("ray", "scripted")

    def test_other_work_may_not_be_put_beside_measurements(self, cluster):
        loose = cluster.add("scripted", CPU=4)
        try:
            with pytest.raises(InputError, match="offers 4 CPUs and 1 x 'hwsearch' to other"):
                device_of("ray", "scripted")
        finally:
            cluster.remove_node(loose)

    def test_a_machine_becomes_a_cluster_of_its_own(self, monkeypatch):
        import ray

        ray.shutdown()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setattr(node, "PORT", free.getsockname()[1])
        said = []

        def ready(at):
            said.append(at)
            monkeypatch.setenv("RAY_ADDRESS", at)
            device = device_of("ray", "scripted")
            said.append((device.spec, ray.cluster_resources().get("CPU")))
            device.close()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            node.run_node(["scripted"], None, ready)
        assert said[0].endswith(f":{node.PORT}")
        assert said[1] == ("scripted", SEAT["CPU"])
        with pytest.raises(InputError, match="no Ray cluster"):
            device_of("ray", "scripted")


def take_away_the_node_of(key, folder, cluster, nodes):
    """Wait until a worker holds an architecture, and kill the node that it belongs to."""
    held = folder.held(key)
    parent = int(Path(f"/proc/{held}/stat").read_text().rsplit(")", 1)[1].split()[1])
    folder.release(key)
    (node,) = [n for n in nodes if n.all_processes["raylet"][0].process.pid == parent]
    cluster.remove_node(node, allow_graceful=False)


@on_ray
@pytest.mark.usefixtures("quick_infer")
class TestNodes:
    def test_latencies_are_measured_where_the_device_is(self, cluster, folder, tmp_path):
        """Of two nodes one declares it; both evaluate, and no raylet's line is printed."""
        spec = f"by-key:{folder.path}"
        measuring, other = cluster.add(spec), cluster.add()
        cluster.wait_for_nodes()
        given = settings(folder, tactic="random", budget=8)
        net = given.pop("supernet")
        run = hwsearch.search(net, **given, out=tmp_path / "run", workers="ray")
        assert set(run.trials["state"]) == {"done", "failed"}
        pids = {n: n.all_processes["raylet"][0].process.pid for n in (measuring, other)}
        assert folder.nodes("timed") == {pids[measuring]}
        assert folder.nodes("evaluates") >= set(pids.values())
        for each in (measuring, other):
            cluster.remove_node(each)

    def test_a_node_that_is_gone_takes_nothing_with_it(self, cluster, folder, tmp_path, capfd):
        spec = f"by-key:{folder.path}"
        nodes = [cluster.add(spec) for _ in range(2)]
        cluster.wait_for_nodes()
        given = settings(folder, tactic="random", batch=1, budget=8)
        net = given.pop("supernet")
        alone = hwsearch.search(net, **given, out=tmp_path / "alone")
        key = alone.trials.query("state == 'done'")["key"].iloc[2]
        folder.hold(key)
        args = (key, folder, cluster, nodes)
        taking = threading.Thread(target=take_away_the_node_of, args=args, daemon=True)
        taking.start()
        watcher = Watcher()
        run = hwsearch.search(net, **given, out=tmp_path / "run", workers="ray", progress=watcher)
        taking.join()
        (left,) = [each for each in nodes if each in cluster.worker_nodes]
        cluster.remove_node(left)
        notes = [text for text in watcher.notes if "which is done again: its node is gone" in text]
        assert any(key in text for text in notes)
        values = ["key", "state", "top1", "latency"]
        assert run.trials[values].equals(alone.trials[values])
        assert "raylet" not in "".join(capfd.readouterr())
