"""One model under two names: how the share of pairs that agree is found."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice

from hwsearch.errors import DeviceError, InputError
from hwsearch.run.device_check import Agreement, busy_core, check_agreement, check_device
from tests.kit import scripted_there
from tests.kit.ssh_parts import FakeHosts


class Noted(FakeDevice):
    """Keeps what each job was asked for."""

    def __init__(self, latency_of):
        super().__init__(latency_of)
        self.jobs = []

    def measure(self, models, *, seed, settings=None, progress=None):
        self.jobs.append((dict(models), seed))
        return super().measure(models, seed=seed, settings=settings, progress=progress)


def test_pairs_are_counted_within_one_percent():
    offs = iter([0.0, 0.009, -0.009, 0.011, -0.05, 0.0, 0.002])
    device = Noted(lambda name, path: 2.0 * (1 + next(offs)) if name.endswith("a") else 2.0)
    models = [Path("x.onnx"), Path("y.onnx"), Path("z.onnx")]
    found = check_agreement(device, models, 7)
    assert found.pairs == 7
    assert found.agreed == 5
    np.testing.assert_allclose(found.differences[3:5], [0.011, -0.05])
    assert found.interval == pytest.approx((0.359, 0.918), abs=1e-3)  # Wilson's, by hand
    assert found.held == 3  # intervals of half a percent hold differences of 0.7%
    assert found.reached == 7


def test_every_job_holds_each_model_twice_and_has_a_seed_of_its_own():
    device = Noted(lambda name, path: 1.0)
    check_agreement(device, [Path("x"), Path("y")], 5, seed=3)
    sizes = [[sorted(map(str, models.values())) for models, _ in device.jobs]]
    assert sizes == [[["x", "x", "y", "y"], ["x", "x", "y", "y"], ["x", "x"]]]
    assert len({seed for _, seed in device.jobs}) == 3


def test_it_counts_who_was_measured_as_precisely_as_asked():
    wide = Agreement(differences=np.array([0.0, 0.0]), held=2, reached=1)
    assert (wide.pairs, wide.agreed, wide.held, wide.reached) == (2, 2, 2, 1)


def test_a_model_that_does_not_run_ends_it_with_the_reason():
    def refuse(name, path):
        raise DeviceError("no such operator")

    with pytest.raises(DeviceError, match="no such operator"):
        check_agreement(Noted(refuse), [Path("x")], 1)


def test_the_bundled_supernet_is_measured_calm_and_busy():
    found = check_device(FakeDevice(), pairs=2)
    assert list(found) == ["as it is", "beside a busy core"]
    assert all(result.agreed == result.pairs == 2 for result in found.values())


def test_another_machine_is_measured_as_it_is(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        hosts = scripted_there.use(FakeHosts(tmp_path, patch), patch)
        patch.setattr("hwsearch.run.device_check.busy_core", None)
        found = check_device("ssh:board/scripted", pairs=2)
        assert list(found) == ["as it is"]
        assert (found["as it is"].agreed, found["as it is"].pairs) == (2, 2)
        assert hosts.connected == ["board"]
        assert not hosts.left


def test_a_machine_that_cannot_be_reached_is_refused_before_a_model_is_built(
    monkeypatch, tmp_path
):
    hosts = FakeHosts(tmp_path, monkeypatch)
    hosts.says("board", "No route to host")
    monkeypatch.setattr("hwsearch.run.device_check.load_supernet", None)
    with pytest.raises(InputError, match="cannot reach 'board': No route to host"):
        check_device("ssh:board/ort-cpu", pairs=2)


@pytest.mark.parametrize("pairs", [0, -3])
def test_no_pairs_are_refused(pairs):
    with pytest.raises(InputError, match=f"pairs is {pairs}"):
        check_device(FakeDevice(), pairs=pairs)


def test_a_core_is_busy_only_inside_the_block():
    def children():
        task = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        return task.read_text().split() if task.exists() else []

    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list the children of a process")
    before = children()
    with busy_core():
        (burner,) = set(children()) - set(before)
        time.sleep(0.2)
        used = Path(f"/proc/{burner}/stat").read_text().rsplit(")", 1)[1].split()
        assert int(used[11]) > 0  # its clock ticks in user mode
    assert children() == before
