"""The command ``worker``: what a node offers, and what is refused before Ray starts."""

import json
import socket

import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.errors import InputError
from hwsearch.run.cluster import start_node
from hwsearch.run.cluster.start_node import check_reachable


def invoke(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("command", ["search", "resume"])
def test_bad_workers_are_one_line_and_leave_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    where = ["--out", out] if command == "search" else [out]
    if command == "resume":
        out.mkdir()
        hwsearch.run.config.write_config(out, hwsearch.run.config.RunConfig(), {})
    before = sorted(tmp_path.rglob("*"))
    result = invoke(command, *where, "--workers", "2")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: workers '2' are not usable: a search evaluates in its")
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_worker_needs_ray(monkeypatch):
    monkeypatch.setattr(start_node, "find_spec", lambda name: None)
    result = invoke("worker")
    assert result.exit_code == 2
    assert result.stderr == "error: a worker needs Ray: pip install 'hwsearch[ray]'\n"


@pytest.mark.parametrize("address", ["10.0.0.1", ":6379", "host:", "host:port", "host:70000"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(InputError, match="not of the form HOST:PORT"):
        check_reachable(address)


def test_an_address_has_to_answer():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        check_reachable(address)
    with pytest.raises(InputError, match=f"no answer from {address}"):
        check_reachable(address)


def test_a_node_offers_one_job_at_a_time_and_its_devices():
    head = start_node.command(["ort-cpu:threads=2"], None)
    joined = start_node.command([], "10.0.0.1:6379")
    assert "--head" in head
    assert {"--include-dashboard=false", "--disable-usage-stats"} <= set(head)
    assert "--address=10.0.0.1:6379" in joined
    for command, devices in ((head, {"hwsearch:ort-cpu:threads=2": 1.0}), (joined, {})):
        assert "--num-cpus=1" in command
        (resources,) = [each for each in command if each.startswith("--resources=")]
        assert json.loads(resources.partition("=")[2]) == {"hwsearch": 1.0, **devices}


@pytest.mark.parametrize("device", ["scriptd", "ort-cpu:threads=0"])
def test_a_device_that_cannot_be_used_is_refused_before_the_node_starts(device, monkeypatch):
    monkeypatch.setattr(start_node, "find_spec", lambda name: True)
    result = invoke("worker", "--device", device)
    assert result.exit_code == 2
    assert result.stdout == ""
