import numpy as np
import pytest

from hwsearch.errors import EvaluationError, InfeasibleError, InputError
from hwsearch.objectives import Objective, hypervolume
from hwsearch.optimizer import optimize
from tests.optimizer.problems import Tabular, elastic_space, flat_space, operator_space


def found(result, names=("quality", "cost")):
    return result.front[list(names)].to_numpy(float)


def search(table, budget, objectives=None, **more):
    return optimize(
        table.space, table.evaluate, objectives or table.objectives(), budget=budget, **more
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("measured_cost", [False, True])
def test_finds_the_whole_known_front_of_1521_in_60(seed, measured_cost):
    table = Tabular(elastic_space(2), seed)
    objectives = table.objectives(measured_cost=measured_cost)
    result = search(table, 60, objectives, seed=seed)
    missed = table.front(objectives) - set(result.front["key"])
    assert len(missed) <= (2 if measured_cost else 0)
    assert table.share(found(result), objectives) > 0.998
    by_chance = search(table, 60, objectives, seed=seed, tactic="random")
    assert table.share(found(by_chance), objectives) < 0.95


def test_finds_nearly_all_of_the_known_front_of_59319_in_80():
    table = Tabular(elastic_space(3), 0)
    objectives = table.objectives()
    share = table.share(found(search(table, 80)), objectives)
    assert share > 0.995
    for tactic in ("nsga2", "random"):
        other = search(table, 80, tactic=tactic)
        assert table.share(found(other), objectives) < share - 0.03


def test_nsga2_beats_chance():
    table = Tabular(elastic_space(3), 0)
    objectives = table.objectives()
    shares = {
        tactic: [
            table.share(found(search(table, 200, seed=seed, tactic=tactic)), objectives)
            for seed in range(2)
        ]
        for tactic in ("nsga2", "random")
    }
    assert min(shares["nsga2"]) > max(shares["random"])


def test_sixty_choices_beat_chance():
    table = Tabular(flat_space(60))
    reference = {"quality": 50.0, "cost": float(table.values(table.space.largest())["cost"][0])}
    searched = search(table, 40).hypervolume(reference)
    by_chance = search(table, 400, tactic="random").hypervolume(reference)
    assert searched > 1.1 * by_chance


def test_unordered_choices():
    table = Tabular(operator_space(5))
    objectives = table.objectives()
    share = table.share(found(search(table, 80)), objectives)
    assert share > 0.98
    assert table.share(found(search(table, 80, tactic="random")), objectives) < share - 0.03


def test_three_objectives():
    table = Tabular(elastic_space(2))
    objectives = [*table.objectives(), Objective("memory", "min")]
    names = ("quality", "cost", "memory")
    share = table.share(found(search(table, 60, objectives), names), objectives)
    assert share > 0.97
    other = search(table, 60, objectives, tactic="random")
    assert table.share(found(other, names), objectives) < share - 0.05


@pytest.mark.parametrize("exact", [False, True])
def test_one_objective(exact):
    table = Tabular(elastic_space(2))
    objective = Objective("quality", "max", exact=table.exact("quality") if exact else None)
    result = search(table, 40, [objective])
    best = table.values(table.space.enumerate(2000))["quality"].max()
    assert result.front["quality"].tolist() == [best]


def test_four_objectives_are_searched():
    table = Tabular(elastic_space(2))

    def evaluate(archs):
        return [{**v, "heat": v["cost"] - v["memory"]} for v in table.evaluate(archs)]

    objectives = [
        *table.objectives(measured_cost=True),
        Objective("memory", "min"),
        Objective("heat", "min"),
    ]
    result = optimize(table.space, evaluate, objectives, budget=20)
    assert len(result.trials) == 20


def test_ties_and_an_objective_of_zero_variance():
    table = Tabular(elastic_space(2))

    def tied(archs):
        return np.round(table.values(archs)["quality"] / 4) * 4

    def evaluate(archs):
        return [{"quality": quality, "flat": 1.0} for quality in tied(archs)]

    objectives = [Objective("quality", "max"), Objective("flat", "min"), table.objectives()[1]]
    everything = table.space.enumerate(2000)
    truth = np.column_stack([-tied(everything), table.values(everything)["cost"]])
    reference = {"quality": -truth[:, 0].max(), "flat": 2.0, "cost": truth[:, 1].max()}
    best = hypervolume(truth, [-reference["quality"], reference["cost"]])
    assert optimize(table.space, evaluate, objectives, budget=40).hypervolume(
        reference
    ) == pytest.approx(best, rel=0.03)


class TestFailures:
    TABLE = Tabular(elastic_space(3))

    def fails(self, archs):
        """Whatever is wide where the second stage is deep: nearly half of all."""
        return [a["s1.depth"] == 3 and a["s1.b0.width"] > 16 for a in archs]

    def test_a_failing_part_is_recorded_and_avoided(self):
        def evaluate(archs):
            values = self.TABLE.evaluate(archs)
            broken = self.fails(archs)
            return [
                {"quality": np.nan} if bad else v for bad, v in zip(broken, values, strict=True)
            ]

        assert np.mean(self.fails(self.TABLE.space.sample(400, 0))) > 0.33
        result = optimize(self.TABLE.space, evaluate, self.TABLE.objectives(), budget=48)
        failed = result.trials["state"] == "failed"
        assert 1 <= failed.sum() <= 8
        assert set(result.trials["reason"][failed]) == {"quality is nan"}
        assert result.trials["reason"][~failed].isna().all()
        assert result.trials["quality"].isna().equals(failed)
        assert not set(result.front["key"]) & set(result.trials["key"][failed])
        assert result.trials["key"].is_unique
        assert f"{failed.sum()} of them failed" in str(result)
        reference = {"quality": 50.0, "cost": 120.0}
        by_chance = search(self.TABLE, 48, tactic="random")  # where nothing fails
        assert result.hypervolume(reference) > 1.1 * by_chance.hypervolume(reference)

    def test_an_exception_fails_only_the_one_that_raises(self):
        def evaluate(archs):
            if any(self.fails(archs)):
                raise RuntimeError("out of memory")
            return self.TABLE.evaluate(archs)

        result = optimize(self.TABLE.space, evaluate, self.TABLE.objectives(), budget=24)
        failed = result.trials[result.trials["state"] == "failed"]
        assert set(failed["reason"]) == {"RuntimeError: out of memory"}
        deep = (failed["s1.depth"] == 3) & (failed["s1.b0.width"] > 16)
        assert deep.all()

    def test_all_failing_says_why(self):
        with pytest.raises(EvaluationError, match=r"all 12 trials failed.*returned None"):
            optimize(
                self.TABLE.space,
                lambda archs: [None] * len(archs),
                self.TABLE.objectives(),
                budget=12,
            )


class TestConstraints:
    TABLE = Tabular(elastic_space(3))

    def test_the_budget_is_spent_inside(self):
        result = search(self.TABLE, 48, constraints=["cost <= 100", "quality >= 66"])
        later = result.trials[result.trials["round"] >= 4]
        assert later["feasible"].mean() > 0.7
        assert (result.front["cost"] <= 100).all()
        assert (result.front["quality"] >= 66).all()
        _, losses = self.TABLE.losses(self.TABLE.objectives())
        best = -losses[losses[:, 1] <= 100, 0].min()
        assert result.front["quality"].max() > best - 0.15

    def test_a_measured_bound_that_the_initial_design_misses_is_reached(self):
        objectives = self.TABLE.objectives(measured_cost=True)
        _, losses = self.TABLE.losses(objectives)
        good = np.sort(losses[-losses[:, 0] >= 70, 1])
        bound = good[len(losses) // 1000]  # one in a thousand is feasible
        constraints = ["quality >= 70", f"cost <= {bound}"]
        result = search(self.TABLE, 40, objectives, constraints=constraints)
        assert not result.trials["feasible"][:8].any()
        assert result.trials["feasible"].sum() >= 10

    @pytest.mark.parametrize("tactic", ["hwsearch", "nsga2", "random"])
    def test_nothing_feasible_says_what_came_closest(self, tactic):
        with pytest.raises(InfeasibleError, match=r"satisfies quality >= 99.*closest.*quality 7"):
            search(self.TABLE, 16, constraints=["quality >= 99"], tactic=tactic)


class TestResult:
    TABLE = Tabular(elastic_space(1))

    def test_a_small_space_is_searched_whole_and_says_so(self):
        result = search(self.TABLE, 500)
        assert result.exhausted
        assert "exhausted" in str(result)
        assert len(result.trials) == self.TABLE.space.size == 39
        assert set(result.front["key"]) == self.TABLE.front(self.TABLE.objectives())

    def test_tables_hold_choices_and_objectives(self):
        result = search(self.TABLE, 20)
        assert not result.exhausted
        trials = result.trials
        assert list(trials.columns) == [
            *("key", "round", *self.TABLE.space.names),
            *("quality", "cost", "state", "reason", "feasible"),
        ]
        assert trials["key"].is_unique
        assert trials["s0.b2.width"].isna().equals(trials["s0.depth"] < 3)
        for _, row in trials.iterrows():
            arch = {n: row[n] for n in self.TABLE.space.names if row[n] == row[n]}
            values = self.TABLE.evaluate(self.TABLE.space.architectures(arch))[0]
            assert (row["quality"], row["cost"]) == (values["quality"], values["cost"])
        assert result.front["quality"].is_monotonic_decreasing
        assert result.front["cost"].is_monotonic_decreasing

    def test_hypervolume_takes_a_point_in_the_users_terms(self):
        result = search(self.TABLE, 10)
        reference = {"cost": 1e3, "quality": 0.0}
        assert 0 < result.hypervolume(reference) < 80.0 * 1e3
        with pytest.raises(InputError, match="no value for quality"):
            result.hypervolume({"cost": 1e3})

    def test_progress_is_reported_after_every_round(self):
        reports = []
        search(self.TABLE, 10, progress=reports.append)
        assert [report.evaluated for report in reports] == [4, 8, 10]
        assert reports[-1].budget == 10
        volumes = [report.hypervolume for report in reports[1:]]
        assert volumes == sorted(volumes)

    @pytest.mark.parametrize("budget", [0, -3, 2.5, None])
    def test_refuses_a_budget(self, budget):
        with pytest.raises(InputError, match="budget"):
            search(self.TABLE, budget)

    def test_refuses_results_that_do_not_fit(self):
        with pytest.raises(InputError, match="1 results for 4"):
            optimize(self.TABLE.space, lambda archs: [None], self.TABLE.objectives(), budget=8)
        with pytest.raises(InputError, match="'quality' is missing"):
            optimize(
                self.TABLE.space,
                lambda archs: [{}] * len(archs),
                self.TABLE.objectives(),
                budget=8,
            )

    def test_refuses_an_objective_named_like_a_choice(self):
        space = flat_space(2)
        with pytest.raises(InputError, match="'c1' has the name of a choice"):
            optimize(space, lambda archs: [], [Objective("c1", "min")], budget=3)
