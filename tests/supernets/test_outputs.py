"""Outputs of a network by their declared names."""

from collections import OrderedDict, namedtuple

import pytest
import torch

from hwsearch.errors import InputError
from hwsearch.models.module_outputs import declared_outputs

A, B = torch.zeros(1), torch.ones(1)


@pytest.mark.parametrize(
    "result",
    [
        (A, B),
        [A, B],
        {"b": B, "a": A},
        OrderedDict(c=A, b=B, a=A),
        namedtuple("Out", "b a")(B, A),
        namedtuple("Out", "x y")(A, B),
    ],
)
def test_in_the_declared_order(result):
    found = declared_outputs(result, ("a", "b"))
    assert list(found) == ["a", "b"]
    assert found["a"] is A
    assert found["b"] is B


def test_one():
    assert declared_outputs(A, ("any",)) == {"any": A}


@pytest.mark.parametrize(
    ("result", "names", "says"),
    [
        (A, ("a", "b"), "returns 1 outputs, but input_spec names 2: a, b"),
        ((A, B), ("a",), "returns 2 outputs, but input_spec names 1"),
        ({"a": A}, ("a", "b"), "returns a, but input_spec names the outputs a, b"),
        ({"a": [A]}, ("a",), "output 'a' of forward is a list, not a tensor"),
        (None, ("a",), "output 'a' of forward is a NoneType"),
    ],
)
def test_refused(result, names, says):
    with pytest.raises(InputError, match=says):
        declared_outputs(result, names)
