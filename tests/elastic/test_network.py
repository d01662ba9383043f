import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwsearch.elastic.graph import Graph, Origin, Structure
from hwsearch.elastic.proposal import SpaceSettings, propose
from hwsearch.errors import EvaluationError
from hwsearch.models.agreement import count_macs, count_params
from hwsearch.restriction import restricted
from tests.elastic.networks import CARD, losses_of, network, orders_of
from tests.elastic.small_models import MODELS, residual_cnn, samples
from tests.elastic.test_proposal import many_blocks
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


def test_effects_are_those_of_the_options():
    net = network()
    effects = net.effects(net.space)
    assert effects["down.width"] == [net.losses["down.width"][n] for n in (8, 16, 24, 32)]
    assert "block.keep" not in effects
    part = restricted(net.space, only=["down.width in 8,32"])
    assert net.effects(part)["down.width"] == [net.losses["down.width"][8], 0.0]


def test_effects_of_ties_leave_out_groups_that_are_freed():
    structure = many_blocks(6)
    elastic = propose(structure, SpaceSettings(most=3))
    net = network(
        elastic=elastic, orders=orders_of(structure), losses=losses_of(structure)
    )  # of another graph: nothing is built here
    tie = "layer1.2-3.conv1.width"
    space = restricted(net.space, defaults=net.defaults)
    both = net.effects(space)[tie]
    losses = losses_of(structure)
    assert both[0] == pytest.approx(
        losses["layer1.2.conv1.width"][8] + losses["layer1.3.conv1.width"][8]
    )
    freed = restricted(net.space, only=["layer1.3.conv1.width in 8,24"], defaults=net.defaults)
    assert net.effects(freed)[tie][0] == pytest.approx(losses["layer1.2.conv1.width"][8])
    assert net.effects(freed)["layer1.3.conv1.width"][0] == pytest.approx(
        losses["layer1.3.conv1.width"][8]
    )
    assert all(
        len(net.effects(freed)[c.name]) == len(c.options)
        for c in freed.choices
        if c.name in net.effects(freed)
    )


def test_the_prior_adds_losses_and_is_less_sure_of_large_ones():
    net = network()
    mean, deviation = net.prior(net.space.largest())
    assert (mean[0], deviation[0]) == (0.0, 0.0)
    archs = net.space.sample(50, seed=0)
    mean, deviation = net.prior(archs)
    chosen = net.elastic.select(archs).units
    expected = sum(net.losses[g.name][chosen[:, c]] for c, g in enumerate(net.structure.groups))
    np.testing.assert_allclose(mean, expected)
    order = np.argsort(mean)
    assert (np.diff(deviation[order] / mean[order]) >= -1e-12).all()


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
