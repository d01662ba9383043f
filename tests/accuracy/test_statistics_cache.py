"""Statistics come back as they were, and give way to others."""

import pytest
import torch
from torch import nn

from hwsearch.accuracy.recalibrate import StatisticsCache
from hwsearch.space import Choice, SearchSpace

NORMS = (nn.BatchNorm2d,)
ONE = 2 * 4 * 4  # bytes of mean and variance of four channels
ARCHS = list(SearchSpace([Choice("width", (1, 2, 3, 4))]).enumerate(4))


def subnet(mean=0.0, *, eval_mode=True):
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(mean + 1)
    return nn.Sequential(nn.Conv2d(3, 4, 1), norm).train(not eval_mode)


def test_they_come_back_as_they_were():
    known, first = StatisticsCache(NORMS), subnet(3.0)
    known.keep(ARCHS[0], first)
    first[1].running_mean.fill_(7)
    fresh = subnet(eval_mode=False)
    assert known.restore(ARCHS[0], fresh)
    assert torch.equal(fresh[1].running_mean, torch.full((4,), 3.0))
    assert torch.equal(fresh[1].running_var, torch.full((4,), 4.0))
    assert not fresh.training


def test_what_is_not_known_is_left_alone():
    known, fresh = StatisticsCache(NORMS), subnet(5.0)
    known.keep(ARCHS[0], subnet(3.0))
    assert not known.restore(ARCHS[1], fresh)
    assert torch.equal(fresh[1].running_mean, torch.full((4,), 5.0))


@pytest.mark.parametrize(("budget", "left"), [(0, []), (ONE, [3]), (3 * ONE, [0, 2, 3])])
def test_what_was_used_longest_ago_gives_way(budget, left):
    known = StatisticsCache(NORMS, budget)
    for number in range(3):
        known.keep(ARCHS[number], subnet(number))
    known.restore(ARCHS[0], subnet())
    known.keep(ARCHS[3], subnet(3))
    assert [n for n in range(4) if known.restore(ARCHS[n], subnet())] == left


def test_keeping_again_takes_no_more_room():
    known = StatisticsCache(NORMS, 2 * ONE)
    known.keep(ARCHS[0], subnet(0))
    for number in range(5):
        known.keep(ARCHS[1], subnet(number))
    assert known.restore(ARCHS[0], subnet())
