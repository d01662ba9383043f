"""A search that starts from a run, killed at any moment, ends where an unbroken one does."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import hwsearch
import tests.run.search_parts as parts
from tests.run.killed import WARM_MOMENTS, kill_searches
from tests.run.warm_start_parts import FIRST, search, uneven, use

pytestmark = pytest.mark.usefixtures("quick_infer")
ROOT = Path(__file__).parents[2]
EARLY = ("beginning", "copying")  # there is no copy yet


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use(patch, parts.InProcess())
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        run, _ = search(tmp_path_factory.mktemp("first") / "run", budget=FIRST)
        return run.folder


@pytest.fixture(scope="module")
def unbroken(first, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use(patch, parts.InProcess(uneven))
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        out = tmp_path_factory.mktemp("unbroken") / "run"
        return search(out, warm_start=first, budget=FIRST + 4)[0]


@pytest.fixture(scope="module")
def killed(first, tmp_path_factory):
    """The early ones lose their source only later."""
    return kill_searches(tmp_path_factory, first)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", WARM_MOMENTS)
def test_resumed_run_equals_the_unbroken_one(moment, first, unbroken, killed, monkeypatch):
    device = use(monkeypatch, parts.InProcess(uneven))
    folder = killed / moment
    timed = set()
    if moment not in EARLY:
        first = first.rename(first.with_name("moved"))
        found = hwsearch.Run(folder).measurements()
        timed = {m.key for m in found if (m.quantity, m.purpose) == ("latency", "search")}
    try:
        run = hwsearch.resume(folder)
    finally:
        if moment not in EARLY:
            first.rename(first.with_name("run"))
    pd.testing.assert_frame_equal(run.trials, unbroken.trials)
    pd.testing.assert_frame_equal(run.front, unbroken.front)
    assert not timed & {key for phase, key in device.timed if phase == "search"}
    assert {path.name for path in run.folder.iterdir()} == {
        path.name for path in unbroken.folder.iterdir()
    }


def test_what_was_killed_early_needs_the_run(first, unbroken, monkeypatch, tmp_path):
    use(monkeypatch, parts.InProcess(uneven))
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(unbroken.folder / "config.toml", folder)
    moved = first.rename(first.with_name("moved"))
    try:
        with pytest.raises(hwsearch.InputError, match=r"had copied .* cannot be read any more"):
            hwsearch.resume(folder)
    finally:
        moved.rename(first)
