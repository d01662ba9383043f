"""A device of another machine through OpenSSH itself, to a server of the tests on this machine."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.devices import Latency, load_device
from hwsearch.errors import InputError
from tests.contracts.device_contract import QUICK
from tests.devices import tiny_models
from tests.kit.ssh_parts import measure_through_a_loss

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
SSH = shutil.which("ssh")
pytestmark = [
    pytest.mark.skipif(SSHD is None or SSH is None, reason="sshd is not installed"),
    pytest.mark.usefixtures("client"),
]

SERVER = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv TMPDIR={folder}/tmp HWSEARCH_CACHE={folder}/cache OMP_NUM_THREADS=1
"""
CLIENT = """
Host closed
    Port 1
Host *
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentitiesOnly yes
    IdentityAgent none
    GlobalKnownHostsFile none
Host board
    IdentityFile {folder}/user
    UserKnownHostsFile {folder}/known
Host refused
    IdentityFile {folder}/other
    UserKnownHostsFile {folder}/known
Host unknown
    IdentityFile {folder}/user
    UserKnownHostsFile none
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory, python):
    """The folder of a server on a free port, with its client's settings."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("tmp", "bin"):
        (folder / name).mkdir()
    for name in ("host", "user", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    facts = {"folder": folder, "port": port, "user": getpass.getuser()}
    (folder / "sshd_config").write_text(SERVER.format(**facts))
    (folder / "config").write_text(CLIENT.format(**facts))
    public = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    # ssh finds its settings by the user, not by $HOME.
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {folder}/config "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    command = [SSHD, "-f", folder / "sshd_config"]
    if (tested := subprocess.run([*command, "-t"], capture_output=True, text=True)).returncode:
        pytest.skip(f"sshd does not start here: {tested.stderr.strip()}")
    with subprocess.Popen([*command, "-D"], stderr=subprocess.DEVNULL) as server:
        for _ in range(200):
            with socket.socket() as tried:
                if not tried.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield folder
        server.terminate()


@pytest.fixture
def client(sshd, python, monkeypatch):
    monkeypatch.setenv("PATH", f"{sshd / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HWSEARCH_SSH_PYTHON", str(python))
    monkeypatch.setattr("hwsearch.kit.ssh_device._PAUSES_S", (0.0, 0.0))


@pytest.fixture
def model(tmp_path):
    return tiny_models.conv(tmp_path / "model.onnx")


def nothing_is_left(sshd):
    """Return whether the folder and the processes of the other machine end in a while."""
    for _ in range(200):
        folders = list((sshd / "tmp").glob("hwsearch-ssh-*"))
        if not (folders or processes_in(sshd)):
            return True
        time.sleep(0.05)
    return False


def processes_in(sshd):
    """Processes of the measuring code that the server started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{sshd / 'tmp'}/hwsearch-ssh" in file.read_text(errors="replace"):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def test_it_measures_with_numpy_and_onnxruntime_alone(sshd, model):
    found = hwsearch.measure([model], device="ssh:board/ort-cpu", settings=QUICK)
    assert found["error"].tolist() == [""]
    assert found["latency_ms"][0] > 0
    assert nothing_is_left(sshd)
    assert list((sshd / "cache" / "baselines").glob("ort-cpu-threads1-*.json"))


def test_the_command_line_measures_there(sshd, model):
    result = CliRunner().invoke(
        app, ["measure", str(model), "--device", "ssh:board/ort-cpu:threads=1", "--json"]
    )
    assert result.exit_code == 0, result.stderr
    assert nothing_is_left(sshd)


def test_the_command_line_checks_the_device_there(sshd, monkeypatch):
    monkeypatch.setattr("hwsearch.run.device_check.CHECK", QUICK)
    command = ["devices", "check", "ssh:board/ort-cpu:threads=1", "--pairs", "2"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert (row["condition"], row["pairs"]) == ("as it is", 2)
    assert 0.0 <= row["median"] <= row["largest"]
    assert "was only measured as it is" in result.stderr
    assert nothing_is_left(sshd)
    assert list((sshd / "cache" / "baselines").glob("ort-cpu-threads1-*.json"))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("refused", "ssh cannot reach 'refused': .*Permission denied"),
        ("unknown", "ssh cannot reach 'unknown': Host key verification failed"),
        ("closed", "ssh cannot reach 'closed': .*Connection refused"),
    ],
)
def test_a_host_that_lets_nobody_in_is_an_error(host, said):
    with pytest.raises(InputError, match=said):
        load_device(f"ssh:{host}/ort-cpu").fingerprint()


def test_no_python_there_is_an_error(monkeypatch):
    monkeypatch.setenv("HWSEARCH_SSH_PYTHON", "python4")
    with pytest.raises(InputError, match=r"'board' has no 'python4' .*python4"):
        load_device("ssh:board/ort-cpu").fingerprint()


def test_a_disconnection_is_made_good_and_leaves_nothing_there(sshd, model):
    device = load_device("ssh:board/ort-cpu")
    found = measure_through_a_loss(device, model)
    assert isinstance(found, Latency)
    device.close()
    assert nothing_is_left(sshd)


def test_an_interruption_ends_the_process_there(sshd, model):
    device = load_device("ssh:board/ort-cpu")

    def stop(*_):
        assert processes_in(sshd)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.measure({"a": model}, seed=0, settings=QUICK, progress=stop)
    assert nothing_is_left(sshd)
    device.close()
