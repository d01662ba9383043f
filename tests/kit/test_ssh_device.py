"""A device of another machine, through a stand-in for ``ssh`` that stays on this one."""

import os

import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.devices import Latency, load_device
from hwsearch.devices.ort_cpu import OrtCpu
from hwsearch.errors import DeviceError, DeviceLostError, InputError
from hwsearch.kit import ssh_connection
from tests.contracts.device_contract import QUICK, DeviceContract
from tests.devices import tiny_models
from tests.kit import bare, scripted_there
from tests.kit.ssh_parts import FakeHosts, measure_through_a_loss


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    return FakeHosts(tmp_path, monkeypatch)


@pytest.fixture
def model(tmp_path):
    return tiny_models.conv(tmp_path / "model.onnx")


@pytest.fixture
def device(hosts):
    device = load_device("ssh:board/ort-cpu")
    yield device
    device.close()


@pytest.fixture
def scripted(hosts, monkeypatch):
    """A device whose latencies are scripted, and the file that kills its process."""
    killing = scripted_there.use(hosts, monkeypatch).killing
    device = load_device("ssh:board/scripted")
    yield device, killing
    device.close()


class TestSsh(DeviceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def device(cls, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            FakeHosts(tmp_path_factory.mktemp("hosts"), patch)
            device = load_device("ssh:board/ort-cpu:threads=1")
            yield device
            device.close()

    def test_raw_numbers_are_kept(self, results, good):
        """Single runs stay on the other machine."""


def test_the_spec_is_canonical_before_anything_is_connected(hosts):
    device = load_device("ssh:pi@board/ort-cpu")
    assert (device.spec, device.slug) == (
        "ssh:pi@board/ort-cpu:threads=1",
        "ssh-pi-board-ort-cpu-threads1",
    )
    assert load_device("ssh:board/ort-cpu:threads=64").spec.endswith("threads=64")
    assert load_device("ssh:board/ort-cpu:precision=int8").precision == "int8"
    assert not (hosts.folder / "connected").exists()


def test_the_fingerprint_is_that_of_the_device_there(device):
    here = load_device("ort-cpu:threads=1")
    assert device.fingerprint() == here.fingerprint()


def test_another_batch_size_is_a_device_there_and_closed_with_it(device, hosts, model):
    larger = device.with_batch(4)
    assert larger.spec == "ssh:board/ort-cpu:threads=1,batch=4"
    assert larger is device.with_batch(4)
    assert (device.fingerprint()["batch"], larger.fingerprint()["batch"]) == (1, 4)
    found = larger.measure({"a": model}, seed=0, settings=QUICK)["a"]
    assert "[4, 3, 8, 8]" in found.inputs
    device.close()
    assert not hosts.left


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ssh", "lacks HOST/DEVICE"),
        ("ssh:board", "is not of the form ssh:HOST/DEVICE"),
        ("ssh:/ort-cpu", "is not of the form ssh:HOST/DEVICE"),
        ("ssh:board/", "is not of the form ssh:HOST/DEVICE"),
        ("ssh:-oProxyCommand=x/ort-cpu", "is not of the form ssh:HOST/DEVICE"),
        ("ssh:a b/ort-cpu", "is not of the form ssh:HOST/DEVICE"),
        ("ssh:board/kit:table.json", "unknown device of another machine 'kit'"),
        ("ssh:board/ort-cqu", "Did you mean 'ort-cpu'"),
        ("ssh:board/ort-cpu:cores=2", "unknown option of ort-cpu 'cores'"),
        ("ssh:board/ort-cpu:threads=0", "a whole number from 1, not '0'"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec, said, hosts):
    with pytest.raises(InputError, match=said):
        load_device(spec)
    assert not (hosts.folder / "connected").exists()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (
            "ssh: connect to host board port 22: Connection refused",
            255,
            "ssh cannot reach 'board': ssh: connect to host board port 22: Connection refused; "
            "'ssh board' has to log in without asking anything",
        ),
        ("Permission denied (publickey).", 255, "cannot reach 'board': Permission denied"),
        ("sh: 1: python3: not found", 127, "'board' has no .*install Python 3.10 or later"),
        ("Killed", 1, "on 'board': Killed"),
    ],
)
def test_a_host_that_cannot_be_used_says_why(text, code, said, hosts, model):
    hosts.says("board", text, code)
    with pytest.raises(InputError, match=f"device 'ssh:board/ort-cpu:threads=1' .*{said}"):
        hwsearch.measure([model], device="ssh:board/ort-cpu", settings=QUICK)
    assert hosts.connected == ["board"]
    result = CliRunner().invoke(app, ["measure", str(model), "--device", "ssh:board/ort-cpu"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_host_that_does_not_answer_is_given_up(hosts, model, monkeypatch):
    hosts.fails("board", "exec sleep 60")
    monkeypatch.setattr(ssh_connection, "_START_S", 0.0)
    monkeypatch.setenv("HWSEARCH_SSH_TIMEOUT", "1")
    with pytest.raises(InputError, match="did not answer in time; HWSEARCH_SSH_TIMEOUT"):
        load_device("ssh:board/ort-cpu").fingerprint()
    monkeypatch.setenv("HWSEARCH_SSH_TIMEOUT", "soon")
    with pytest.raises(InputError, match="HWSEARCH_SSH_TIMEOUT is 'soon'; give a whole number"):
        load_device("ssh:board/ort-cpu").fingerprint()


def test_an_older_python_is_named(hosts, tmp_path, monkeypatch):
    changed = f'exec {os.sys.executable} -c "import sys; sys.version_info = (3, 8, 1); $2"'
    old = hosts.program(tmp_path / "python3.8", f"#!/bin/sh\n{changed}\n")
    monkeypatch.setenv("HWSEARCH_SSH_PYTHON", str(old))
    with pytest.raises(InputError, match=r"on 'board': Python 3\.10 or later is needed.* is 3\.8"):
        load_device("ssh:board/ort-cpu").fingerprint()
    assert not hosts.left


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ([], r"on 'board': numpy is needed: .*python -m pip install numpy onnxruntime"),
        (
            ["numpy"],
            r"on 'board': device 'ort-cpu' cannot be used here: onnxruntime is not installed.*"
            r"this machine's version of it: .*python -I -m pip install onnxruntime==\d",
        ),
    ],
)
def test_missing_packages_are_named_with_what_installs_them(
    packages, said, hosts, tmp_path, monkeypatch
):
    lacking = bare.make_python(tmp_path / "env", packages)
    monkeypatch.setenv("HWSEARCH_SSH_PYTHON", f"{lacking} -I")
    with pytest.raises(InputError, match=said):
        load_device("ssh:board/ort-cpu").fingerprint()
    assert not hosts.left


