import numpy as np
import pytest

from hwsearch.elastic.analysis.consumers import readers
from hwsearch.elastic.repair import cache as repair_cache
from hwsearch.elastic.repair.order import unit_orders
from hwsearch.elastic.repair.repairs import Repair
from hwsearch.elastic.repair.statistics import gather
from hwsearch.errors import InputError
from hwsearch.models.execution import run
from tests.elastic.small_models import MODELS, mlp, mobile_cnn, residual_cnn, samples, transformer


def repair_of(structure, count=80, folder=None, **options):
    statistics = gather(structure, [samples(structure, count)], rows=3000)
    return Repair(structure, statistics, unit_orders(structure, statistics), folder, **options)


def prefix(repair, structure, share=0.5):
    kept = {}
    for group in structure.groups:
        kept[group.name] = np.zeros(group.size, bool)
        kept[group.name][repair._orders[group.name][: max(1, int(share * group.size))]] = True
    return kept


def layer_outputs(structure, node, inputs, weights):
    """Return what a node puts out when it reads the original's values through new weights."""
    graph = structure.graph
    last = next(n for n in graph.proto.graph.node if n.name == node).output[0]
    return run(graph.proto, inputs, [last], {**graph.weights, **weights})[last]


def spread(structure, found, kept, node):
    """Return the full-size weights of a repaired layer: zeros at what was removed."""
    known = readers(structure)
    layer = known.layers[node]
    left = known.kept_positions(node, kept)[0]
    full = np.zeros_like(structure.graph.weights[layer.weight])
    where = [slice(None)] * full.ndim
    where[layer.input_axis] = left
    full[tuple(where)] = found[layer.weight]
    return layer, full


@pytest.mark.parametrize("name", MODELS)
def test_repaired_layers_come_nearer_than_slices(name):
    structure = MODELS[name]()
    repair = repair_of(structure)
    fresh = samples(structure, 60, seed=9)
    for group in structure.groups:
        kept = {group.name: prefix(repair, structure, 0.6)[group.name]}
        found = repair.weights(kept)
        read = readers(structure).of_group(group.name)
        names = {layer.weight for layer in read}
        names |= {layer.bias.name for layer in read if layer.bias is not None}
        assert set(found) == names
        for layer in read:
            _, full = spread(structure, found, kept, layer.node)
            zeros = structure.graph.weights[layer.weight].copy()
            zeros[full == 0] = 0
            new = {layer.weight: full}
            node = layer.node
            if layer.bias is not None:
                new[layer.bias.name] = found[layer.bias.name]
                node = layer.bias.node
            whole = layer_outputs(structure, node, fresh, {})
            repaired = layer_outputs(structure, node, fresh, new)
            sliced = layer_outputs(structure, node, fresh, {layer.weight: zeros})
            assert np.square(repaired - whole).sum() < 0.9 * np.square(sliced - whole).sum()


