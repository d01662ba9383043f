import math
import os
import subprocess
import sys

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.objectives import Estimate, Objective
from hwsearch.optimizer import Optimizer, tactic_names
from hwsearch.optimizer.approximations import ApproximationCheck
from hwsearch.optimizer.history import N_INITIAL
from hwsearch.space import Architectures
from tests.optimizer.problems import Tabular, elastic_space, flat_space

SMALL = Tabular(elastic_space(2))
LARGE = Tabular(flat_space(60))


def run(optimizer, table, n_rounds, fails=lambda key: False):
    asked = []
    for _ in range(n_rounds):
        archs = optimizer.ask()
        values = table.evaluate(archs)
        optimizer.tell(
            archs,
            [None if fails(k) else v for k, v in zip(archs.ids, values, strict=True)],
        )
        asked.append(archs)
    return asked


def ids(batches):
    return [batch.ids for batch in batches]


@pytest.mark.parametrize("tactic", tactic_names())
class TestEveryTactic:
    def optimizer(self, table=SMALL, seed=3, **more):
        return Optimizer(table.space, table.objectives(), seed=seed, **more)

    def test_never_proposes_twice_until_nothing_is_left(self, tactic):
        table = Tabular(elastic_space(1))
        optimizer = self.optimizer(table, tactic=tactic, batch=5)
        asked = run(optimizer, table, 9, fails=lambda key: key[0] in "012345")
        assert sum(map(len, asked)) == len({k for batch in asked for k in batch.ids}) == 39
        assert optimizer.exhausted
        assert len(optimizer.ask()) == 0
        assert set(optimizer.front().ids)

    def test_same_seed_and_values_same_proposals(self, tactic):
        first = ids(run(self.optimizer(tactic=tactic), SMALL, 6))
        assert ids(run(self.optimizer(tactic=tactic), SMALL, 6)) == first
        assert ids(run(self.optimizer(tactic=tactic, seed=4), SMALL, 6)) != first

    def test_resumes_as_if_unbroken(self, tactic):
        done = 2
        unbroken = run(self.optimizer(tactic=tactic), SMALL, 5, fails=lambda key: key[0] in "ab")
        resumed = self.optimizer(tactic=tactic)
        for archs in unbroken[:done]:
            resumed.ask_recorded(archs)
            values = SMALL.evaluate(archs)
            told = [None if k[0] in "ab" else v for k, v in zip(archs.ids, values, strict=True)]
            resumed.tell(archs, told)
        again = run(resumed, SMALL, 5 - done, fails=lambda key: key[0] in "ab")
        assert ids(again) == ids(unbroken[done:])

    def test_asks_again_while_results_are_pending(self, tactic):
        optimizer = self.optimizer(tactic=tactic)
        run(optimizer, SMALL, 3)
        first, second = optimizer.ask(4), optimizer.ask(4)
        assert len(Architectures.concatenate([first, second]).unique()) == 8
        optimizer.tell(second, SMALL.evaluate(second))
        optimizer.tell(first[::-1], SMALL.evaluate(first[::-1]))
        assert len(optimizer.ask(4)) == 4


class TestForecasts:
    def test_are_of_what_surrogates_chose_and_of_measured_objectives(self):
        optimizer = Optimizer(SMALL.space, SMALL.objectives(), seed=3)
        first, second, third = run(optimizer, SMALL, 3)
        assert set(optimizer.forecasts) == {*second.ids[2:], *third.ids}
        measured = [o.name for o in optimizer.objectives if o.exact is None]
        for forecast in optimizer.forecasts.values():
            assert list(forecast) == measured
        assert len({*first.ids, *second.ids}) == 8

    def test_are_what_was_known_when_it_was_asked_for(self):
        from hwsearch.optimizer.posterior import Posterior

        optimizer = Optimizer(SMALL.space, SMALL.objectives(), seed=3)
        run(optimizer, SMALL, 2)
        told = Posterior(optimizer.history)
        archs = optimizer.ask()
        expected = told.forecast(archs)
        before = dict(optimizer.forecasts)
        optimizer.tell(archs, SMALL.evaluate(archs))
        optimizer.ask()
        column = [o.exact is None for o in optimizer.objectives].index(True)
        name = optimizer.objectives[column].name
        for row, key in enumerate(archs.ids):
            assert optimizer.forecasts[key] == before[key]
            found = optimizer.forecasts[key][name]
            assert found[0] == pytest.approx(expected.mean[row, column], rel=1e-9)
            assert found[1] == pytest.approx(expected.deviation[row, column], rel=1e-6)

    @pytest.mark.parametrize("tactic", ["random", "nsga2"])
    def test_a_tactic_without_surrogates_has_none(self, tactic):
        optimizer = Optimizer(SMALL.space, SMALL.objectives(), tactic=tactic)
        run(optimizer, SMALL, 4)
        assert optimizer.forecasts == {}


