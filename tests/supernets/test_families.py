"""What every registered family owes, tested on its miniature."""

import json

import numpy as np
import pytest
import torch

from hwsearch.blocks import Block
from hwsearch.errors import InputError
from hwsearch.evaluate.recalibrate import recalibrate
from hwsearch.export.probe import probe_inputs, torch_outputs
from hwsearch.objectives import Objective
from hwsearch.space import Architectures, Choice, SearchSpace
from hwsearch.supernets.base import Supernet
from hwsearch.supernets.costs import module_costs
from hwsearch.supernets.zoo import load_family, load_supernet, supernet_names

pytestmark = pytest.mark.parametrize("name", supernet_names())


@pytest.fixture
def net(name):
    return Supernet(name, load_family(name).tiny(), "random:0")


def some(net) -> Architectures:
    space = net.space
    return Architectures.concatenate([space.smallest(), space.largest(), space.sample(6, seed=0)])


def answers(net, arch, subnet=None, seed=0):
    inputs = probe_inputs(net.input_spec(arch).inputs, seed)
    return torch_outputs(subnet if subnet is not None else net.subnet(arch), inputs)


def test_family_introduces_itself(name, net):
    family = load_family(name)
    assert family.name == name
    assert family.summary
    assert net.card.name == name
    assert all([net.card.description, net.card.licence, net.card.source])
    assert len(net.digest) == 64
    assert name in repr(net)


def test_architectures_survive_encoding(name, net):
    archs = net.space.sample(20, seed=1)
    again = net.space.architectures([arch.mapping for arch in archs])
    assert again == archs
    assert net.space.from_indices(archs.indices) == archs
    read = SearchSpace.from_json(net.space.to_json())
    assert read.architectures([arch.mapping for arch in archs]).ids == archs.ids
    for kind in ("onehot", "ordinal"):
        features = net.space.encode(archs, kind)
        assert features.shape == (20, len(net.space.features(kind)))
        assert np.isfinite(features).all()


def test_smallest_largest_and_random_ones_run(name, net):
    for arch in some(net):
        spec = net.input_spec(arch)
        subnet = net.subnet(arch)
        assert not any(module.training for module in subnet.modules())
        outputs = answers(net, arch, subnet)
        assert len(outputs) == len(spec.outputs)
        for output in outputs:
            assert output.shape[0] == 2
            assert np.isfinite(output).all()
            assert not spec.classes or output.shape == (2, len(spec.classes))
        for parameter in subnet.parameters():
            assert parameter.dtype == torch.float32
            assert not parameter.is_meta


def test_other_inputs_give_other_outputs(name, net):
    arch = net.space.largest()[0]
    first, second = answers(net, arch, seed=0), answers(net, arch, seed=1)
    assert np.abs(first[0] - second[0]).max() > 1e-4


def test_input_spec_is_json(name, net):
    spec = net.input_spec(net.space.largest()[0])
    assert json.loads(json.dumps(spec.to_dict()))["inputs"][0]["name"] == spec.inputs[0].name


