"""A search that starts from a run, killed at any moment, ends where an unbroken one does."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import hwsearch
import tests.run.search_parts as parts
from tests.run.killed import WARM_MOMENTS, kill_searches
from tests.run.warm_start_parts import FIRST, uneven, use

pytestmark = pytest.mark.usefixtures("quick_infer")
ROOT = Path(__file__).parents[2]
EARLY = ("beginning", "copying")  # there is no copy yet


@pytest.fixture(scope="module")
def source(first, tmp_path_factory):
    """A copy of the run that the searches start from, to be moved away."""
    return shutil.copytree(first.folder, tmp_path_factory.mktemp("source") / "run")


@pytest.fixture(scope="module")
def unbroken(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    device = parts.InProcess(uneven)
    return parts.finished_search(out, device, warm_start=source, budget=FIRST + 4)


@pytest.fixture(scope="module")
def killed(source, tmp_path_factory):
    """The early ones lose their source only later."""
    return kill_searches(tmp_path_factory, source)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", WARM_MOMENTS)
def test_resumed_run_equals_the_unbroken_one(moment, source, unbroken, killed, monkeypatch):
    device = use(monkeypatch, parts.InProcess(uneven))
    folder = killed / moment
    timed = set()
    if moment not in EARLY:
        source = source.rename(source.with_name("moved"))
        found = hwsearch.Run(folder).measurements()
        timed = {m.key for m in found if (m.quantity, m.purpose) == ("latency", "search")}
    try:
        run = hwsearch.resume(folder)
    finally:
        if moment not in EARLY:
            source.rename(source.with_name("run"))
    pd.testing.assert_frame_equal(run.trials, unbroken.trials)
    pd.testing.assert_frame_equal(run.front, unbroken.front)
    bridges = {m.key for m in run.measurements() if m.purpose == "bridge"}
    assert not timed & {key for phase, key in device.timed if phase == "search"} - bridges
    assert {path.name for path in run.folder.iterdir()} == {
        path.name for path in unbroken.folder.iterdir()
    }


def test_what_was_killed_early_needs_the_run(source, unbroken, monkeypatch, tmp_path):
    use(monkeypatch, parts.InProcess(uneven))
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(unbroken.folder / "config.toml", folder)
    moved = source.rename(source.with_name("moved"))
    try:
        with pytest.raises(hwsearch.InputError, match=r"had copied .* cannot be read any more"):
            hwsearch.resume(folder)
    finally:
        moved.rename(source)