def test_same_proposals_in_another_process():
    code = (
        "from tests.optimizer.test_optimizer import *\n"
        "print(ids(run(Optimizer(LARGE.space, LARGE.objectives(), seed=5), LARGE, 4)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    here = ids(run(Optimizer(LARGE.space, LARGE.objectives(), seed=5), LARGE, 4))
    assert out.stdout.strip() == str(here)


def test_initial_design_begins_with_the_ends_and_grades_the_size():
    optimizer = Optimizer(LARGE.space, LARGE.objectives())
    first = optimizer.ask(100)
    assert len(first) == N_INITIAL
    assert first[[0]] == LARGE.space.smallest()
    assert first[[1]] == LARGE.space.largest()
    sizes = np.sort(first.indices.sum(axis=1)) / LARGE.space.largest().indices.sum()
    assert np.abs(sizes - np.linspace(0.0, 1.0, N_INITIAL)).max() < 0.12


def test_maximising_is_minimising_the_negative():
    def negated(archs):
        return [{"quality": -v["quality"], "cost": -v["cost"]} for v in SMALL.evaluate(archs)]

    directions = [("max", "min"), ("min", "max")]
    first, second = (
        Optimizer(SMALL.space, [Objective("quality", a), Objective("cost", b)], seed=1)
        for a, b in directions
    )
    for _ in range(6):
        archs, mirrored = first.ask(), second.ask()
        assert archs == mirrored
        first.tell(archs, SMALL.evaluate(archs))
        second.tell(archs, negated(archs))
    assert first.front() == second.front()
    assert first.hypervolume() == pytest.approx(second.hypervolume())


class TestTell:
    OBJECTIVES = (Objective("quality", "max"), Objective("cost", "min"))

    @pytest.fixture
    def optimizer(self):
        return Optimizer(SMALL.space, self.OBJECTIVES)

    @pytest.mark.parametrize(
        "bad", [None, {"quality": np.nan, "cost": 1}, {"quality": 1, "cost": np.inf}]
    )
    def test_failures_are_part_of_nothing(self, optimizer, bad):
        archs = optimizer.ask(3)
        optimizer.tell(archs, [bad, {"quality": 1.0, "cost": 2.0}, bad])
        assert optimizer.front() == archs[[1]]
        assert optimizer.history.succeeded.tolist() == [False, True, False]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([{"quality": 1.0}], "'cost' is missing"),
            ([{"quality": 1.0, "cost": "fast"}], "'fast'"),
            ([], "0 results were told for 1"),
            ({"quality": 1.0, "cost": 1.0}, "one mapping"),
        ],
    )
    def test_refuses_and_changes_nothing(self, optimizer, values, message):
        archs = optimizer.ask(1)
        with pytest.raises(InputError, match=message):
            optimizer.tell(archs, values)
        optimizer.tell(archs, [{"quality": 1.0, "cost": 1.0}])
        with pytest.raises(InputError, match="told before"):
            optimizer.tell(archs, [{"quality": 1.0, "cost": 1.0}])

    def test_refuses_another_space(self, optimizer):
        with pytest.raises(InputError, match="another space"):
            optimizer.tell(flat_space(2).smallest(), [None])

    def test_what_was_told_unasked_is_not_proposed(self, optimizer):
        smallest = SMALL.space.smallest()
        optimizer.tell(smallest, SMALL.evaluate(smallest))
        assert smallest.ids[0] not in optimizer.ask(8).ids


