"""Two processes on one run, and runs on network file systems."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch.cli import app
from hwsearch.errors import HwsearchError
from hwsearch.run import lock
from hwsearch.run.lock import HOLDER, LOCK, locked, network_risk

HOLDING = (
    "import sys, time; from pathlib import Path; from hwsearch.run.lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def elsewhere(tmp_path):
    """Another process that has the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_is_refused_with_pid_and_host_of_the_first(elsewhere, tmp_path):
    holder = f"by process {elsewhere.pid} on {socket.gethostname()}, since 20"
    with pytest.raises(HwsearchError, match=holder) as caught, locked(tmp_path):
        pass
    assert caught.value.exit_code == 1
    result = CliRunner().invoke(app, ["search", "--out", str(tmp_path), "--budget", "4"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert holder in result.stderr


def test_what_a_killed_one_left_is_taken_over(elsewhere, tmp_path):
    elsewhere.kill()
    elsewhere.wait()
    assert json.loads((tmp_path / HOLDER).read_text())["pid"] == elsewhere.pid
    with locked(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": [], "host": 7}', "\0" * 5000])
def test_a_damaged_one_holds_nobody_back(content, tmp_path):
    (tmp_path / LOCK).write_text(content)
    (tmp_path / HOLDER).write_text(content)
    with locked(tmp_path):
        pass


def test_resume_and_search_hold_it_while_they_work(device, quick_infer, tmp_path):
    seen = []

    class Meddling(parts.Watcher):
        def phase(self, name, total, done=0):
            with pytest.raises(HwsearchError, match=f"by process {os.getpid()} on"):
                hwsearch.resume(tmp_path / "run")
            seen.append(name)

    folder = tmp_path / "run"
    hwsearch.search(**{**parts.SETTINGS, "budget": 4}, out=folder, progress=Meddling())
    hwsearch.resume(folder, budget=5, progress=Meddling())
    assert seen.count("search") == 2
    assert not {LOCK, HOLDER} & {path.name for path in folder.iterdir()}


@pytest.fixture
def on_network(monkeypatch):
    monkeypatch.setattr(lock, "file_system", lambda path: "nfs4")


def test_on_a_network_another_machine_may_still_hold_it(on_network, tmp_path):
    (tmp_path / HOLDER).write_text(json.dumps({"pid": 7, "host": "elsewhere", "began": "today"}))
    text = "process 7 on elsewhere, since today, and a network file system does not show"
    with pytest.raises(HwsearchError, match=text), locked(tmp_path):
        pass
    (tmp_path / HOLDER).unlink()
    with locked(tmp_path):
        pass


def test_on_a_local_disk_another_name_of_this_machine_is_no_other_machine(tmp_path):
    (tmp_path / HOLDER).write_text(json.dumps({"pid": 7, "host": "elsewhere", "began": "today"}))
    with locked(tmp_path):
        pass


def test_the_risk_of_a_network_is_said(on_network, device, quick_infer, tmp_path):
    watcher = parts.Watcher()
    hwsearch.search(**{**parts.SETTINGS, "budget": 4}, out=tmp_path / "run", progress=watcher)
    (said,) = [note for note in watcher.notes if "network file system (nfs4)" in note]
    assert "another machine may write it at the same time unseen; give --out on a local" in said


def test_a_local_disk_has_no_such_risk(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "file_system", lambda path: "ext4")
    assert network_risk(tmp_path) == ""
