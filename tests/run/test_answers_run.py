"""Searches by metrics without labels: against the outputs of the largest subnet."""

import json

import numpy as np
import pytest
from torch import from_numpy, no_grad

import tests.run.search_parts as parts
from hwsearch.accuracy.answers import answered
from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.errors import InputError
from hwsearch.run.search_summary import compared_cost

MODULE = "tests.run.test_answers_run"


def original_of(task):
    """Outputs of the largest subnet, batch by batch."""
    net = parts.network()
    largest = net.subnet(net.space.largest()[0])
    fed, _ = next(task.calibration.batches(len(task.calibration)))
    recalibrate(largest, net.recalibrate, iter([fed]))

    def run(batches):
        for fed in batches:
            with no_grad():
                yield [largest(from_numpy(fed["image"])).numpy()]

    return run


def task(input_spec, objectives=("kl", "latency")):
    given = parts.task(input_spec)
    return answered(given, input_spec, original_of(given), "the largest", objectives)


def both(input_spec):
    return task(input_spec, ("top1", "kl"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return parts.finished_search(
        tmp_path_factory.mktemp("answers") / "run",
        data=f"{MODULE}:task",
        objectives=("kl", "latency"),
        budget=10,
    )


def test_divergence_is_an_objective_and_the_others_are_beside_it(run):
    front = run.front
    assert [o.name for o in run.objectives] == ["kl", "latency"]
    assert [o.direction for o in run.objectives] == ["min", "min"]
    for name in ("kl", "agreement", "top1"):
        for column in (name, f"{name}_low", f"{name}_report", f"{name}_report_high"):
            assert np.isfinite(front[column]).all()
    assert (front["kl"] >= 0).all()
    assert front["kl"].is_monotonic_increasing
    assert front["latency"].is_monotonic_decreasing
    assert {"kl", "agreement", "top1", "latency"} <= set(run.trials.columns)
    # What answers more alike is right more often: the labels are the largest subnet's answers.
    trials = run.trials
    assert np.corrcoef(trials["agreement"], trials["top1"])[0, 1] > 0.8
    assert np.corrcoef(trials["kl"], trials["agreement"])[0, 1] < -0.5


def test_cards_say_all_scores(run):
    card = json.loads((run.folder / "subnets" / run.front["key"][0] / "card.json").read_text())
    (measured,) = card["measurements"].values()
    found = {(each["quantity"], each["purpose"]) for each in measured}
    assert found >= {(n, p) for n in ("kl", "agreement", "top1") for p in ("search", "report")}


def test_the_cost_is_what_the_device_measures(run):
    assert compared_cost(run.objectives) == "latency"
    assert compared_cost(run.objectives[:1]) is None


def test_two_scores_may_be_objectives(tmp_path):
    run = parts.finished_search(
        tmp_path / "run", data=f"{MODULE}:both", objectives=("top1", "kl", "macs"), budget=6
    )
    assert {"top1", "kl", "macs", "agreement"} <= set(run.front.columns)


def test_a_score_that_the_data_have_not(tmp_path):
    with pytest.raises(InputError, match="unknown objective 'kl'; known: top1, latency"):
        parts.finished_search(tmp_path / "run", data=parts.TASK, objectives=("kl", "latency"))
