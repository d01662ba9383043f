"""Told values that are replaced by later estimates."""

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.objectives import Estimate
from hwsearch.optimizer import Optimizer
from tests.optimizer.problems import Tabular, elastic_space

TABLE = Tabular(elastic_space(3))


def told_optimizer():
    """An optimiser that was told a value, an estimate, a failure and a value."""
    optimizer = Optimizer(TABLE.space, TABLE.objectives(), seed=1)
    archs = optimizer.ask(4)
    first, second, _, fourth = TABLE.evaluate(archs)
    estimate = {**second, "quality": Estimate(second["quality"], 1.0)}
    optimizer.tell(archs, [first, estimate, None, fourth])
    return optimizer, archs.ids


@pytest.fixture
def told():
    return told_optimizer()


def test_measured_values_are_replaced_and_nothing_else(told):
    optimizer, keys = told
    before = optimizer.history.values.copy()
    optimizer.revise("quality", {**dict.fromkeys(keys[:3], 7.0), "unknown": 7.0})
    column = [objective.name for objective in optimizer.objectives].index("quality")
    before[0, column] = 7.0
    np.testing.assert_array_equal(optimizer.history.values, before)


def test_the_front_is_that_of_the_revised(told):
    optimizer, keys = told
    for value, belongs in ((1e6, True), (-1e6, False), (1e6, True)):
        optimizer.revise("quality", {keys[3]: value})
        assert (keys[3] in optimizer.front().ids) == belongs


def test_values_as_they_were_told_are_kept(told):
    optimizer, keys = told
    before = optimizer.history.values.copy()
    optimizer.revise("quality", {keys[0]: 0.5})
    np.testing.assert_array_equal(optimizer.history.first_values, before)


def test_the_last_revision_is_all_that_counts(told):
    (optimizer, keys), (other, _) = told, told_optimizer()
    optimizer.revise("quality", {keys[0]: 99.0})
    for each in (optimizer, other):
        each.revise("quality", {keys[0]: 0.5})
    assert optimizer.ask(4) == other.ask(4)


@pytest.mark.parametrize("name", ["cost", "latency"])
def test_other_objectives_are_refused(told, name):
    with pytest.raises(InputError, match="unknown measured objective"):
        told[0].revise(name, {})