@pytest.mark.parametrize("name", MODELS)
def test_residual_is_the_share_that_a_repaired_layer_loses(name):
    structure = MODELS[name]()
    inputs = samples(structure, 300)
    repair = repair_of(structure, 300)
    for group in structure.groups:
        count = max(1, group.size // 2)
        kept = {group.name: prefix(repair, structure)[group.name]}
        found = repair.weights(kept)
        for layer in readers(structure).of_group(group.name):
            _, full = spread(structure, found, kept, layer.node)
            new = {layer.weight: full}
            node = layer.node
            if layer.bias is not None:
                new[layer.bias.name] = found[layer.bias.name]
                node = layer.bias.node
            whole = layer_outputs(structure, node, inputs, {})
            lost = np.square(layer_outputs(structure, node, inputs, new) - whole).sum()
            axes = (0, *range(2, whole.ndim)) if whole.ndim == 4 else tuple(range(whole.ndim - 1))
            centred = whole - (whole.mean(axis=axes, keepdims=True) if layer.bias else 0)
            share = lost / np.square(centred).sum()
            expected = repair.residuals(group.name)[layer.node][count]
            # Rows are drawn, padding is left out, and the ridge counts as a loss.
            assert share == pytest.approx(expected, rel=0.35, abs=0.03)


@pytest.mark.parametrize("name", MODELS)
def test_residuals_fall_to_zero_with_the_units_kept(name):
    structure = MODELS[name]()
    repair = repair_of(structure)
    for group in structure.groups:
        for lost in repair.residuals(group.name).values():
            assert lost.shape == (group.size + 1,)
            assert (np.diff(lost) <= 1e-9).all()
            assert 0 < lost[0] <= 1
            assert lost[-1] == 0


def test_nothing_is_lost_where_units_depend_on_others():
    structure = mlp()
    weights = structure.graph.weights
    for name in ("fc1.weight", "fc1.bias"):
        weights[name][16:] = 1.5 * weights[name][:16]
    repair = repair_of(structure, 200)
    first = np.zeros(32, bool)
    first[np.minimum(repair._orders["fc1.width"], 99)[:16]] = True
    assert sorted(np.flatnonzero(first) % 16) == list(range(16))
    assert repair.residuals("fc1.width")["fc2"][16] < 0.05
    found = repair.weights({"fc1.width": first})
    _, full = spread(structure, found, {"fc1.width": first}, "fc2")
    inputs = samples(structure, 60, seed=9)
    whole = layer_outputs(structure, "fc2", inputs, {})
    ours = layer_outputs(structure, "fc2", inputs, {"fc2.weight": full})
    assert np.square(ours - whole).sum() < 0.01 * np.square(whole).sum()


def test_bias_takes_up_the_mean_through_alpha():
    structure = mlp()
    weights = structure.graph.weights
    weights["fc2.weight"][:, 4] = 0
    repair = repair_of(structure, 100)
    kept = np.ones(20, bool)
    kept[[7, 8, 9]] = False
    found = repair.weights({"fc2.width": kept})
    assert found["fc3.weight"].shape == (17, 5)
    _, full = spread(structure, found, {"fc2.width": kept}, "fc3")
    new = {"fc3.weight": full, "fc3.bias": found["fc3.bias"]}
    inputs = samples(structure, 100)
    whole = layer_outputs(structure, "fc3", inputs, {})
    ours = layer_outputs(structure, "fc3", inputs, new)
    np.testing.assert_allclose(ours.mean(axis=0), whole.mean(axis=0), rtol=1e-3, atol=1e-4)


def test_inputs_of_several_groups_are_solved_together():
    structure = mobile_cnn()
    repair = repair_of(structure)
    half = prefix(repair, structure)
    both = {name: half[name] for name in ("stem.width", "side.width")}
    alone = {"side.width": half["side.width"]}
    found, one = repair.weights(both), repair.weights(alone)
    assert found["mix.weight"].shape == (16, 4 + 6, 3, 3)
    assert one["mix.weight"].shape == (16, 8 + 6, 3, 3)
    assert not np.allclose(found["mix.weight"][:, :6], one["mix.weight"][:, :6], atol=1e-3)


def test_convolution_groups_are_solved_each():
    structure = mobile_cnn()
    repair = repair_of(structure)
    kept = {"mix.width": prefix(repair, structure)["mix.width"]}
    found = repair.weights(kept)
    assert found["grouped.weight"].shape == (12, 4, 3, 3)
    assert set(found) == {"grouped.weight", "grouped.bias"}


def test_whole_groups_and_outputs_need_no_repair():
    structure = residual_cnn()
    repair = repair_of(structure)
    assert repair.weights({}) == {}
    assert repair.weights({"stem.width": np.ones(16, bool)}) == {}
    kept = {"block.width": np.arange(24) < 9}
    assert set(repair.weights(kept)) == {"block.conv2.weight", "block.conv2.bias"}
    assert repair.weights(kept)["block.conv2.weight"].shape == (16, 9, 3, 3)
    with pytest.raises(InputError, match="unknown group 'block'"):
        repair.weights({"block": np.ones(24, bool)})
    with pytest.raises(InputError, match="unknown group 'block'"):
        repair.residuals("block")


def test_solutions_are_looked_up_in_memory_and_on_disk(tmp_path, monkeypatch):
    structure = mobile_cnn()
    repair = repair_of(structure, folder=tmp_path)
    kept = prefix(repair, structure)
    first = repair.weights(kept)
    solved = []
    monkeypatch.setattr(Repair, "_solved", lambda *_: solved.append(1) or pytest.fail("solved"))
    again = repair.weights(kept)
    for name, array in first.items():
        assert again[name] is array
    monkeypatch.undo()
    other = repair_of(structure, folder=tmp_path)
    names = []
    solve = Repair._solved
    monkeypatch.setattr(
        Repair, "_solved", lambda self, x, y: names.append(x.node) or solve(self, x, y)
    )
    for name, array in other.weights(kept).items():
        np.testing.assert_array_equal(array, first[name])
    assert names == ["mix"]  # of two groups: combinations are too many for the disk


def test_memory_and_damaged_files(tmp_path, monkeypatch):
    structure = residual_cnn()
    repair = repair_of(structure, folder=tmp_path, cache_bytes=1)
    kept = prefix(repair, structure)
    first = repair.weights(kept)
    assert len(repair._cache._held) == 1
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    for name, array in repair.weights(kept).items():
        np.testing.assert_array_equal(array, first[name])

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repair_cache, "write_atomic", full)
    again = repair_of(structure, folder=tmp_path / "full")
    assert set(again.weights(kept)) == set(first)


def test_statistics_of_another_model_are_refused():
    structure = mlp()
    statistics = gather(structure, [samples(structure, 40)])
    with pytest.raises(InputError, match="not of"):
        Repair(mlp(seed=1), statistics, unit_orders(structure, statistics))


def test_repair_is_the_same_each_time():
    structure = transformer()
    first, second = repair_of(structure), repair_of(structure)
    for name, array in first.weights(prefix(first, structure)).items():
        np.testing.assert_array_equal(array, second.weights(prefix(first, structure))[name])
