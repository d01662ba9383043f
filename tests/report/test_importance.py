"""What choices are worth: recovered where it is known."""

from dataclasses import replace

import numpy as np
import pytest

from hwsearch.report.importance import LEAST_TRIALS, importances
from hwsearch.space import Choice, SearchSpace
from hwsearch.trials import Trial, TrialState

SPACE = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        Choice("block3.kernel", (3, 5, 7), ("depth", (3,))),
        Choice("act", ("relu", "gelu", "silu")),
        Choice("idle", (1, 2)),
        Choice("fixed", (1,)),
    ]
)


@pytest.fixture
def known(run_data):
    """Architectures whose score is 2 for each step of depth, 3 for silu, and little else."""
    archs = SPACE.sample_distinct(60, 0)
    trials = tuple(
        Trial(number=n, key=a.key, choices=a.mapping, round=0, origin="o", state=TrialState.DONE)
        for n, a in enumerate(archs)
    )
    score = np.array([2.0 * a["depth"] + 3.0 * (a["act"] == "silu") for a in archs])
    cost = np.array([5.0 + a["depth"] - 0.5 * a.get("block3.kernel", 0) for a in archs])
    return replace(
        run_data["front"], space=SPACE, archs=archs, trials=trials, members=None,
        values={"top1": score, "latency": cost},
    )  # fmt: skip


def effects(known, name):
    (found,) = [each for each in importances(known) if each.objective == name]
    return found, {effect.choice: effect for effect in found.effects}


def test_changes_and_directions_are_those_of_the_truth(known):
    found, by_choice = effects(known, "top1")
    assert by_choice["depth"].change == pytest.approx(4.0, abs=0.4)
    assert by_choice["idle"].change == pytest.approx(0.0, abs=0.3)
    assert found.tau > 0.8
    assert found.trials == len(known.trials)
    _, costs = effects(known, "latency")
    assert costs["block3.kernel"].change == pytest.approx(-2.0, abs=0.4)


def test_intervals_hold_the_change(known):
    _, by_choice = effects(known, "top1")
    for effect in by_choice.values():
        assert effect.low <= effect.change <= effect.high
    assert by_choice["depth"].low > 0


def test_options_without_an_order_go_from_the_worst_to_the_best(known):
    act = effects(known, "top1")[1]["act"]
    assert act.after == "silu"
    assert act.change == pytest.approx(3.0, abs=0.4)


def test_a_choice_of_one_option_is_worth_nothing(known):
    assert "fixed" not in effects(known, "top1")[1]


def test_too_few_trials_say_nothing(known):
    few = replace(
        known, archs=known.archs[: LEAST_TRIALS - 1], trials=known.trials[: LEAST_TRIALS - 1],
        values={name: values[: LEAST_TRIALS - 1] for name, values in known.values.items()},
    )  # fmt: skip
    assert importances(few) == []
