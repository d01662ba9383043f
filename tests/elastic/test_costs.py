import numpy as np
import pytest

from hwsearch.elastic.build import sliced
from hwsearch.elastic.costs import Costs
from hwsearch.elastic.graph import Graph, Structure, Work
from hwsearch.elastic.selection import Selections
from hwsearch.models.agreement import count_macs, count_params
from tests.elastic.small_models import MODELS, mobile_cnn as mobile, residual_cnn, transformer
from tests.elastic.test_slicing import random_dropped, random_kept


def selections(structure, kept, dropped):
    groups = [
        np.count_nonzero(kept.get(group.name, np.ones(group.size, bool)))
        for group in structure.groups
    ]
    out = [branch.name in dropped for branch in structure.branches]
    return Selections(
        units=np.array([groups]), dropped=np.array([out], bool), sizes=np.zeros(1, np.int64)
    )


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_file(name):
    structure = MODELS[name]()
    rng, costs = np.random.default_rng(0), Costs(structure)
    for _ in range(6):
        kept, dropped = random_kept(structure, rng), random_dropped(structure, rng)
        counted = count_params(sliced(structure, kept, dropped), ())
        assert costs.params(selections(structure, kept, dropped)).tolist() == [counted]


def test_macs_are_those_of_the_file():
    structure = residual_cnn()
    rng, costs, seen = np.random.default_rng(0), Costs(structure), set()
    for _ in range(8):
        kept, dropped = random_kept(structure, rng), random_dropped(structure, rng)
        counted = count_macs(sliced(structure, kept, dropped))
        assert costs.macs(selections(structure, kept, dropped)).tolist() == [counted]
        seen.add(counted)
    assert len(seen) > 4


def test_a_batch_costs_what_each_costs_alone():
    structure = residual_cnn()
    rng, costs = np.random.default_rng(3), Costs(structure)
    n = 20_000  # more than one part
    full = np.array([group.size for group in structure.groups])
    batch = Selections(
        units=rng.integers(1, full + 1, size=(n, 3)),
        dropped=rng.random((n, 1)) < 0.5,
        sizes=np.zeros(n, np.int64),
    )
    macs = costs.macs(batch)
    for row in (0, 7, 16_383, 16_384, n - 1):
        one = Selections(
            units=batch.units[[row]], dropped=batch.dropped[[row]], sizes=batch.sizes[[row]]
        )
        assert costs.macs(one).tolist() == [macs[row]]
    smaller = Selections(
        units=np.minimum(batch.units, 8), dropped=batch.dropped, sizes=batch.sizes
    )
    assert (costs.macs(smaller) <= macs).all()


def test_macs_that_do_not_divide_are_rounded_once():
    structure = transformer()
    work = (Work(node="scores", macs=1001, factors=((4, {"attention.heads": 1}),)),)
    odd = Structure(
        graph=structure.graph, groups=structure.groups, branches=structure.branches, work=work
    )
    full = Selections(
        units=np.array([[4, 40], [3, 40]]),
        dropped=np.zeros((2, 1), bool),
        sizes=np.zeros(2, np.int64),
    )
    assert Costs(odd).macs(full).tolist() == [1001, 751]


def test_units_on_one_axis_share_it():
    structure = mobile()
    # The input of `mix` is 12 channels of side and 8 of the stream.
    work = (
        Work(
            node="mix",
            macs=20 * 16 * 9 * 81,
            factors=((20, {"side.width": 1, "stem.width": 1}), (16, {"mix.width": 2})),
        ),
    )
    found = Structure(graph=structure.graph, groups=structure.groups, branches=(), work=work)
    kept = Selections(
        units=np.array([[5, 24, 4, 6]]),
        dropped=np.zeros((1, 0), bool),
        sizes=np.zeros(1, np.int64),
    )
    assert Costs(found).macs(kept).tolist() == [(5 + 4) * 12 * 9 * 81]


def test_a_node_that_two_branches_share_goes_with_the_second():
    structure = residual_cnn()
    graph = structure.graph
    whole = Costs(structure)
    # Without the branch the inner convolutions cost nothing, although their weights exist.
    dropped = Selections(
        units=np.array([[16, 24, 32]]), dropped=np.ones((1, 1), bool), sizes=np.zeros(1, np.int64)
    )
    inner = {"block.conv1", "block.conv2"}
    expected = sum(work.macs for work in structure.work if work.node not in inner)
    assert whole.macs(dropped).tolist() == [expected]
    assert isinstance(graph, Graph)


def test_macs_follow_the_input_size():
    structure = residual_cnn()
    own = {work.node: work.macs for work in structure.work}
    costs = Costs(structure, [{node: macs // 4 for node, macs in own.items()}, own])
    both = Selections(
        units=np.array([[16, 24, 32], [16, 24, 32]]),
        dropped=np.zeros((2, 1), bool),
        sizes=np.array([0, 1]),
    )
    assert costs.macs(both).tolist() == [sum(own.values()) // 4, sum(own.values())]
    assert costs.params(both)[0] == costs.params(both)[1]
