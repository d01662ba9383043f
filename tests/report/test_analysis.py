"""What is said of a run: each against what it has to be, from the run's tables."""

from dataclasses import replace

import numpy as np
import pytest

from hwsearch.accuracy.metric import paired_difference
from hwsearch.report.analysis import beside_largest, by_cost, picks, scores_on_both, shared, warned
from hwsearch.run.front import knee
from hwsearch.space import Architectures


def test_picks_are_the_best_by_each_wish(runs, run_data):
    front = runs["front"].front
    found = {pick.wish: pick.key for pick in picks(run_data["front"])}
    by_key = front.set_index("key")
    assert found["the knee: the best compromise"] == knee(front, runs["front"].objectives)
    assert found["the best top1"] == by_key["top1"].idxmax()
    assert found["the fastest"] == by_key["latency"].idxmin()
    near = by_key[by_key["top1"] >= by_key["top1"].max() - 1.0]
    assert found["the fastest within 1 point of the best"] == near["latency"].idxmin()


def test_a_constraint_is_kept_as_surely_as_select_says(runs, run_data):
    run = runs["bound"]
    found = {pick.wish: pick for pick in picks(run_data["bound"])}
    sure = found["the best that is 95% sure of latency <= 6"]
    assert sure.key == run.select("latency <= 6 @ 95%")[0]
    assert sure.sure >= 0.95
    best = found["the best top1 with latency <= 6"]
    assert best.key == run.front.set_index("key")["top1"].idxmax()
    assert best.sure <= sure.sure


def test_beside_the_largest_subnet_it_is_what_the_summary_says(run_data):
    known = run_data["front"]
    (versus,) = known.summary.versus
    assert beside_largest(known, versus.key) is versus


def test_others_are_compared_by_the_same_numbers(run_data):
    known = run_data["front"]
    (largest,) = known.space.largest().ids
    key = next(k for k in known.best if k not in (largest, known.summary.versus[0].key))
    found = beside_largest(known, key)
    rows = known.members.set_index("key")["latency"]
    own = rows.get(largest, known.summary.largest["latency"])
    assert found.times == pytest.approx(own / rows[key])
    scores = known.of_search("top1")
    expected = paired_difference(scores[key].samples, scores[largest].samples, 100.0)
    assert (found.points, found.low, found.high) == pytest.approx(expected)


def test_without_the_largest_nothing_is_compared(run_data):
    known = run_data["front"]
    alone = replace(known, summary=replace(known.summary, largest=None))
    assert {pick.versus for pick in picks(alone)} == {None}


def test_members_share_what_is_the_same_in_all_of_them(run_data):
    known = run_data["front"]
    archs = known.archs[[known.place[key] for key in by_cost(known)]]
    found = shared(known)
    for position, choice in enumerate(known.space.choices):
        options = set(archs.indices[archs.active[:, position], position])
        alike = len(options) == 1 and archs.active[:, position].sum() > 1
        assert (choice.name in [name for name, *_ in found["same"]]) == alike
    assert found["n"] == len(known.best)


def test_a_choice_that_grows_with_the_latency_is_named(run_data):
    known = run_data["front"]
    keys = by_cost(known)
    indices = known.archs.indices.copy()
    column = known.space.names.index("resolution")
    indices[:, column] = 0
    half = [known.place[key] for key in keys[len(keys) // 2 :]]
    indices[half, column] = 2
    archs = Architectures(known.space, indices, known.archs.active.copy())
    assert "resolution" in shared(replace(known, archs=archs))["rising"]
    falling = replace(
        known, archs=archs, members=known.members.assign(latency=-known.members["latency"])
    )
    assert "resolution" not in shared(falling)["rising"]


def test_scores_stand_beside_each_other(runs, run_data):
    rows = runs["front"].front.set_index("key")
    for each in scores_on_both(run_data["front"]):
        row = rows.loc[each["key"]]
        assert each["search"][0] == row["top1"]
        assert each["report"] == (
            row["top1_report"],
            row["top1_report_low"],
            row["top1_report_high"],
        )
    assert scores_on_both(run_data["candidates"]) == []
    assert scores_on_both(run_data["unfinished"]) == []


def test_warnings_of_one_kind_are_counted_together(run_data):
    known = run_data["front"]
    n = sum(m.quantity == "latency" for m in known.measurements)
    assert warned(known) == [(n, "rounds differ by 3% a lot")]
    assert n > np.int64(len(known.trials)) // 2
