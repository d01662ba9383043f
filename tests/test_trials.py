"""Records of trials and measurements."""

import numpy as np
import pytest

from hwsearch.errors import InputError
from tests.contracts.store_contract import measurement


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None, "x", np.nan])
@pytest.mark.parametrize("field", ["value", "low", "high", "cost_s"])
def test_a_number_that_is_none_is_refused_by_name(field, bad):
    if bad is None and field in ("low", "high"):
        assert getattr(measurement(**{field: None}), field) is None
        return
    with pytest.raises(InputError, match=f"top1 of a refused: {field} is .*not a finite number"):
        measurement(**{field: bad})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": ""}, "needs a key"),
        ({"quantity": ""}, "needs a quantity"),
        ({"context": ""}, "needs a context"),
        ({"purpose": "serch"}, "unknown purpose .*'search'"),
        ({"low": 2.0, "high": 1.0}, r"low 2\.0 is above its high 1\.0"),
        ({"count": 0}, "count is 0"),
        ({"count": 1.5}, r"count is 1\.5"),
        ({"count": None}, "count is None"),
        ({"cost_s": -1.0}, r"cost_s is -1\.0"),
        ({"samples": np.array([None, "x"])}, "Python objects"),
        ({"details": {"x": float("nan")}}, "plain JSON"),
        ({"details": {"x": np.arange(2)}}, "plain JSON"),
    ],
)
def test_a_measurement_is_checked(changes, message):
    with pytest.raises(InputError, match=message):
        measurement(**changes)


def test_a_measurement_holds_plain_python_numbers():
    made = measurement(value=np.float32(0.5), count=np.int64(3), low=-0.0, details={"t": (1, 2)})
    assert (type(made.value), type(made.count)) == (float, int)
    assert not np.signbit(made.low)
    assert made.details == {"t": [1, 2]}


def test_samples_are_a_read_only_copy():
    made = measurement(samples=[1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        made.samples[0] = 3.0
