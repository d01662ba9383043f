import numpy as np
import pytest
from onnx import TensorProto, helper

from hwsearch.elastic.analysis.consumers import readers
from hwsearch.elastic.graph import Graph
from hwsearch.elastic.repair import accumulate, sampling, statistics as statistics_module
from hwsearch.elastic.repair.sampling import Samples, token_masks
from hwsearch.elastic.repair.statistics import Statistics, gather, needed_bytes
from hwsearch.errors import InputError
from hwsearch.models.execution import run
from tests.elastic.small_models import MODELS, mlp, residual_cnn, samples, transformer


def all_rows(structure, inputs, node):
    """Return a matrix product, and all rows of its input."""
    layer = readers(structure).layers[node]
    graph = structure.graph
    x = run(graph.proto, inputs, [layer.value], graph.weights)[layer.value]
    return layer, x.reshape(-1, x.shape[-1]).astype(np.float64)


def test_mean_and_covariance_are_those_of_the_activations():
    structure = mlp()
    inputs = samples(structure, 200)
    found = gather(structure, [inputs])
    for node in ("fc2", "fc3"):
        layer, x = all_rows(structure, inputs, node)
        own = found.inputs[layer.key]
        assert own.count == 200
        np.testing.assert_allclose(own.mean[0], x.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            own.covariance(0, centred=True).matrix, np.cov(x.T, bias=True), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            own.covariance(0, centred=False).matrix, x.T @ x / 200, rtol=1e-4, atol=1e-6
        )
    # fc2 adds no constant that could take up the mean
    second = found.covariances(readers(structure).layers["fc2"])[0]
    layer, x = all_rows(structure, inputs, "fc2")
    np.testing.assert_allclose(second.matrix, x.T @ x / 200, rtol=1e-4, atol=1e-6)


def test_patches_have_the_zeros_of_padding():
    structure = residual_cnn()
    inputs = samples(structure, 16)
    found = gather(structure, [inputs], rows=10**6)
    layer = readers(structure).layers["block.conv2"]
    graph = structure.graph
    x = run(graph.proto, inputs, [layer.value], graph.weights)[layer.value]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 24 * 9).astype(np.float64)
    own = found.inputs[layer.key]
    assert own.count == len(rows)
    np.testing.assert_allclose(own.mean[0], rows.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        own.covariance(0, centred=True).matrix, np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-5
    )


