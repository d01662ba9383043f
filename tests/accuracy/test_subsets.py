"""Evenly spaced samples of a split, of all classes."""

import numpy as np

from hwsearch import load_task
from hwsearch.accuracy.subsets import spread
from hwsearch.accuracy.task import Samples
from tests.accuracy.folders import class_folders, spec_for


def test_of_arrays():
    x, targets = np.arange(20.0).reshape(10, 2), np.arange(10)
    samples = Samples({"x": x}, targets, {"x": lambda batch: -batch})
    few = spread(samples, 4)
    ((fed, given),) = few.batches(9)
    assert given.tolist() == [0, 3, 6, 9]
    np.testing.assert_array_equal(fed["x"], -x[given])
    assert spread(samples, 10) is samples


def test_of_image_files(tmp_path):
    task = load_task(f"imagefolder:{class_folders(tmp_path / 'images', 30)}", spec_for(8), "any")
    few = spread(task.search, 6)
    assert set(few.targets) == {0, 1, 2}
    assert set(task.search.targets[:6]) == {0}
    whole = np.concatenate([fed["image"] for fed, _ in task.search.batches(50)])
    rows = [task.search.paths.index(path) for path in few.paths]
    ((fed, _),) = few.batches(9)
    np.testing.assert_array_equal(fed["image"], whole[rows])


def test_of_samples_of_another_kind():
    class Own:
        def __len__(self):
            return 9

    own = Own()
    assert spread(own, 3) is own