def test_options_that_its_machine_does_not_have_are_refused(hosts):
    with pytest.raises(InputError, match=r"on 'board': option 'threads'.* not '4096'"):
        load_device("ssh:board/ort-cpu:threads=4096").fingerprint()
    assert not hosts.left


def test_another_version_measures_and_computes_no_outputs(device, model, monkeypatch):
    device.fingerprint()
    described = OrtCpu.describe
    monkeypatch.setattr(OrtCpu, "describe", lambda self, version: described(self, "1.0.9"))
    with pytest.raises(InputError, match=r"has onnxruntime 1\.0\.9; install one version on both"):
        device.check_outputs()
    assert isinstance(device.measure({"a": model}, seed=0, settings=QUICK)["a"], Latency)


def test_without_the_runtime_here_it_still_measures(hosts, model, monkeypatch):
    def lacking(info):
        raise InputError("no such runtime here")

    monkeypatch.setattr("hwsearch.kit.ssh_device.output_device", lacking)
    device = load_device("ssh:board/ort-cpu")
    assert isinstance(device.measure({"a": model}, seed=0, settings=QUICK)["a"], Latency)
    with pytest.raises(InputError, match="no such runtime here"):
        device.run(model, [])
    device.close()
    assert not hosts.left


def test_text_of_the_login_shell_is_skipped(hosts, device):
    hosts.fails("board", "printf 'Welcome!\\nno newline'")
    assert device.fingerprint()


@pytest.mark.parametrize(
    "script",
    [
        "yes | head -c 200000",
        "echo hwsearch is ready; head -c 100 /dev/zero",
        "echo hwsearch is ready; yes | head -c 100",
        r"printf 'hwsearch is ready\n\0\0\0\2\0\0\0\0\0\0\0\0[]'",
    ],
)
def test_garbage_is_refused(script, hosts):
    hosts.fails("board", f"{script}; exec cat > /dev/null")
    with pytest.raises(InputError, match="'board' answers what hwsearch does not"):
        load_device("ssh:board/ort-cpu").fingerprint()


def test_models_are_sent_once_in_a_session(scripted, model, tmp_path, monkeypatch):
    device, _ = scripted
    sent, send = [], ssh_connection.SshConnection.send

    def noted(self, header, content=b""):
        sent.append(len(content))
        send(self, header, content)

    monkeypatch.setattr(ssh_connection.SshConnection, "send", noted)
    other = tiny_models.conv(tmp_path / "other.onnx", channels=16)
    first = device.measure({"a": model, "b": model, "c": other}, seed=0)
    again = device.measure({"d": other, "a": model}, seed=0)
    assert sorted(filter(None, sent)) == sorted(p.stat().st_size for p in (model, other))
    assert first["a"].latency_ms == first["b"].latency_ms == again["a"].latency_ms
    assert first["c"].latency_ms == again["d"].latency_ms != first["a"].latency_ms


