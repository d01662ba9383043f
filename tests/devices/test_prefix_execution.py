"""Parts on one batch, with parts that only count."""

import numpy as np

from hwsearch.devices.prefix_execution import run_tree
from hwsearch.devices.runtime import Declared


class Adds:
    """Adds a number; refuses batches with a value that it does not like."""

    def __init__(self, number, dislikes=None):
        self.inputs = [Declared("x", "float32", ("batch", 1))]
        self.number, self.dislikes, self.seen = number, dislikes, []

    def run(self, feeds):
        (x,) = feeds.values()
        self.seen.append(len(x))
        if self.dislikes is not None and (x == self.dislikes).any():
            raise ValueError(f"{self.dislikes} is not liked")
        return [x + self.number]


BATCH = {"x": np.arange(7, dtype=np.float32)[:, None]}


def test_outputs_are_put_together_in_order():
    parts = [Adds(1), Adds(10), Adds(100), Adds(1000)]
    numbered = dict(zip((4, 7, 5, 9), parts, strict=True))
    tree = (numbered, {4: None, 7: 4, 5: 4, 9: 7}, {4, 5, 9})
    for threads in (1, 3):
        outputs, seconds, errors = run_tree(*tree, BATCH, size=3, threads=threads)
        assert sorted(outputs) == [4, 5, 9]
        for number, added in ((4, 1), (5, 101), (9, 1011)):
            (array,) = outputs[number]
            np.testing.assert_array_equal(array, BATCH["x"] + added)
        assert list(seconds) == [4, 7, 5, 9]
        assert min(seconds.values()) > 0
        assert not errors
    assert all(part.seen.count(3) == 4 and part.seen.count(1) == 2 for part in parts)


def test_a_part_that_fails_takes_along_what_is_behind_it_only():
    parts = dict(enumerate((Adds(0), Adds(1, dislikes=5), Adds(2), Adds(3))))
    tree = (parts, {0: None, 1: 0, 2: 1, 3: 0}, {2, 3})
    outputs, _, errors = run_tree(*tree, BATCH, size=2, threads=1)
    assert errors == {1: "5 is not liked", 2: "5 is not liked"}
    assert list(outputs) == [3]
    np.testing.assert_array_equal(outputs[3][0], BATCH["x"] + 3)
