import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwsearch.elastic.graph import Graph, Origin, Structure
from hwsearch.errors import EvaluationError
from hwsearch.models.agreement import count_macs, count_params
from hwsearch.restriction import restricted
from tests.elastic.networks import CARD, losses_of, network, orders_of
from tests.elastic.small_models import MODELS, residual_cnn, samples
from tests.elastic.test_slicing import difference, run


@pytest.mark.parametrize("name", MODELS)
def test_subnets_are_the_model_with_zeros(name):
    net = network(name)
    inputs = samples(net.structure, 2)
    for arch in net.space.sample(6, seed=0):
        cut, whole = net.reference_models(arch)
        assert difference(run(cut, inputs), run(whole, inputs)) < 1e-5
        assert net.onnx_model(arch) == cut  # there is no repair


@pytest.mark.parametrize("name", MODELS)
def test_equal_architectures_have_equal_bytes(name):
    net, other = network(name), network(name)
    (arch,) = net.space.sample(1, seed=3)
    assert net.onnx_content(arch) == other.onnx_content(arch)
    assert net.digest == other.digest


def test_costs_are_those_of_the_files():
    net = network()
    archs = net.space.sample(10, seed=0)
    models = [net.onnx_model(arch) for arch in archs]
    assert net.macs(archs).tolist() == [count_macs(model) for model in models]
    assert net.params(archs).tolist() == [count_params(model, ()) for model in models]


def test_architectures_of_a_part_of_the_space_are_the_same():
    net = network()
    part = restricted(net.space, freeze=["block.keep=False"], only=["stem.width in 8,16"])
    archs = part.sample(5, seed=0)
    whole = net.space.architectures(list(archs))
    assert net.macs(archs).tolist() == net.macs(whole).tolist()
    assert [net.onnx_content(a) for a in archs] == [net.onnx_content(a) for a in whole]


def test_the_most_important_units_are_kept_and_options_are_nested():
    net = network()
    largest = net.space.largest()[0].mapping
    kept = [
        net.kept(net.space.architectures({**largest, "down.width": count})[0])[0]["down.width"]
        for count in (8, 16, 24)
    ]
    for mask, count in zip(kept, (8, 16, 24), strict=True):
        assert set(np.flatnonzero(mask)) == set(net.orders["down.width"][:count].tolist())
    assert (kept[0] <= kept[1]).all()
    assert (kept[1] <= kept[2]).all()


def test_groups_of_dropped_branches_are_not_sliced():
    net = network()
    arch = net.space.architectures({"stem.width": 8, "block.keep": False, "down.width": 32})[0]
    kept, dropped = net.kept(arch)
    assert list(kept) == ["stem.width"]
    assert dropped == {"block.keep"}


class Doubling:
    """A repair that doubles the weights of the head, and records what was kept."""

    def __init__(self, structure):
        self.weight = structure.graph.weights["head.weight"]
        self.asked = []

    def weights(self, kept):
        self.asked.append(kept)
        return {"head.weight": 2 * self.weight[:, kept["down.width"]]} if kept else {}


def test_repaired_weights_are_written():
    repair = Doubling(residual_cnn())
    calls = []

    def make():
        calls.append(1)
        return repair

    net = network(repair=make)
    assert not calls
    arch = net.space.architectures({**net.space.largest()[0], "down.width": 8})[0]
    cut, _ = net.reference_models(arch)
    plain = {t.name: numpy_helper.to_array(t) for t in cut.graph.initializer}
    repaired = {t.name: numpy_helper.to_array(t) for t in net.onnx_model(arch).graph.initializer}
    np.testing.assert_array_equal(repaired.pop("head.weight"), 2 * plain.pop("head.weight"))
    for name, array in plain.items():
        np.testing.assert_array_equal(repaired[name], array)
    net.onnx_content(net.space.largest()[0])
    assert calls == [1]
    assert repair.asked[-1] == {}