class TestHypervolume:
    def test_default_reference_stays_fixed_after_the_initial_design(self):
        optimizer = Optimizer(SMALL.space, SMALL.objectives())
        assert optimizer.reference is None
        assert optimizer.hypervolume() == 0.0
        run(optimizer, SMALL, 2)
        reference, before = optimizer.reference, optimizer.hypervolume()
        values = SMALL.values(optimizer.history.told)
        assert reference["quality"] < values["quality"].min()
        assert reference["cost"] > values["cost"].max()
        run(optimizer, SMALL, 5)
        assert optimizer.reference == reference
        assert optimizer.hypervolume() > before
        assert optimizer.hypervolume(reference) == optimizer.hypervolume()

    def test_of_one_point_is_a_rectangle(self):
        optimizer = Optimizer(SMALL.space, TestTell.OBJECTIVES)
        optimizer.tell(SMALL.space.smallest(), [{"quality": 75.0, "cost": 200.0}])
        assert optimizer.hypervolume({"quality": 70.0, "cost": 600.0}) == 5.0 * 400.0

    def test_refuses_another_reference(self):
        optimizer = Optimizer(SMALL.space, SMALL.objectives())
        with pytest.raises(InputError, match="quality"):
            optimizer.hypervolume({"qualty": 1.0, "cost": 1.0})
        with pytest.raises(InputError, match="no value for cost"):
            optimizer.hypervolume({"quality": 1.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tactic": "nsga3"}, "nsga2"),
        ({"seed": -1}, "seed -1"),
        ({"batch": 0}, "batch 0"),
        ({"constraints": ["latency <= 3"]}, "latency"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        Optimizer(SMALL.space, SMALL.objectives(), **arguments)


def test_refuses_to_ask_for_nothing_and_to_record_twice():
    optimizer = Optimizer(SMALL.space, SMALL.objectives())
    with pytest.raises(InputError, match="number of proposals 0"):
        optimizer.ask(0)
    archs = optimizer.ask()
    with pytest.raises(InputError, match=f"{archs.ids[2]} was proposed before"):
        optimizer.ask_recorded(archs[2:])


def test_refuses_an_exact_objective_that_gives_no_numbers():
    objectives = [Objective("quality", "max"), Objective("cost", "min", exact=lambda archs: [1.0])]
    optimizer = Optimizer(SMALL.space, objectives)
    archs = optimizer.ask()
    with pytest.raises(InputError, match="'cost' gave"):
        optimizer.tell(archs, SMALL.evaluate(archs))


class TestEstimates:
    """Values known in part teach a search and count for nothing else."""

    def test_are_on_no_front_and_in_no_figure(self):
        optimizer = Optimizer(SMALL.space, SMALL.objectives())
        archs = optimizer.ask(6)
        values = SMALL.evaluate(archs)
        optimizer.tell(archs[:5], values[:5])
        before = optimizer.hypervolume(), optimizer.reference, optimizer.front().ids
        best = {name: Estimate(value + 100.0, 0.5) for name, value in values[5].items()}
        optimizer.tell(archs[5:], [best])
        assert (optimizer.hypervolume(), optimizer.reference, optimizer.front().ids) == before
        assert optimizer.history.succeeded[-1]
        assert not optimizer.history.measured[-1]
        assert optimizer.ask(4).unique(archs).ids == optimizer.history.asked[6:].ids

    def test_what_they_leave_out_is_compared_with_its_approximation(self, monkeypatch):
        """A part of the images says nothing less of the latency."""
        judged = []
        monkeypatch.setattr(
            ApproximationCheck, "judge", lambda self, *args: judged.append(args[3].tolist())
        )
        objectives = [
            Objective("quality", "max"),
            Objective("cost", "min", approximation=lambda a: SMALL.values(a)["cost"]),
        ]
        optimizer = Optimizer(SMALL.space, objectives)
        archs = optimizer.ask(3)
        values = SMALL.evaluate(archs)
        optimizer.tell(archs, [{**row, "quality": Estimate(row["quality"], 1)} for row in values])
        assert judged == [[row["cost"] for row in values]]

    @pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf])
    def test_need_a_deviation(self, deviation):
        with pytest.raises(InputError, match="deviation"):
            Estimate(70.0, deviation)
