"""A search on a device of another machine, which goes away and comes back."""

import pandas as pd
import pytest
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.cli import app
from hwsearch.errors import DeviceLostError, InputError
from tests.kit import scripted_there
from tests.kit.ssh_parts import FakeHosts

pytestmark = pytest.mark.usefixtures("quick_infer")
SHORT = {**parts.SHORT, "device": "ssh:board/scripted"}


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    return scripted_there.use(FakeHosts(tmp_path, monkeypatch), monkeypatch)


def is_the_same(run, unbroken):
    pd.testing.assert_frame_equal(run.trials, unbroken.trials)
    pd.testing.assert_frame_equal(run.front, unbroken.front)
    return True


def test_it_finds_what_a_search_on_that_machine_finds(hosts, unbroken, tmp_path):
    run = hwsearch.search(**SHORT, out=tmp_path / "run")
    assert is_the_same(run, unbroken)
    assert hosts.connected == ["board"]
    assert run.config.device == "ssh:board/scripted"
    hosts.says("board", "No route to host")  # what follows needs this machine alone
    assert set(run.verify().values()) == {None}
    assert hosts.connected == ["board"]


@pytest.mark.parametrize("job", [1, 2])
def test_a_connection_that_is_lost_once_costs_nothing(job, hosts, unbroken, tmp_path):
    hosts.killing.write_text(str(job))
    assert is_the_same(hwsearch.search(**SHORT, out=tmp_path / "run"), unbroken)
    assert hosts.connected == ["board", "board"]


@pytest.mark.parametrize("job", [1, 2])
def test_a_host_that_goes_away_stops_the_run_until_it_is_back(job, hosts, unbroken, tmp_path):
    hosts.killing.write_text(str(job))
    folder, gone = tmp_path / "run", f'if [ "$(cat {hosts.killing})" = -1 ]; then exit 255; fi'
    hosts.fails("board", gone)
    with pytest.raises(DeviceLostError, match=r"ssh:board/scripted is gone: .* hwsearch resume"):
        hwsearch.search(**SHORT, out=folder)
    assert "failed" not in set(Run(folder).trials["state"])
    result = CliRunner().invoke(app, ["resume", str(folder)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "ssh cannot reach 'board'" in result.stderr
    (hosts.folder / "board").unlink()
    assert is_the_same(hwsearch.resume(folder), unbroken)


def test_nothing_is_begun_where_the_host_is_away_or_has_another_version(
    hosts, monkeypatch, tmp_path
):
    hosts.says("board", "Connection refused")
    with pytest.raises(InputError, match="cannot reach 'board': Connection refused"):
        hwsearch.search(**SHORT, out=tmp_path / "run")
    (hosts.folder / "board").unlink()
    described = parts.FakeDevice.fingerprint
    monkeypatch.setattr(
        parts.FakeDevice, "fingerprint", lambda self: {**described(self), "runtime": "none 2.0"}
    )
    with pytest.raises(InputError, match=r"has none, .* has none 2\.0; install one version"):
        hwsearch.search(**SHORT, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
