"""One-hot and thermometer encodings."""

import numpy as np
from hypothesis import given

from hwsearch.encoding import column_counts, onehot, thermometer, thermometer_columns
from tests.spaces import (
    TINY,
    checked_on_random_spaces,
    spaces,
)


class TestEncoding:
    @checked_on_random_spaces
    @given(spaces())
    def test_onehot_can_be_read_back(self, space):
        archs = space.enumerate(space.size)
        names = [f"{c.name}={option!r}" for c in space.choices for option in c.options]
        encoded = onehot(archs)
        assert encoded.shape == (len(archs), len(names))
        for arch, row in zip(archs, encoded, strict=True):
            ones = {name for name, value in zip(names, row, strict=True) if value == 1.0}
            assert ones == {f"{name}={option!r}" for name, option in arch.items()}
            assert np.count_nonzero(row) == len(ones)

    @checked_on_random_spaces
    @given(spaces())
    def test_thermometer_rows_are_distinct_and_count_steps(self, space):
        archs = space.enumerate(space.size)
        encoded, columns = thermometer(archs), thermometer_columns(space)
        assert encoded.shape == (len(archs), sum(column_counts(space)))
        assert len(np.unique(encoded, axis=0)) == len(archs)
        for position, choice in enumerate(space.choices):
            own = columns.choice == position
            assert own.sum() == column_counts(space)[position]
            reached = archs.indices[:, position] + (choice.active is not None)
            expected = reached if choice.ordered else 1
            assert (encoded[:, own].sum(axis=1) == expected * archs.active[:, position]).all()

    def test_thermometer_by_hand(self):
        archs = TINY.architectures(
            [
                {"depth": 1, "act": "relu"},
                {"depth": 2, "width": 16, "act": "swish"},
                {"depth": 3, "width": 32, "kernel": 5, "act": "relu"},
            ]
        )
        assert thermometer(archs).tolist() == [
            [0, 0, 0, 0, 0, 0, 0, 1, 0],
            [1, 0, 1, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 0, 1, 0],
        ]
        assert thermometer_columns(TINY).ordered.tolist() == [True] * 7 + [False] * 2
