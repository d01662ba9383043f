"""Runs whose disk, data or device goes away: they stop with the reason and go on later."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hwsearch_test_plugin.scripted_device import latency_by_size
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.cli import app
from hwsearch.errors import DeviceError, DeviceLostError, HwsearchError
from hwsearch.trial_store import Store

pytestmark = pytest.mark.usefixtures("quick_infer")


def is_the_same(run, unbroken):
    pd.testing.assert_frame_equal(run.trials, unbroken.trials)
    pd.testing.assert_frame_equal(run.front, unbroken.front)
    return True


class Vanishing(parts.InProcess):
    """Fails on everything after so many measuring jobs, until it is back."""

    def __init__(self, jobs):
        super().__init__()
        self.jobs = jobs

    def latency(self, name, path):
        if self.jobs < 0:
            raise DeviceError("no CUDA-capable device is detected")
        return latency_by_size(name, path)

    def measure(self, models, *, seed, settings=None, progress=None):
        self.jobs -= 1
        self.scripts = {"search": self.latency, "confirm": self.latency}
        return super().measure(models, seed=seed, settings=settings, progress=progress)

    def run(self, model, batches):
        if self.jobs < 0:
            raise DeviceError("no CUDA-capable device is detected")
        yield from super().run(model, batches)


@pytest.mark.parametrize("jobs", [1])
def test_a_device_that_vanishes_stops_the_run_until_it_is_back(
    jobs, unbroken, monkeypatch, tmp_path
):
    device = Vanishing(jobs)
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    with pytest.raises(DeviceLostError, match=r"ran before: no CUDA.* hwsearch resume") as caught:
        hwsearch.search(**parts.SHORT, out=tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "failed" not in set(Run(tmp_path / "run").trials["state"])
    result = CliRunner().invoke(app, ["resume", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: device scripted fails on ")
    device.jobs = 1000
    assert is_the_same(hwsearch.resume(tmp_path / "run"), unbroken)


def test_one_that_vanishes_while_subnets_are_exported_costs_none_of_them(
    unbroken, monkeypatch, tmp_path
):
    device = Vanishing(1000)
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    write, calls = hwsearch.run.finish.write_files, []

    def writing(*args):
        calls.append(args)
        if len(calls) == 2:
            device.jobs = -1
        write(*args)

    monkeypatch.setattr("hwsearch.run.finish.write_files", writing)
    with pytest.raises(DeviceLostError, match="no CUDA-capable device"):
        hwsearch.search(**parts.SHORT, out=tmp_path / "run")
    assert not Run(tmp_path / "run").finished
    device.jobs = 1000
    assert is_the_same(hwsearch.resume(tmp_path / "run"), unbroken)


def test_a_model_that_fails_alone_is_a_failed_trial(unbroken, device, tmp_path):
    bad = unbroken.trials["key"].iloc[6]

    def failing(name, path):
        if name == bad:
            raise DeviceError("no kernel for this")
        return latency_by_size(name, path)

    device.scripts["search"] = failing
    trials = hwsearch.search(**parts.SHORT, out=tmp_path / "run").trials.set_index("key")
    assert trials.loc[bad, ["state", "reason"]].tolist() == ["failed", "no kernel for this"]
    assert trials["state"].tolist().count("failed") == 1


@pytest.mark.parametrize("nth", [1, 12, 30])
def test_a_full_disk_stops_the_run_until_there_is_room(
    nth, unbroken, device, monkeypatch, tmp_path
):
    """Every flush to disk may be the one that finds it full."""
    fsync, calls = os.fsync, []

    def filling(handle):
        calls.append(handle)
        if len(calls) >= nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        with pytest.raises((HwsearchError, OSError), match="No space left on device") as caught:
            hwsearch.search(**parts.SHORT, out=tmp_path / "run")
    if nth == 1:  # nothing had begun
        assert isinstance(caught.value, OSError)
        assert is_the_same(hwsearch.search(**parts.SHORT, out=tmp_path / "run"), unbroken)
        return
    assert caught.value.exit_code == 1
    assert f"go on with: hwsearch resume {tmp_path / 'run'}" in str(caught.value)
    assert "failed" not in set(Run(tmp_path / "run").trials["state"])
    assert is_the_same(hwsearch.resume(tmp_path / "run"), unbroken)


@pytest.mark.parametrize("kilobytes", [24, 90])
def test_files_that_may_not_grow_stop_the_run_and_damage_nothing(
    kilobytes, unbroken, device, tmp_path
):
    """The system refuses writes here: to the store, its log, models, pictures."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, before[1]))
    try:
        with pytest.raises(HwsearchError):
            hwsearch.search(**parts.SHORT, out=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert is_the_same(hwsearch.resume(tmp_path / "run"), unbroken)


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(
    unbroken, device, monkeypatch, tmp_path
):
    run = shutil.copytree(unbroken.folder, tmp_path / "run")
    opened = os.open

    def read_only(path, flags, *more, **named):
        if flags & (os.O_RDWR | os.O_WRONLY) and str(path).startswith(str(run)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        result = CliRunner().invoke(app, ["resume", str(run), "--budget", "10"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in result.stderr
    assert "Read-only file system" in result.stderr
    assert is_the_same(Run(run), unbroken)


def test_a_store_whose_disk_goes_away_says_so(unbroken, tmp_path):
    path = Path(shutil.copy(unbroken.folder / "trials.sqlite", tmp_path))
    with Store(path) as store:
        with path.open("r+b") as file:
            file.truncate(4096)
        store._connection.execute("PRAGMA shrink_memory")
        with pytest.raises(HwsearchError, match=r"cannot be read: .* Bring back the disk"):
            store.measurements()
        path.write_bytes((unbroken.folder / "trials.sqlite").read_bytes())
