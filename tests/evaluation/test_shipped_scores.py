import pytest

from hwsearch.evaluation.measurements import shipped_scores
from hwsearch.trials import Measurement


def score(key, purpose, value, quantity="top1"):
    return Measurement(
        key=key, quantity=quantity, context="c", purpose=purpose, value=value,
        low=None, high=None, count=1, cost_s=0.0,
    )  # fmt: skip


MEASURED = [
    score("a", "search", 13.0),
    score("a", "confirm", 63.0),
    score("a", "report", 99.0),
    score("b", "search", 70.0),
    score("b", "confirm", 60.0),
    score("b", "confirm", 5.0, quantity="latency"),
    score("c", "search", 50.0),
]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("max", {"a": 63.0, "b": 70.0, "c": 50.0}), ("min", {"a": 13.0, "b": 60.0, "c": 50.0})],
)
def test_refined_models_count_where_they_are_better(direction, expected):
    found = shipped_scores(MEASURED, "top1", direction)
    assert {key: each.value for key, each in found.items()} == expected
