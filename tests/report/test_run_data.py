"""What is read of a run: everything from its folder, nothing made up."""

import math
import shutil

import numpy as np
import pytest

from hwsearch import InputError, Run
from hwsearch.report.analysis import keeps
from hwsearch.report.run_data import read_run_data
from hwsearch.run.config import RunConfig, write_config


def test_reads_all_that_was_measured(runs, run_data):
    run, known = runs["front"], run_data["front"]
    trials = run.trials
    assert [trial.key for trial in known.trials] == list(trials["key"])
    for name in ("top1", "latency"):
        assert np.array_equal(known.values[name], trials[name].to_numpy(float), equal_nan=True)
    assert known.best == list(run.front["key"])
    assert (known.kind, known.what) == ("front", "front")
    assert (known.up.name, known.across.name, known.metric) == ("top1", "latency", "top1")


def test_an_unfinished_run_has_the_best_so_far(run_data):
    known = run_data["unfinished"]
    assert (known.kind, known.members, known.summary) == ("unfinished", None, None)
    assert set(known.best) == set(run_data["front"].best)  # the same trials, not confirmed


def test_candidates_say_what_is_predicted(run_data):
    assert run_data["candidates"].predicted == {"top1"}
    assert run_data["front"].predicted == frozenset()


def test_constraints_are_kept_or_not_or_not_known(run_data):
    known = run_data["bound"]
    told = keeps(known)
    for kept, value in zip(told, known.values["latency"], strict=True):
        assert kept is (None if math.isnan(value) else bool(value <= 6))
    assert set(told) == {True, False, None}
    assert set(keeps(run_data["front"])) == {None}


def test_a_run_that_was_stopped_before_its_first_trial(tmp_path, runs):
    recorded = dict(runs["front"].recorded)
    write_config(tmp_path, RunConfig(supernet="miniature"), recorded)
    known = read_run_data(Run(tmp_path))
    assert (len(known.trials), known.best) == (0, [])


def test_what_cannot_be_computed_here_is_said(tmp_path, runs):
    recorded = dict(runs["front"].recorded)
    macs = {"name": "macs", "direction": "min", "unit": "MACs", "source": "exact"}
    recorded["objectives"] = [*recorded["objectives"], macs]
    write_config(tmp_path, RunConfig(supernet="of-elsewhere"), recorded)
    (tmp_path / "trials.sqlite").write_bytes(
        (runs["unfinished"].folder / "trials.sqlite").read_bytes()
    )
    known = read_run_data(Run(tmp_path))
    assert np.isnan(known.values["macs"]).all()
    (lacking,) = known.lacking
    assert "macs of the trials is computed" in lacking
    assert "of-elsewhere" in lacking


def test_a_damaged_run_is_refused(tmp_path, runs):
    (tmp_path / "space").mkdir()
    recorded = {k: v for k, v in runs["front"].recorded.items() if k != "full_space"}
    write_config(tmp_path / "space", RunConfig(), recorded)
    with pytest.raises(InputError, match="records no search space"):
        read_run_data(Run(tmp_path / "space"))
    shutil.copytree(runs["front"].folder, tmp_path / "key")
    table = tmp_path / "key" / "front.csv"
    table.write_text(table.read_text().replace(runs["front"].front["key"].iloc[0], "0" * 16))
    with pytest.raises(InputError, match="0000000000000000, which is no trial"):
        read_run_data(Run(tmp_path / "key"))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no run"):
        read_run_data(Run(tmp_path))
