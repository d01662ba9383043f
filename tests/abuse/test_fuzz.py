"""A few examples of every property; ``python tools/fuzz.py`` tries thousands."""

import pytest

from tests.abuse.properties import PROPERTIES, attempts

EXAMPLES = 15


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_is_taken_or_refused(name):
    attempts(name, max_examples=EXAMPLES, derandomize=True)()
