import moocore
import numpy as np
import pytest

from hwsearch.objectives import to_losses
from hwsearch.optimizer.evolution import evolve, survivors
from hwsearch.optimizer.initial_design import graded_sample
from hwsearch.space import Choice, SearchSpace
from tests.optimizer.problems import Tabular, elastic_space, flat_space, operator_space


def test_finds_the_front_of_a_known_problem():
    table = Tabular(elastic_space(3))
    objectives = table.objectives()
    _, losses = table.losses(objectives)
    true = losses[moocore.is_nondominated(losses, keep_weakly=False)]

    def evaluate(asked):
        values = table.values(asked)
        return to_losses(np.column_stack([values[o.name] for o in objectives]), objectives), None

    rng = np.random.default_rng(0)
    found = evolve(
        evaluate, table.space.sample_distinct(40, 0), rng, population=60, generations=40
    )
    assert len(found.unique()) == len(found)
    reference = losses.max(axis=0)
    share = moocore.hypervolume(evaluate(found)[0], ref=reference) / moocore.hypervolume(
        true, ref=reference
    )
    assert share > 0.99


class TestSurvivors:
    def test_violation_comes_before_rank(self):
        losses = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
        missed = np.array([0.5, 0.0, 0.0, 0.1])
        assert sorted(survivors(losses, missed, 2)) == [1, 2]
        assert survivors(losses, missed, 4).tolist()[2:] == [3, 0]

    def test_the_last_rank_keeps_its_ends_and_its_gaps(self):
        line = np.array([0.0, 1.0, 1.1, 1.2, 4.0])
        losses = np.column_stack([line, -line])
        assert sorted(survivors(losses, np.zeros(5), 3)) == [0, 3, 4]

    def test_a_better_rank_comes_before_a_gap(self):
        losses = np.array([[0.0, 2.0], [2.0, 0.0], [9.0, 9.0], [1.0, 1.0]])
        assert 2 not in survivors(losses, np.zeros(4), 3)


SPACES = [elastic_space(5), flat_space(60), operator_space(6), flat_space(1)]


class TestGradedSample:
    @pytest.mark.parametrize("space", SPACES, ids=["elastic", "flat", "operators", "tiny"])
    def test_is_distinct_and_begins_with_the_ends(self, space):
        found = graded_sample(space, 6, 3)
        assert len(found.unique()) == len(found) == min(6, space.size)
        assert found[:1] == space.smallest()
        assert found[1:2] == space.largest()

    def test_climbs_in_size_and_depends_on_the_seed(self):
        space = flat_space(60)
        sizes = graded_sample(space, 6, 0).indices.sum(axis=1)
        assert sorted(sizes) == sorted(sizes[[0, 2, 4, 5, 3, 1]].tolist())
        assert graded_sample(space, 6, 0) != graded_sample(space, 6, 1)

    def test_sets_kinds_of_choices_apart(self):
        names = [f"block{n}.{kind}" for n in range(10) for kind in ("kernel", "width")]
        space = SearchSpace([Choice(name, (1, 2, 3, 4, 5)) for name in names])
        sample = graded_sample(space, 6, 0).indices[2:]
        kernels, widths = sample[:, ::2].mean(axis=1), sample[:, 1::2].mean(axis=1)
        assert np.abs(kernels - widths).max() > 0.4
