import numpy as np
import pytest

from hwsearch.accuracy.task import SplitSizes, stratified


@pytest.fixture
def labels():
    return np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 7], [400, 300, 200, 100]))


def test_disjoint_and_of_the_wanted_sizes(labels):
    parts = stratified(labels, [100, 250, 333])
    assert [len(part) for part in parts] == [100, 250, 333]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert all((np.diff(part) > 0).all() for part in parts)


def test_every_class_in_proportion(labels):
    for part in stratified(labels, [100, 250, 333]):
        shares = np.array([(labels[part] == c).sum() for c in (0, 1, 2, 7)]) / len(part)
        np.testing.assert_allclose(shares, [0.4, 0.3, 0.2, 0.1], atol=1.5 / len(part))


def test_equal_classes_get_equal_numbers():
    labels = np.tile(np.arange(10), 100)
    for part in stratified(labels, [250, 250, 100]):
        counts = np.bincount(labels[part])
        assert (counts == len(part) // 10).all()


def test_the_seed_decides(labels):
    first, again = stratified(labels, [50, 60]), stratified(labels, [50, 60])
    other = stratified(labels, [50, 60], seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_the_first_subset_does_not_depend_on_the_others(labels):
    assert np.array_equal(stratified(labels, [80])[0], stratified(labels, [80, 300, 50])[0])


def test_all_of_it(labels):
    parts = stratified(labels, [999, 1])
    assert sorted(np.concatenate(parts)) == list(range(1000))


def test_enough_is_left_as_it_is():
    sizes = SplitSizes(calibration=10, search=20, report=30)
    assert sizes.within(60) == sizes


@pytest.mark.parametrize("total", [3, 4, 5, 10, 11, 59, 100, 5499])
def test_too_few_are_shared_out(total):
    sizes = SplitSizes().within(total)
    parts = [sizes.calibration, sizes.search, sizes.report]
    assert sum(parts) == total
    assert min(parts) >= 1
    if total >= 100:
        np.testing.assert_allclose(np.array(parts) / total, np.array([5, 25, 25]) / 55, atol=0.02)