def test_few_rows_are_kept_as_they_are(monkeypatch):
    structure = mlp()
    inputs = samples(structure, 16)
    monkeypatch.setattr(sampling, "_DENSE_RATIO", 2)
    found = gather(structure, [inputs])
    layer, x = all_rows(structure, inputs, "fc2")
    own = found.inputs[layer.key]
    assert own.rows.shape == (1, 16, 32)
    rows = own.covariance(0, centred=True).rows
    np.testing.assert_allclose(rows.T @ rows, np.cov(x.T, bias=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_about_as_many_as_asked_for_and_repeatable(name):
    structure = MODELS[name]()
    inputs = samples(structure, 40)
    first, second = (gather(structure, [inputs], rows=100) for _ in range(2))
    other = gather(structure, [inputs], rows=100, seed=1)
    differs = False
    for key, own in first.inputs.items():
        assert 40 <= own.count <= 110
        for a, b in ((own.mean, second.inputs[key].mean), (own.packed, second.inputs[key].packed)):
            np.testing.assert_array_equal(a, b)
        differs |= (own.mean != other.inputs[key].mean).any()
    assert differs or name == "mlp"
    assert first.data == second.data != other.data


def test_batches_and_pieces_change_nothing_where_all_rows_are_read(monkeypatch):
    structure = transformer()
    inputs = samples(structure, 30)
    whole = gather(structure, [inputs], rows=10**6)
    monkeypatch.setattr(statistics_module, "PIECE_BYTES", 20_000)
    batches = [
        {name: x[start : start + 12] for name, x in inputs.items()} for start in (0, 12, 24)
    ]
    parts = gather(structure, batches, rows=10**6)
    for key, own in whole.inputs.items():
        assert own.count == parts.inputs[key].count
        np.testing.assert_allclose(own.packed, parts.inputs[key].packed, rtol=1e-4, atol=1e-5)


def test_padding_is_not_counted():
    structure = transformer()
    inputs = samples(structure, 30)
    found = gather(structure, [inputs], rows=10**6)
    layer, x = all_rows(structure, inputs, "ffn.out.matmul")
    valid = inputs["attention_mask"].reshape(-1).astype(bool)
    assert found.inputs[layer.key].count == valid.sum() < len(x)
    np.testing.assert_allclose(
        found.inputs[layer.key].mean[0], x[valid].mean(axis=0), rtol=1e-4, atol=1e-5
    )


def test_masks_are_inputs_of_zeros_and_ones_by_name():
    array = np.array([[1, 1, 0], [1, 0, 0]])
    (found,) = token_masks({"ids": array, "attention_mask": array})
    np.testing.assert_array_equal(found, array.astype(bool))
    (found,) = token_masks({"src_key_padding_mask": array.astype(bool)})
    np.testing.assert_array_equal(found, ~array.astype(bool))
    assert not token_masks({"attention_mask": array * 5})


@pytest.mark.parametrize("length", ["tokens", 6])
def test_texts_of_one_length_are_put_together_without_padding(length):
    names = ["input_ids", "attention_mask"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", length]) for n in names]
    model = helper.make_model(helper.make_graph([], "texts", inputs, []))
    graph = Graph(proto=model, weights={}, origins={}, shapes={}, digest="")
    mask = (np.arange(6) < np.array([2, 5, 1, 3])[:, np.newaxis]).astype(np.int64)
    batch = {"input_ids": np.arange(24).reshape(4, 6) * mask, "attention_mask": mask}
    pieces = Samples(graph, [batch]).unpadded(graph, 2)
    if length == 6:  # the model takes no other
        assert [piece["input_ids"].shape for piece in pieces] == [(2, 6), (2, 6)]
        return
    for piece, rows, width in zip(pieces, ([2, 0], [3, 1]), (2, 5), strict=True):
        for name in names:
            np.testing.assert_array_equal(piece[name], batch[name][rows, :width])
    padded_before = {name: array[:, ::-1] for name, array in batch.items()}
    pieces = Samples(graph, [padded_before]).unpadded(graph, 2)
    assert [piece["input_ids"].shape for piece in pieces] == [(2, 6), (2, 6)]


def test_they_are_saved_and_loaded(tmp_path):
    structure = residual_cnn()
    found = gather(structure, [samples(structure, 40)], rows=2000)
    found.save(tmp_path / "s.safetensors")
    again = Statistics.load(tmp_path / "s.safetensors", structure)
    assert (again.digest, again.data, again.samples) == (found.digest, found.data, 40)
    for key, own in found.inputs.items():
        assert again.inputs[key].count == own.count
        for name in ("mean", "packed", "rows"):
            np.testing.assert_array_equal(getattr(again.inputs[key], name), getattr(own, name))
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_statistics_of_another_model_and_damaged_ones_are_refused(tmp_path):
    structure = mlp()
    path = tmp_path / "s.safetensors"
    gather(structure, [samples(structure, 40)]).save(path)
    with pytest.raises(InputError, match="not of"):
        Statistics.load(path, mlp(seed=1))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        Statistics.load(path, structure)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(arrays, path, metadata):
        raise OSError(28, "No space left on device")

    structure = mlp()
    found = gather(structure, [samples(structure, 40)])
    monkeypatch.setattr(statistics_module, "save_file", full)
    with pytest.raises(InputError, match=r"No space left.*free some space"):
        found.save(tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_finished_pieces(tmp_path, monkeypatch):
    structure = residual_cnn()
    inputs = samples(structure, 40)
    monkeypatch.setattr(statistics_module, "PIECE_BYTES", 400_000)
    seen = []
    whole = gather(structure, [inputs], rows=4000, progress=lambda *done: seen.append(done))
    assert len(seen) > 3
    assert seen[-1] == (40, 40)

    def interrupt(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(KeyboardInterrupt):
        gather(structure, [inputs], rows=4000, unfinished=path, progress=interrupt)
    pieces = []
    add = accumulate.Accumulator.add
    monkeypatch.setattr(
        accumulate.Accumulator, "add", lambda self, n, x: (pieces.append(n), add(self, n, x))
    )
    again = gather(structure, [inputs], rows=4000, unfinished=path)
    assert len(pieces) < len(seen)
    assert not path.exists()
    for key, own in whole.inputs.items():
        np.testing.assert_array_equal(own.packed, again.inputs[key].packed)


def test_sums_of_other_samples_are_not_taken_up(tmp_path):
    structure = mlp()
    path = tmp_path / "unfinished.safetensors"

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather(structure, [samples(structure, 40, seed=1)], unfinished=path, progress=interrupt)
    assert path.exists()
    inputs = samples(structure, 40)
    found = gather(structure, [inputs], unfinished=path)
    for key, own in gather(structure, [inputs]).inputs.items():
        np.testing.assert_array_equal(own.mean, found.inputs[key].mean)


BAD = {
    "too few": (lambda x: {"x": x[:3]}, "'fc2' 3 inputs.* at least 16 samples"),
    "none": (lambda x: {"x": x[:0]}, "no calibration samples"),
    "equal": (lambda x: {"x": np.repeat(x[:1], 40, axis=0)}, "all equal"),
    "another name": (lambda x: {"y": x}, "lack the input 'x'"),
    "another shape": (lambda x: {"x": x[:, :5]}, r"takes float32 of shape \(samples, 12\)"),
    "another type": (lambda x: {"x": x.astype(complex)}, "complex"),
    "not a number": (lambda x: {"x": np.where(np.arange(40)[:, None] == 7, np.nan, x)}, "'fc2'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_refused(case):
    structure = mlp()
    change, message = BAD[case]
    with pytest.raises(InputError, match=message):
        gather(structure, [change(samples(structure, 40)["x"])])


def test_what_no_layer_sees_vary_is_refused():
    structure = mlp()
    inputs = samples(structure, 40)
    structure.graph.weights["fc1.weight"][:] = 0
    structure.graph.weights["fc1.bias"][:] = 1
    with pytest.raises(InputError, match="same for all"):
        gather(structure, [inputs])


def test_memory_is_stated_and_grows_with_the_layers():
    small, large = mlp(), residual_cnn()
    assert 0 < needed_bytes(small, 100) < needed_bytes(large, 100)
    widest = 24 * 9
    assert needed_bytes(large, 100) > 8 * widest**2