def test_weights_are_named_as_in_the_given_model():
    structure = residual_cnn()
    graph = Graph(
        proto=structure.graph.proto,
        weights=structure.graph.weights,
        origins={
            "head.weight": Origin(name="classifier.weight", permutation=(1, 0)),
            "down.weight": Origin(name="flat.weight", permutation=(0, 1)),  # reshaped as well
            "head.bias": Origin(name="", norm=("a", "b", "c", "d")),
        },
        shapes=structure.graph.shapes,
        digest=structure.graph.digest,
    )
    renamed = Structure(
        graph=graph,
        groups=structure.groups,
        branches=structure.branches,
        work=structure.work,
    )
    net = network()
    net.structure = renamed
    model = net.onnx_model(net.space.largest()[0])
    named = net.named_weights(model)
    np.testing.assert_array_equal(
        named["classifier.weight"], structure.graph.weights["head.weight"].T
    )
    assert "head.weight" not in named
    np.testing.assert_array_equal(named["flat.weight"], structure.graph.weights["down.weight"])
    assert "head.bias" in named
    assert sum(array.size for array in named.values()) == count_params(model, ())


def test_expected_losses_add_what_groups_and_branches_lose():
    losses = losses_of(residual_cnn()) | {"block.keep": np.array([0.5, 0.0])}
    net = network(losses=losses)
    archs = net.space.sample(50, seed=0)
    chosen, column = net.elastic.select(archs), list(net.losses).index
    expected = sum(
        net.losses[g.name][chosen.units[:, column(g.name)]] for g in net.structure.groups
    )
    expected = expected + 0.5 * chosen.dropped[:, 0]
    assert chosen.dropped[:, 0].any()
    np.testing.assert_allclose(net.expected_loss(archs), expected + 1e-3)
    assert network(losses={}).expected_loss is None


def test_a_path_changes_only_what_losses_are_known_of():
    net = network()
    path = net.path(net.space)
    assert path.ids[0] == net.space.largest().ids[0]
    assert (np.diff(net.macs(path)) < 0).all()
    assert (np.diff(net.expected_loss(path)) >= 0).all()
    assert all(arch["block.keep"] for arch in path)
    known = network(losses=losses_of(net.structure) | {"block.keep": np.array([1e-6, 0.0])})
    assert not known.path(known.space)[1]["block.keep"]
    part = restricted(net.space, freeze=["block.keep=False"], only=["stem.width in 8,16"])
    assert {arch["stem.width"] for arch in net.path(part)} == {8, 16}
    assert network(losses={}).path(net.space) is None


def test_a_path_ends_where_a_constant_would_lose_no_more():
    losses = losses_of(residual_cnn())
    given = network(losses=losses)
    whole, cuts = given.path(given.space), given.uniform(given.space)
    scale = 1 / given.expected_loss(whole)[5]
    net = network(losses={name: scale * curve for name, curve in losses.items()})
    assert len(net.path(net.space)) < len(whole)
    assert (net.expected_loss(net.path(net.space))[4:] <= 1).all()
    assert len(net.uniform(net.space)) < len(cuts)
    assert set(net.uniform(net.space).ids) <= set(cuts.ids)
    hopeless = network(losses={name: 1e6 * curve for name, curve in losses.items()})
    assert len(hopeless.path(hopeless.space)) == 4


def test_a_subnet_is_no_module():
    net = network()
    with pytest.raises(EvaluationError, match="onnx_model"):
        net.subnet(net.space.largest()[0])
    assert net.blocks(net.space.largest()[0]) is None
    assert net.recalibrate == ()
    assert net.card == CARD


def test_the_digest_follows_orders_and_statistics():
    structure = residual_cnn()
    digests = {
        network().digest,
        network(orders=orders_of(structure, seed=1)).digest,
        network(statistics_digest="x").digest,
    }
    assert len(digests) == 3


def test_the_batch_stays_dynamic():
    net = network()
    model = net.onnx_model(net.space.smallest()[0])
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not model.metadata_props
    onnx.checker.check_model(model, full_check=True)


def test_the_given_model_is_run_once_for_all_refined_subnets():
    net = network()
    read = []

    class Batches(list):
        digest = "some samples"

        def __iter__(self):
            read.append(1)
            return super().__iter__()

    batches = Batches([samples(net.structure, 40)])
    archs = net.space.sample(3, seed=0)
    models = [net.refined(arch, batches) for arch in archs]
    assert len(read) == 1
    assert models == [net.refined(arch, list(batches)) for arch in archs]
