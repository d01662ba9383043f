"""Integers of shapes: which constants must change so that they follow."""

import numpy as np
import pytest

from hwsearch.elastic.analysis.integers import (
    Integer,
    Target,
    Unsolvable,
    computed,
    response,
    solve,
)

CHANNELS = np.arange(1, 13)


def extents(layers, axis):
    return {7: 2} if layers else {}


def dim(size=12):
    return Integer(size, layers=(CHANNELS,))


def constant(value, name="c"):
    return Integer(value, Target(name))


def solved(integer, need):
    found = {}
    solve(integer, need, extents, lambda target, counts: found.setdefault(target.name, counts))
    return found


def test_constants_shrink_by_what_is_needed():
    assert solved(constant(12), {7: 2}) == {"c": {7: 2}}


def test_sizes_follow_by_themselves():
    assert solved(dim(), {7: 2}) == {}
    with pytest.raises(Unsolvable):
        solved(dim(), {7: 1})
    with pytest.raises(Unsolvable):
        solved(dim(), {})


def test_products_and_quotients():
    half = computed("Div", 6, dim(), constant(2, "two"))
    assert solved(half, {7: 1}) == {"two": {}}
    flat = computed("Mul", 24, dim(), constant(2, "two"))
    assert solved(flat, {7: 4}) == {"two": {}}
    batched = computed("Mul", 12, Integer(1), constant(12, "heads"))
    assert solved(batched, {7: 1}) == {"heads": {7: 1}}
    with pytest.raises(Unsolvable):
        solved(half, {7: 2})


def test_sums():
    total = computed("Add", 16, dim(), constant(4, "four"))
    assert solved(total, {7: 2}) == {"four": {}}
    assert solved(total, {7: 3}) == {"four": {7: 1}}
    assert response(computed("Sub", 0, dim(), dim()), extents) == {}


def test_what_is_no_linear_function_is_not_solved():
    square = computed("Mul", 144, dim(), dim())
    for need in ({}, {7: 4}):
        with pytest.raises(Unsolvable) as raised:
            solved(square, need)
        assert raised.value.components == {7}


def test_comparison_with_minus_one_does_not_depend_on_the_size():
    assert solved(computed("Equal", 0, dim(), constant(-1)), {}) == {}
