"""Choices, and spaces as declared."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.space import Choice, SearchSpace
from tests.spaces import (
    OFA,
    TINY,
)


class TestChoice:
    @pytest.mark.parametrize(
        ("options", "ordered"),
        [
            ((1, 2, 3), True),
            ((0.25, 1), True),
            ((4,), True),
            ((3, 1), False),
            ((False, True), False),
            (("a", "b"), False),
            ((1, "2"), False),
        ],
    )
    def test_ordered_means_increasing_numbers(self, options, ordered):
        assert Choice("c", options).ordered is ordered

    def test_options_become_plain_python_values(self):
        choice = Choice("c", np.array([1, 2]), active=["p", [np.float64(0.5)]])
        assert choice == Choice("c", (1, 2), active=("p", (0.5,)))
        assert [type(o) for o in (*choice.options, *choice.active[1])] == [int, int, float]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("", (1,)), "choice name ''"),
            (("a=b", (1,)), "without '='"),
            (("a\nb", (1,)), "printable"),
            ((3, (1,)), "choice name 3"),
            (("c", ()), "choice 'c': there are no options"),
            (("c", "abc"), "the options are 'abc'"),
            (("c", 5), "the options are 5"),
            (("c", (1, 1.0)), "not distinct"),
            (("c", (1, True)), "not distinct"),
            (("c", (1.0, math.nan)), "nan is not finite"),
            (("c", (None,)), "option None is not a plain"),
            (("c", ((1, 2),)), r"option \(1, 2\) is not a plain"),
            (("c", (1,), ("p", ())), "condition on 'p': there are no options"),
            (("c", (1,), "p"), "active is 'p'"),
            (("c", (1,), ("p", (1,), 2)), "active is"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(InputError, match=message):
            Choice(*arguments)


class TestDeclaring:
    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ([], "at least one choice"),
            ([Choice("a", (1,)), Choice("a", (2,))], "two choices are named 'a'"),
            (
                [Choice("depth", (1,)), Choice("b", (1,), ("dept", (1,)))],
                "unknown parent of choice 'b' 'dept'; known: .* Did you mean 'depth'",
            ),
            (
                [Choice("b", (1,), ("a", (1,))), Choice("a", (1,))],
                "'b' does not come after its parent 'a'",
            ),
            ([Choice("a", (1,), ("a", (1,)))], "does not come after its parent"),
            (
                [Choice("a", (1, 2)), Choice("b", (1,), ("a", (2, 3)))],
                "unknown option of choice 'a' 3; known: 1, 2",
            ),
        ],
    )
    def test_refuses(self, choices, message):
        with pytest.raises(InputError, match=message):
            SearchSpace(choices)

    def test_equality_and_digest_see_names_options_types_conditions_and_order(self):
        a, b = Choice("a", (1, 2)), Choice("b", (1, 2), ("a", (2,)))
        space = SearchSpace([a, b])
        assert space == SearchSpace([a, b])
        assert hash(space) == hash(SearchSpace([a, b]))
        free = replace(b, active=None)
        others = [
            SearchSpace([a]),
            SearchSpace([a, replace(b, name="c")]),
            SearchSpace([a, replace(b, options=(1, 2.0))]),
            SearchSpace([a, replace(b, active=("a", (1,)))]),
            SearchSpace([a, free]),
            SearchSpace([free, a]),
        ]
        assert len({space.digest, *(other.digest for other in others)}) == 7
        assert space not in others
        assert space != "space"

    def test_repr_names_what_matters(self):
        assert repr(TINY) == "SearchSpace(4 choices, 18 architectures)"
        assert repr(OFA) == "SearchSpace(45 choices, 2.18e+19 architectures)"
        assert repr(TINY.smallest()) == f"Architectures(1 of {TINY!r})"

    def test_import_stays_light(self):
        code = (
            "import sys, hwsearch.space\n"
            "heavy = {'pandas', 'scipy', 'sklearn', 'pymoo', 'torch', 'onnx'}\n"
            "print(heavy & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("set()\n", "")