def test_a_lost_connection_is_made_again_and_the_job_repeated(device, hosts, model):
    found = measure_through_a_loss(device, model)
    assert isinstance(found, Latency)
    assert hosts.connected == ["board", "board"]


def test_models_that_end_the_server_twice_fail(scripted, model):
    device, killing = scripted
    killing.write_text("1")
    assert isinstance(device.measure({"a": model}, seed=0)["a"], Latency)
    killing.write_text(str(scripted_there.ALWAYS))
    assert "lost 2 times" in str(device.measure({"a": model}, seed=0)["a"])
    killing.write_text(str(scripted_there.NEVER))
    assert isinstance(device.measure({"a": model}, seed=0)["a"], Latency)


def test_a_server_removes_what_killed_ones_left(scripted, hosts, model):
    device, killing = scripted
    others = [hosts.folder / "tmp" / f"hwsearch-ssh-{name}" for name in (f"{os.getpid()}-x", "y")]
    for folder in others:
        folder.mkdir()
    killing.write_text("1")
    assert isinstance(device.measure({"a": model}, seed=0)["a"], Latency)
    for folder in others:
        folder.rmdir()
    device.close()
    assert not hosts.left


def test_a_host_that_stays_away_is_a_lost_device(scripted, hosts, model):
    device, killing = scripted
    device.fingerprint()
    killing.write_text("1")
    hosts.says("board", "No route to host")
    with pytest.raises(DeviceLostError, match=r"ssh:board/scripted is gone: .*No route to host"):
        device.measure({"a": model}, seed=0)
    assert len(hosts.connected) == 1 + 3
    (hosts.folder / "board").unlink()
    assert isinstance(device.measure({"a": model}, seed=0)["a"], Latency)


def test_one_that_comes_back_as_another_is_lost(scripted, model):
    device, killing = scripted
    device.fingerprint()
    device._fingerprint["cpu"] = "larger"
    killing.write_text("1")
    with pytest.raises(DeviceLostError, match="another one now: cpu was larger, is scripted"):
        device.measure({"a": model}, seed=0)


def test_an_interruption_ends_the_process_there(device, hosts, model):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.measure({"a": model}, seed=0, settings=QUICK, progress=stop)
    assert not hosts.left


@pytest.mark.parametrize(
    "changes",
    [
        {"latency": {}},
        {"latency": {"baseline_ms": -1}},
        {"latency": [1]},
        {"latency": None},
        {"result": "another"},
        {"result": None},
        {"missing": ["0" * 64]},
    ],
)
def test_results_of_a_stranger_are_checked(changes, scripted, model, monkeypatch):
    device, _ = scripted
    receive = ssh_connection.SshConnection.receive

    def changed(self):
        reply = receive(self)
        return {**reply, **changes} if "result" in reply else reply

    device.fingerprint()
    monkeypatch.setattr(ssh_connection.SshConnection, "receive", changed)
    found = device.measure({"a": model}, seed=0)["a"]
    assert isinstance(found, DeviceError)
    assert "answers what hwsearch does not" in str(found)


PROFILES = [
    {"nodes_ms": {"a": -1.0}, "total_ms": 1.0},
    {"nodes_ms": {"a": float("nan")}, "total_ms": 1.0},
    {"nodes_ms": [1.0], "total_ms": 1.0},
    {"nodes_ms": {"a": "1"}, "total_ms": 1.0},
    {"total_ms": 1.0},
    None,
]


def test_profiles_of_a_stranger_are_checked(device, model, monkeypatch):
    receive, told = ssh_connection.SshConnection.receive, {}

    def changed(self):
        reply = receive(self)
        return {**reply, **told} if "result" in reply else reply

    device.fingerprint()
    monkeypatch.setattr(ssh_connection.SshConnection, "receive", changed)
    for told["profile"] in PROFILES:
        found = device.profile({"a": model}, runs=2)["a"]
        assert isinstance(found, DeviceError), told
        assert "answers what hwsearch does not" in str(found)


def test_texts_cannot_change_a_terminal(device, hosts, model, tmp_path):
    broken = tiny_models.garbage(tmp_path / "broken.onnx")
    found = device.measure({"a": broken}, seed=0, settings=QUICK)
    assert str(found["a"]).isprintable()
    hosts.says("board", "\x1b[2Jno")
    device.close()
    with pytest.raises(DeviceLostError) as caught:
        device.measure({"a": model}, seed=0, settings=QUICK)
    assert str(caught.value).isprintable()


def test_it_is_listed_with_what_it_takes():
    result = CliRunner().invoke(app, ["--quiet", "devices"])
    assert "HOST/DEVICE" in result.stdout
