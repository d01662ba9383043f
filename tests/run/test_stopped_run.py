"""Runs that end before their budget, and go on when they are given other limits."""

import pytest

import hwsearch
from hwsearch.run.config import read_config
from tests.run import search_parts as parts

pytestmark = pytest.mark.usefixtures("quick_infer", "device")
SETTINGS = {**parts.SETTINGS, "objectives": ["top1", "macs"], "budget": 24}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    watcher = parts.Watcher()
    out = tmp_path_factory.mktemp("runs") / "run"
    run = parts.finished_search(out, **SETTINGS, stop_gain=200, progress=watcher)
    return run, watcher


def test_it_ends_when_little_more_is_expected_and_has_its_front(ended):
    run, watcher = ended
    n = len(run.trials)
    assert 6 <= n < 24
    (line,) = [note for note in watcher.notes if note.startswith("the search ended after")]
    assert f"after {n} of 24 evaluations: the next 50 are expected to add" in line
    assert run.finished
    assert len(run.front) >= 1
    assert read_config(run.folder)[0].stop_gain == 200


def test_resumed_as_it_is_it_is_done_and_with_less_to_gain_it_goes_on(ended):
    run, _ = ended
    before = run.trials
    assert len(hwsearch.resume(run.folder).trials) == len(before)
    longer = hwsearch.resume(run.folder, stop_gain=1e-9, budget=14)
    assert len(longer.trials) == 14
    assert longer.trials["key"].tolist()[: len(before)] == before["key"].tolist()
    assert longer.config.stop_gain == 1e-9


def test_minutes_that_were_spent_before_count(ended):
    run, _ = ended
    n = len(hwsearch.Run(run.folder).trials)
    watcher = parts.Watcher()
    hwsearch.resume(run.folder, minutes=1e-6, budget=20, progress=watcher)
    assert len(run.trials) == n
    assert any("minutes are over" in note for note in watcher.notes)
