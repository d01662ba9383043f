"""Search spaces to test with, random ones too, and their architectures by the definition."""

import itertools

import numpy as np
from hypothesis import settings, strategies as st

from hwsearch.space import Choice, SearchSpace

TINY = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        Choice("width", (16, 32), active=("depth", (2, 3))),
        Choice("kernel", (3, 5, 7), active=("width", (32,))),
        Choice("act", ("relu", "swish")),
    ]
)  # 1 + 2 * (1 + 3) = 9 ways for the first three, times 2
FLAT = SearchSpace([Choice(f"c{i}", tuple(range(2 + i % 4))) for i in range(30)])


def ofa_mobilenetv3():
    choices = []
    for stage, block in itertools.product(range(1, 6), range(5)):
        depth = f"stage{stage}.depth"
        if block == 0:
            choices.append(Choice(depth, (2, 3, 4)))
            continue
        active = None if block <= 2 else (depth, tuple(range(block, 5)))
        choices.append(Choice(f"stage{stage}.block{block}.kernel", (3, 5, 7), active))
        choices.append(Choice(f"stage{stage}.block{block}.expand", (3, 4, 6), active))
    return SearchSpace(choices)


OFA = ofa_mobilenetv3()


OPTIONS = st.one_of(
    st.lists(st.integers(-9, 9), min_size=1, max_size=3, unique=True).map(sorted),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3, unique=True),
    st.lists(st.text(max_size=3), min_size=1, max_size=3, unique=True),
    st.permutations([False, True]),
)


@st.composite
def spaces(draw):
    """Random forests of one to six choices with up to three options each."""
    choices = []
    for position in range(draw(st.integers(1, 6))):
        active = None
        if choices and draw(st.booleans()):
            parent = draw(st.sampled_from(choices))
            chosen = st.lists(st.sampled_from(parent.options), min_size=1, unique=True)
            active = (parent.name, tuple(draw(chosen)))
        choices.append(Choice(f"c{position}", tuple(draw(OPTIONS)), active))
    return SearchSpace(choices)


SEEDS = st.integers(0, 2**32 - 1)
checked_on_random_spaces = settings(
    max_examples=100, deadline=None, derandomize=True, database=None
)


def brute_force(space):
    """Every distinct architecture as a tuple of (name, repr of option), by the definition."""
    distinct = set()
    for options in itertools.product(*(choice.options for choice in space.choices)):
        kept = {}
        for choice, option in zip(space.choices, options, strict=True):
            if choice.active is None or kept.get(choice.active[0], ...) in choice.active[1]:
                kept[choice.name] = option
        distinct.add(tuple((name, repr(option)) for name, option in kept.items()))
    return distinct


def written(archs):
    return [tuple((name, repr(option)) for name, option in arch.items()) for arch in archs]


def assert_valid(archs):
    assert archs.indices.dtype == np.int64
    assert archs.active.dtype == np.bool_
    again = archs.space.from_indices(archs.indices)
    np.testing.assert_array_equal(again.indices, archs.indices)
    np.testing.assert_array_equal(again.active, archs.active)
