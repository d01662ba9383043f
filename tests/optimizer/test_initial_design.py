import numpy as np
import pytest

from hwsearch.optimizer.initial_design import initial_design
from hwsearch.space import Choice, SearchSpace
from tests.optimizer.problems import elastic_space, flat_space, operator_space

SPACES = [elastic_space(5), flat_space(60), operator_space(6), flat_space(1)]


class TestGradedSample:
    @pytest.mark.parametrize("space", SPACES, ids=["elastic", "flat", "operators", "tiny"])
    def test_is_distinct_and_begins_with_the_ends(self, space):
        found = initial_design(space, 6, 3)
        assert len(found.unique()) == len(found) == min(6, space.size)
        assert found[:1] == space.smallest()
        assert found[1:2] == space.largest()

    def test_climbs_in_size_and_depends_on_the_seed(self):
        space = flat_space(60)
        sizes = initial_design(space, 6, 0).indices.sum(axis=1)
        assert sorted(sizes) == sorted(sizes[[0, 2, 4, 5, 3, 1]].tolist())
        assert initial_design(space, 6, 0) != initial_design(space, 6, 1)

    def test_sets_kinds_of_choices_apart(self):
        names = [f"block{n}.{kind}" for n in range(10) for kind in ("kernel", "width")]
        space = SearchSpace([Choice(name, (1, 2, 3, 4, 5)) for name in names])
        sample = initial_design(space, 6, 0).indices[2:]
        kernels, widths = sample[:, ::2].mean(axis=1), sample[:, 1::2].mean(axis=1)
        assert np.abs(kernels - widths).max() > 0.4
