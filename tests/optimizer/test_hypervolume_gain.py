import numpy as np
import pytest

from hwsearch.objectives import hypervolume
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("jagged", [False, True])
def test_is_the_difference_of_two_hypervolumes(n_objectives, jagged):
    rng = np.random.default_rng(n_objectives)
    front = 0.2 + 0.8 * rng.random((12, n_objectives))
    points = rng.random((40, n_objectives)) * 1.3
    if jagged:  # ties in every objective, and rows that are there twice
        front, points = np.round(front * 4) / 4, np.round(points * 4) / 4
    reference = np.full(n_objectives, 1.1)
    before = hypervolume(front, reference)
    expected = [hypervolume(np.vstack([front, point]), reference) - before for point in points]
    gain = hypervolume_gain(points, front, reference)
    assert gain == pytest.approx(np.array(expected), abs=1e-12)
    assert (gain > 0).any()


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
def test_is_the_whole_box_while_there_is_no_front(n_objectives):
    nothing = np.empty((0, n_objectives))
    points = np.array([np.full(n_objectives, 0.5), np.full(n_objectives, 2.0)])
    gain = hypervolume_gain(points, nothing, np.ones(n_objectives))
    assert gain.tolist() == [0.5**n_objectives, 0.0]


def test_front_beyond_the_reference_takes_nothing():
    gain = hypervolume_gain(np.array([[0.5, 0.5]]), np.array([[0.0, 3.0]]), np.ones(2))
    assert gain.tolist() == [0.25]
