"""Two runs: what one's subnets cost on the other's device, by hand."""

from dataclasses import replace

import pytest

from hwsearch.objectives import Objective, hypervolume
from hwsearch.report.comparison import compared, drawable, kept_hypervolume, transfers


@pytest.fixture
def pair(run_data):
    """A run, and one on a device that has other best subnets: its best two are gone."""
    a, b = run_data["front"], run_data["other"]
    kept = b.members.sort_values("latency").iloc[:-2]
    return a, replace(b, members=kept)


def test_a_subnet_on_both_fronts_loses_nothing(run_data):
    found = transfers(run_data["front"], run_data["other"])
    assert len(found) == len(run_data["front"].members)
    for each in found:
        assert each.instead == each.key
        assert (each.points, each.times) == (0.0, 1.0)
        assert each.elsewhere == pytest.approx(each.latency / 1.3)
    assert (
        kept_hypervolume(run_data["other"], found, list(_scores(run_data["front"], found))) == 1.0
    )


def test_what_is_lost_is_told_from_the_other_front(pair):
    a, b = pair
    found = transfers(a, b)
    worst = found[-1]  # the slowest, which the other front lacks
    rows = b.members
    best = rows[rows["latency"] <= worst.elsewhere]["top1"].max()
    own = a.members.set_index("key")["top1"]
    assert not worst.confirmed
    assert worst.points == pytest.approx(best - own[worst.key])
    assert worst.low <= worst.points <= worst.high
    assert worst.times is None  # nothing there is as good


def test_hypervolume_is_that_of_the_subnets_there(pair):
    b, a = pair
    found = transfers(a, b)
    scores = _scores(a, found)
    reached = [[-s, each.elsewhere] for s, each in zip(scores, found, strict=True)]
    reference = [-b.summary.reference["top1"], b.summary.reference["latency"]]
    whole = hypervolume(b.members[["top1", "latency"]].to_numpy() * [-1, 1], reference)
    expected = hypervolume(reached, reference) / whole
    assert kept_hypervolume(b, found, scores) == pytest.approx(expected)
    assert expected < 1


def test_what_was_not_measured_there_says_how(run_data):
    a, b = run_data["front"], run_data["other"]
    nothing = replace(b, measurements=(), members=b.members.assign(key="elsewhere"))
    told = compared([a, nothing])["transfers"][0]
    assert told["rows"] == []
    assert "hwsearch search --device openvino:threads=1 --warm-start" in told["lines"][0]


@pytest.mark.parametrize(("part", "what"), [("weights", "weights"), ("data", "images")])
def test_scores_of_another_kind_do_not_compare(run_data, part, what):
    a, b = run_data["front"], run_data["other"]
    run = _with_recorded(b.run, **{part: "another"})
    told = compared([a, replace(b, run=run)])
    assert any(f"their {what} differ" in note for note in told["notes"])
    assert all(each["rows"] == [] for each in told["transfers"])


def test_an_unfinished_run_has_nothing_to_compare(run_data):
    told = compared([run_data["front"], run_data["unfinished"]])
    assert told["transfers"] == []
    assert len(told["figure"]["data"]) == 1
    assert any("not finished" in note for note in told["notes"])


def test_predicted_numbers_are_named(run_data):
    told = compared([run_data["front"], run_data["candidates"]])
    assert any("candidates: top1 is predicted" in note for note in told["notes"])


def test_other_objectives_are_not_drawn_in_one_plot(run_data):
    a = run_data["front"]
    macs = Objective("macs", "min", unit="MACs")
    other = replace(run_data["other"], objectives=(a.up, macs))
    assert drawable([a, other]) == [a]
    assert any("its objectives differ" in note for note in compared([a, other])["notes"])


def _scores(a, found):
    by_key = a.members.set_index("key")["top1"]
    return [float(by_key[each.key]) for each in found]


def _with_recorded(run, **changed):
    other = type(run)(run.folder)
    other.recorded = {**run.recorded, **changed}
    return other