def test_equal_architectures_are_equal_networks(name, net):
    for arch in some(net):
        twin = net.space.architectures([arch.mapping])[0]
        first, second = net.subnet(arch).state_dict(), net.subnet(twin).state_dict()
        assert list(first) == list(second)
        assert all(torch.equal(first[key], second[key]) for key in first)
        for a, b in zip(answers(net, arch), answers(net, twin), strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_memory_is_shared(name, net):
    arch, other = net.space.largest()[0], net.space.smallest()[0]
    before, before_other = answers(net, arch), answers(net, other)
    standing, destroyed = net.subnet(other), net.subnet(arch)
    with torch.no_grad():
        for tensor in (*destroyed.parameters(), *destroyed.buffers()):
            tensor.zero_()
    np.testing.assert_array_equal(answers(net, arch)[0], before[0])
    np.testing.assert_array_equal(answers(net, other, standing)[0], before_other[0])


def test_larger_subnets_inherit_the_same_weights(name, net):
    """A parameter that two subnets have in common begins with the same numbers."""
    small, large = (net.subnet(a[0]) for a in (net.space.smallest(), net.space.largest()))
    larger = dict(large.named_parameters())
    for key, parameter in small.named_parameters():
        part = larger[key][tuple(slice(size) for size in parameter.shape)]
        assert torch.equal(part, parameter), key


def test_blocks_are_the_whole_network(name, net):
    if net.blocks(net.space.smallest()[0]) is None:
        pytest.skip(f"{name} is no chain of blocks")
    cost_of_spec: dict[object, tuple[int, int]] = {}
    for arch in some(net):
        blocks, subnet = net.blocks(arch), net.subnet(arch)
        assert all(isinstance(block, Block) for block in blocks)
        assert len({block.name for block in blocks}) == len(blocks)
        macs, params = module_costs(subnet, net.input_spec(arch).inputs)
        assert sum(block.macs for block in blocks) == macs
        assert sum(block.params for block in blocks) == params
        modules = dict(subnet.named_modules())
        for block in blocks:
            assert sum(p.numel() for p in modules[block.name].parameters()) == block.params
            costs = (block.macs, block.params)
            assert cost_of_spec.setdefault(block.spec, costs) == costs


def test_exact_costs(name, net):
    archs = some(net)
    counted = [module_costs(net.subnet(arch), net.input_spec(arch).inputs) for arch in archs]
    np.testing.assert_array_equal(net.exact("macs", archs), [macs for macs, _ in counted])
    np.testing.assert_array_equal(net.exact("params", archs), [params for _, params in counted])
    np.testing.assert_array_equal(net.exact("bytes", archs), 4 * net.exact("params", archs))
    assert net.exact("macs", archs[:0]).shape == (0,)
    assert net.exact("macs", archs)[1] > net.exact("macs", archs)[0]
    with pytest.raises(InputError, match=r"unknown exact quantity 'mac'.*Did you mean 'macs'"):
        net.exact("mac", archs)


def test_illegal_architecture_is_refused(name, net):
    choice = net.space.choices[0]
    mapping = net.space.largest()[0].mapping
    with pytest.raises(InputError) as caught:
        net.space.architectures({**mapping, choice.name: 12345})
    assert choice.name in str(caught.value)
    assert "12345" in str(caught.value)
    assert all(str(option) in str(caught.value) for option in choice.options)
    del mapping[choice.name]
    with pytest.raises(InputError, match=choice.name):
        net.space.architectures(mapping)
    misspelt = {**net.space.largest()[0].mapping, f"{choice.name}x": choice.options[0]}
    with pytest.raises(InputError, match=f"Did you mean '{choice.name}'"):
        net.space.architectures(misspelt)


def test_architecture_of_another_space_is_refused(name, net):
    foreign = SearchSpace([Choice("colour", ("red", "green"))]).largest()[0]
    for ask in (net.subnet, net.input_spec, net.blocks):
        with pytest.raises(InputError, match="belongs to another search space"):
            ask(foreign)


def test_equal_space_is_the_same_space(name, net):
    other = Supernet(name, load_family(name).tiny())
    arch = other.space.largest()[0]
    np.testing.assert_array_equal(answers(net, arch)[0], answers(other, arch)[0])


def test_a_sample_does_not_see_its_batch(name, net):
    for arch in some(net):
        inputs = probe_inputs(net.input_spec(arch).inputs)
        subnet = net.subnet(arch)
        together = torch_outputs(subnet, inputs)
        for i in range(2):
            alone = torch_outputs(subnet, {k: v[i : i + 1] for k, v in inputs.items()})
            for a, b in zip(alone, together, strict=True):
                np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-5)


def test_seed_decides_the_weights(name):
    family = load_family(name)
    first, again, other = family.tiny(3), family.tiny(3), family.tiny(4)
    assert first.digest == again.digest != other.digest
    arch = first.space.largest()[0]
    nets = [Supernet(name, network) for network in (first, again, other)]
    a, b, c = (answers(net, arch)[0] for net in nets)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4


def test_building_leaves_the_global_seed_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    family = load_family(name)
    family.tiny(1).subnet(family.tiny(2).space.largest()[0])
    assert torch.equal(torch.rand(3), expected)


def test_recalibration_reaches_every_batch_norm(name, net):
    arch = net.space.largest()[0]
    subnet = net.subnet(arch)
    norms = [m for m in subnet.modules() if isinstance(m, nn_norms())]
    assert all(isinstance(module, net.recalibrate) for module in norms)
    before = {key: tensor.clone() for key, tensor in subnet.state_dict().items()}
    inputs = probe_inputs(net.input_spec(arch).inputs)
    recalibrate(subnet, net.recalibrate, iter([inputs]))
    changed = {
        k for k, tensor in subnet.state_dict().items() if not torch.equal(tensor, before[k])
    }
    assert all("running" in key or "num_batches" in key for key in changed)
    assert sum("running_mean" in key for key in changed) == len(norms)
    assert np.isfinite(answers(net, arch, subnet)[0]).all()


def nn_norms():
    return (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def test_exact_costs_are_objectives(name, net):
    objective = Objective("macs", "min", exact=lambda archs: net.exact("macs", archs))
    assert objective.source == "exact"
    assert objective.exact(net.space.largest())[0] > 0


def test_full_size_loads_from_a_seed(name):
    net = load_supernet(name, "random:0")
    assert net.checkpoint == "random:0"
    assert net.digest == load_supernet(name, "random:0").digest
    assert net.digest != load_supernet(name, "random:1").digest
    assert np.isfinite(answers(net, net.space.smallest()[0])[0]).all()
