"""A few examples of every property; ``python -m tools.fuzz`` tries thousands."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.abuse.properties import PROPERTIES, refused

EXAMPLES = 15


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_is_taken_or_refused(name):
    strategy, use = PROPERTIES[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def attempt(drawn):
        refused(use, drawn)

    attempt()
