import itertools

import numpy as np
import pytest

from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer, optimize
from hwsearch.optimizer.additive import fit_function, fit_values, interacting_pairs
from hwsearch.optimizer.integer_program import IntegerProgram
from hwsearch.space import Choice, SearchSpace
from tests.optimizer.problems import Tabular, elastic_space, flat_space, operator_space

WIDTHS = (8, 16, 32)
CHAIN = SearchSpace(
    [
        *(Choice(f"width{i}", WIDTHS) for i in range(4)),
        Choice("depth", (1, 2)),
        Choice("kernel", (3, 5), ("depth", (2,))),
        Choice("extra.width", WIDTHS, ("depth", (2,))),
    ]
)


def chain_macs(archs):
    """Neighbours share a width: what a layer costs is the product of the two."""
    total = []
    for arch in archs:
        widths = [arch[f"width{i}"] for i in range(4)]
        extra = arch["kernel"] * arch["extra.width"] if arch["depth"] == 2 else 0
        total.append(sum(a * b for a, b in itertools.pairwise(widths)) + 10 * extra)
    return np.array(total, dtype=float)


class TestTerms:
    def test_choices_that_share_a_width_are_found(self):
        pairs = interacting_pairs(chain_macs, CHAIN)
        assert set(pairs) == {(0, 1), (1, 2), (2, 3), (5, 6)}

    def test_what_adds_up_has_no_pairs(self):
        table = Tabular(elastic_space(3))
        assert interacting_pairs(lambda archs: 3.0 * table.values(archs)["memory"],
                                       table.space) == []  # fmt: skip
        assert interacting_pairs(lambda archs: np.ones(len(archs)), table.space) == []

    def test_a_function_is_exact_in_terms_of_them(self):
        program = IntegerProgram(CHAIN, interacting_pairs(chain_macs, CHAIN))
        model = fit_function(chain_macs, program)
        archs = CHAIN.enumerate(1000)
        fitted = model.constant + program.variables(archs) @ model.weights
        np.testing.assert_allclose(fitted, chain_macs(archs), rtol=1e-9)
        assert model.draw(np.random.default_rng(0)) is model.weights

    @pytest.mark.parametrize("space", [elastic_space(3), operator_space(6)])
    def test_gains_are_learnt_from_values(self, space):
        table, program = Tabular(space), IntegerProgram(space)
        archs = space.sample_distinct(150, 0)
        known, new = archs[:100], archs[100:]
        model = fit_values(known, table.values(known)["memory"], np.zeros(100), program)
        fitted = model.constant + program.variables(new) @ model.weights
        truth = table.values(new)["memory"]
        assert np.corrcoef(fitted, truth)[0, 1] > 0.98
        rng = np.random.default_rng(0)
        drawn = [model.draw(rng) for _ in range(50)]
        spread = (program.variables(new) @ np.std(drawn, axis=0)).mean()
        assert 0 < spread < truth.std() * 3

    def test_eight_of_different_size_say_what_growing_brings(self):
        table = Tabular(flat_space(40))
        program = IntegerProgram(table.space)
        archs = table.space.sample_spread(8, 0)
        model = fit_values(archs, table.values(archs)["memory"], np.zeros(8), program)
        steps = np.diff(model.weights.reshape(40, 3), axis=1)
        assert (steps > 0).mean() > 0.9


class TestSearch:
    TABLE = Tabular(elastic_space(3))

    @pytest.mark.parametrize("seed", range(3))
    def test_the_best_within_a_hard_limit(self, seed):
        best = {}
        for tactic in ("additive", "random"):
            result = optimize(
                self.TABLE.space,
                self.TABLE.evaluate,
                self.TABLE.objectives(),
                budget=40,
                constraints=["cost <= 100"],
                tactic=tactic,
                seed=seed,
            )
            best[tactic] = result.front["quality"].max()
            if tactic == "additive":
                later = result.trials[8:]
                assert later["feasible"].all()
                assert (later["cost"] > 80).mean() > 0.8
        _, losses = self.TABLE.losses(self.TABLE.objectives())
        truth = -losses[losses[:, 1] <= 100, 0].min()
        assert best["additive"] > truth - 0.15
        assert best["additive"] > best["random"] + 0.2

    def test_without_a_limit_it_sweeps_the_front(self):
        objectives = self.TABLE.objectives()
        shares = {}
        for tactic in ("additive", "random"):
            result = optimize(
                self.TABLE.space, self.TABLE.evaluate, objectives, budget=40, tactic=tactic
            )
            found = result.front[["quality", "cost"]].to_numpy(float)
            shares[tactic] = self.TABLE.share(found, objectives)
        assert shares["additive"] > 0.92
        assert shares["additive"] > shares["random"] + 0.03

    @pytest.mark.parametrize("names", [("quality",), ("quality", "cost", "memory")])
    def test_one_objective_and_three(self, names):
        known = {o.name: o for o in [*self.TABLE.objectives(), Objective("memory", "min")]}
        optimizer = Optimizer(self.TABLE.space, [known[n] for n in names], tactic="additive")
        for _ in range(6):
            archs = optimizer.ask()
            assert 0 < len(archs) <= 4
            optimizer.tell(archs, self.TABLE.evaluate(archs))

    def test_an_approximation_gives_the_costs_of_a_measured_objective(self):
        def measured(archs):
            return [
                {"quality": q, "latency": c * 1.3}
                for q, c in zip(
                    *map(self.TABLE.values(archs).get, ("quality", "cost")), strict=True
                )
            ]

        objectives = [
            Objective("quality", "max"),
            Objective("latency", "min", approximation=self.TABLE.exact("cost")),
        ]
        result = optimize(
            self.TABLE.space,
            measured,
            objectives,
            budget=24,
            constraints=["latency <= 130"],
            tactic="additive",
        )
        later = result.trials[8:]
        assert later["feasible"].all()
        assert (later["latency"] > 110).mean() > 0.8

    def test_a_bound_that_its_model_misses_is_tightened(self):
        def cost(archs):
            """No sum of terms: a quarter of the space is dearer by a fifth."""
            values = self.TABLE.values(archs)["cost"]
            return values * np.where(archs.indices[:, :2].sum(axis=1) == 2, 1.2, 1.0)

        objectives = [Objective("quality", "max"), Objective("cost", "min", exact=cost)]
        optimizer = Optimizer(
            self.TABLE.space, objectives, constraints=["cost <= 100"], tactic="additive"
        )
        for _ in range(8):
            archs = optimizer.ask()
            optimizer.tell(archs, self.TABLE.evaluate(archs))
        assert (cost(optimizer.history.told[8:]) <= 100).mean() > 0.9

    def test_where_nothing_is_feasible_it_comes_as_close_as_it_can(self):
        optimizer = Optimizer(
            self.TABLE.space, self.TABLE.objectives(), constraints=["cost <= 1"], tactic="additive"
        )
        for _ in range(3):
            archs = optimizer.ask()
            optimizer.tell(archs, self.TABLE.evaluate(archs))
        everything = np.sort(self.TABLE.values(self.TABLE.space.enumerate(60_000))["cost"])
        found = np.sort(self.TABLE.values(optimizer.history.told)["cost"])
        assert found[:4] == pytest.approx(everything[:4])
