"""Evaluators and objectives as they should not be, and constraints that nothing meets."""

import numpy as np
import pytest

from hwsearch.errors import InfeasibleError
from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer, optimize, tactic_names
from hwsearch.optimizer.posterior import Posterior
from tests.optimizer.problems import Tabular, elastic_space

TABLE = Tabular(elastic_space(3))
REFERENCE = {"quality": 50.0, "cost": 300.0}


def search(evaluate, budget=24, tactic="hwsearch", objectives=None, **more):
    chosen = objectives or TABLE.objectives()
    return optimize(TABLE.space, evaluate, chosen, budget=budget, tactic=tactic, **more)


@pytest.mark.parametrize("tactic", tactic_names())
class TestEveryTactic:
    def test_objectives_that_are_always_the_same(self, tactic):
        objectives = [Objective("top1", "max"), Objective("latency", "min")]
        result = search(
            lambda archs: [{"top1": 10.0, "latency": 0.0}] * len(archs),
            objectives=objectives,
            tactic=tactic,
        )
        assert len(result.trials) == len(result.front) == 24
        assert result.hypervolume({"top1": 9.0, "latency": 2.0}) == 2.0

    def test_a_third_that_fails_one_way_or_another(self, tactic):
        ways = [None, {"quality": np.nan}, {"quality": np.inf}, {"quality": -np.inf}]

        def evaluate(archs):
            values = TABLE.evaluate(archs)
            for place, key in enumerate(archs.ids):
                if (code := int(key[:8], 16)) % 3 == 0:
                    values[place] = ways[code // 3 % 4]
            return values

        result = search(evaluate, tactic=tactic, budget=60 if tactic == "linas" else 24)
        failed = result.trials["state"] == "failed"
        assert failed.any()
        reasons = {"evaluate returned None", "quality is nan", "quality is inf", "quality is -inf"}
        assert set(result.trials["reason"][failed]) <= reasons
        assert result.trials["quality"].isna().equals(failed)
        assert result.front["quality"].notna().all()

    def test_fewer_architectures_than_the_budget(self, tactic):
        small = Tabular(elastic_space(1))
        result = optimize(
            small.space, small.evaluate, small.objectives(), budget=60, tactic=tactic, batch=7
        )
        assert result.exhausted
        assert result.ended == "the search space is exhausted after 39 architectures"
        assert set(result.front["key"]) == small.front(small.objectives())

    def test_constraints_that_nothing_meets(self, tactic):
        with pytest.raises(InfeasibleError, match=r"none of 24 .* cost <= 50\. The closest"):
            search(TABLE.evaluate, tactic=tactic, constraints=["quality >= 99", "cost <= 50"])


@pytest.mark.parametrize("tactic", ["hwsearch", "additive"])
def test_noise_as_large_as_what_a_choice_brings(tactic):
    rng = np.random.default_rng(0)

    def noisy(archs):
        return [
            {"quality": values["quality"] + rng.normal(0.0, 1.0)}
            for values in TABLE.evaluate(archs)
        ]

    def true_volume(result):
        names = TABLE.space.names
        rows = result.front[names].astype(object).to_dict("records")
        archs = TABLE.space.architectures(
            [{n: v for n, v in row.items() if v == v} for row in rows]
        )
        optimizer = Optimizer(TABLE.space, TABLE.objectives())
        optimizer.tell(archs, TABLE.evaluate(archs))
        return optimizer.hypervolume(REFERENCE)

    assert true_volume(search(noisy, 48, tactic)) > 1.05 * true_volume(search(noisy, 48, "random"))


@pytest.mark.parametrize(
    ("objectives", "constraints"),
    [
        (TABLE.objectives(measured_cost=True), ["cost <= 100"]),
        (TABLE.objectives(), ["cost <= 70"]),
        (TABLE.objectives(measured_cost=True)[:1], ["quality >= 75"]),
        ([*TABLE.objectives(measured_cost=True), Objective("memory", "min")], ["memory <= 60"]),
    ],
    ids=["measured", "exact", "one objective", "three objectives"],
)
def test_after_the_initial_design_most_proposals_are_predicted_to_be_feasible(
    objectives, constraints
):
    optimizer = Optimizer(TABLE.space, objectives, constraints=constraints)
    predicted, first = [], True
    while len(optimizer.history.told) < 40:
        archs = optimizer.ask()
        first = first and len(optimizer.history.asked) <= 12
        if not first:
            mean = Posterior(optimizer.history).forecast(archs).mean
            predicted += optimizer.history.feasible(mean).tolist()
        optimizer.tell(archs, TABLE.evaluate(archs))
    assert len(predicted) >= 24
    assert np.mean(predicted) > 0.7
