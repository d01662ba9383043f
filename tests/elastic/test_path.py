import numpy as np

from hwsearch.elastic.path import greedy_path, uniform_cuts
from hwsearch.space import Choice, SearchSpace

SPACE = SearchSpace(
    [
        Choice("cheap", (1, 2, 3, 4)),
        Choice("dear", (1, 2, 3, 4)),
        Choice("keep", (False, True)),
        Choice("inner", (1, 2), active=("keep", (True,))),
        Choice("kind", ("b", "a")),
    ]
)


def numbers(archs):
    """Numbers of the four choices, 0 where inactive."""
    return np.where(archs.active, archs.indices, -1)[:, :4] + np.array([1, 1, 0, 1])


def costs(archs):
    return numbers(archs) @ [10.0, 10.0, 5.0, 10.0]


def losses(archs):
    return (4 - numbers(archs)[:, :2]) ** 2 @ [1.0, 9.0] + 50.0 * (numbers(archs)[:, 2] == 0)


def path(names=SPACE.names, space=SPACE):
    return greedy_path(space, names, losses, costs)


def test_each_step_takes_what_loses_least_for_what_it_saves():
    found = path()
    assert found.ids[0] == SPACE.largest().ids[0]
    assert [arch.get("inner") for arch in found][:2] == [2, 1]  # it loses nothing
    assert numbers(found)[1:, :3].tolist() == [
        [4, 4, 1], [3, 4, 1], [2, 4, 1], [1, 4, 1], [1, 3, 1], [1, 2, 1], [1, 2, 0], [1, 1, 0]
    ]  # fmt: skip


def test_a_step_may_skip_options_that_save_nothing_alone():
    def stairs(archs):
        return np.array([10.0, 10.0, 30.0, 30.0])[archs.indices[:, 0]]

    found = greedy_path(SPACE, ["cheap"], losses, stairs)
    assert [arch["cheap"] for arch in found] == [4, 2]


def test_only_named_choices_change():
    found = path(["cheap", "inner"])
    assert (found.indices[:, 1:3] == found.indices[0, 1:3]).all()
    assert found.indices[-1, [0, 3]].tolist() == [0, 0]


def test_steps_of_many_choices_save_a_share_of_what_is_left():
    space = SearchSpace([Choice(f"layer{n}.width", tuple(range(1, 9))) for n in range(60)])

    def cost(archs):
        return (archs.indices + 1.0).sum(axis=1)

    found = greedy_path(space, space.names, lambda archs: (-cost(archs)) ** 3, cost)
    left = cost(found)
    assert left[0] == 480
    assert left[-1] == 60
    assert len(found) < 80
    assert (left[1:] / left[:-1] <= 0.96).all()


def test_uniform_cuts_keep_one_share_of_all_widths_and_everything_else():
    space = SearchSpace(
        [
            Choice("a.width", (16, 32, 48, 64)),
            Choice("b.width", (64, 128, "tied")),
            Choice("c.width", (2, 4)),
            Choice("keep", (False, True)),
        ]
    )
    found = uniform_cuts(space, ["a.width", "b.width", "c.width"])
    assert found.ids[0] == space.largest().ids[0]
    assert [arch["a.width"] for arch in found] == [64, 48, 48, 32, 16]
    assert [arch["c.width"] for arch in found] == [4, 4, 2, 2, 2]
    assert {(arch["b.width"], arch["keep"]) for arch in found} == {("tied", True)}
