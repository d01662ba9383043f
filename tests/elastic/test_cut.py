import copy
import io
import warnings
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwsearch.elastic import build
from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.pytorch.attention import CutMultiheadAttention
from hwsearch.elastic.pytorch.cut_branches import Skip, Zero
from hwsearch.elastic.pytorch.cut_module import cut_module
from hwsearch.elastic.pytorch.module import read_module
from hwsearch.elastic.reading import read_graph
from hwsearch.errors import InputError
from hwsearch.models.execution import run
from tests.elastic.miniature_modules import (
    DenseNet,
    MobileNet,
    ResidualNet,
    TextEncoder,
    TiedModel,
    VisionTransformer,
    image,
    text,
    trained,
    window_transformer,
)

TOKENS = torch.arange(5)[None]
CASES = {
    "residual": (ResidualNet, image()),
    "mobile": (MobileNet, image()),
    "dense": (DenseNet, image()),
    "vision transformer": (VisionTransformer, image()),
    "text": (TextEncoder, text()),
    "tied": (TiedModel, TOKENS),
    "windows": (window_transformer, image(side=8)),
}

# A window transformer takes seconds to export and to cut.
SOME_SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (name == "windows")) for name in CASES]


@cache
def made(name):
    build_module, inputs = CASES[name]
    module = trained(build_module)
    return module, inputs, analyse(read_module(module, inputs))


def some_units(structure, seed=0):
    """Keep half of the units of every exact group, at random places, the same share of parts."""
    rng = np.random.default_rng(seed)
    kept = {}
    for group in structure.groups:
        if not group.exact or group.size < 2:
            continue
        parts = group.parts if len(group.parts) else np.zeros(group.size, np.int64)
        mask = np.zeros(group.size, bool)
        for part in np.unique(parts):
            own = np.flatnonzero(parts == part)
            mask[rng.permutation(own)[: max(1, len(own) // 2)]] = True
        kept[group.name] = mask
    return kept


def outputs(module, inputs):
    with torch.no_grad():
        result = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    if isinstance(result, torch.Tensor):
        return [result.numpy()]
    return [each.numpy() for each in vars(result).values() if each is not None]


def repaired(structure, kept, seed=0):
    """Other values for the weights that read removed units, as a repair gives them."""
    rng = np.random.default_rng(seed)
    replaced = {}
    for group in structure.groups:
        for slot in group.slots if group.name in kept else ():
            if slot.role == "in":
                weight = structure.graph.weights[slot.weight]
                noise = rng.standard_normal(weight.shape) * weight.std() / 4
                replaced[slot.weight] = (weight + noise).astype(np.float32)
    for node in structure.graph.proto.graph.node:
        biases = [name for name in node.input[2:3] if name in structure.graph.weights]
        if node.op_type in ("Conv", "Gemm") and biases:
            bias = structure.graph.weights[biases[0]]
            replaced[biases[0]] = (bias + rng.standard_normal(bias.shape) / 4).astype(np.float32)
    return replaced


@pytest.mark.parametrize("name", SOME_SLOW)
def test_a_cut_module_has_the_outputs_of_the_sliced_model(name):
    module, inputs, structure = made(name)
    kept = some_units(structure)
    assert kept
    model = build.sliced(structure, kept)
    cut = cut_module(module, structure, kept, (), model, inputs)
    arrays = inputs if isinstance(inputs, dict) else {model.graph.input[0].name: inputs}
    found = run(model, {key: each.numpy() for key, each in arrays.items()})
    for ours, expected in zip(outputs(cut, inputs), found.values(), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", SOME_SLOW)
def test_names_stay_and_numbers_become_fewer(name):
    module, inputs, structure = made(name)
    before = {key: each.clone() for key, each in module.state_dict().items()}
    kept = some_units(structure)
    cut = cut_module(module, structure, kept, (), build.sliced(structure, kept), inputs)
    assert list(cut.state_dict()) == list(before)
    sizes = [sum(each.numel() for each in m.parameters()) for m in (cut, module)]
    assert sizes[0] < 0.8 * sizes[1]
    assert all(torch.equal(before[key], each) for key, each in module.state_dict().items())
    assert type(cut) is type(module)


@pytest.mark.parametrize("name", ["residual", "mobile", "dense", "vision transformer"])
def test_repaired_weights_are_unfolded(name):
    module, inputs, structure = made(name)
    kept = some_units(structure)
    model = build.sliced(structure, kept, (), repaired(structure, kept))
    cut = cut_module(module, structure, kept, (), model, inputs)
    arrays = {model.graph.input[0].name: inputs.numpy()}
    (expected,) = run(model, arrays).values()
    np.testing.assert_allclose(
        outputs(cut, inputs)[0], expected, atol=1e-5 * np.abs(expected).max()
    )


def test_scale_and_shift_of_norms_stay_those_of_the_kept_channels():
    module, inputs, structure = made("residual")
    kept = some_units(structure)
    model = build.sliced(structure, kept, (), repaired(structure, kept))
    cut = cut_module(module, structure, kept, (), model, inputs)
    for name in ("layer1.0.bn1", "layer2.1.bn2"):
        own, whole = cut.get_submodule(name), module.get_submodule(name)
        rows = [int(torch.nonzero(whole.weight == each)[0]) for each in own.weight]
        assert rows == sorted(rows)
        assert torch.equal(own.bias, whole.bias[rows])
        assert own.num_features == len(rows)


def test_weights_go_into_a_file_and_back(tmp_path):
    import safetensors.torch

    module, inputs, structure = made("residual")
    kept = some_units(structure)
    model = build.sliced(structure, kept, (), repaired(structure, kept))
    cut = cut_module(module, structure, kept, (), model, inputs)
    safetensors.torch.save_file(cut.state_dict(), tmp_path / "weights.safetensors")
    other = cut_module(module, structure, kept, (), build.sliced(structure, kept), inputs)
    assert np.abs(outputs(other, inputs)[0] - outputs(cut, inputs)[0]).max() > 1e-3
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    np.testing.assert_array_equal(outputs(other, inputs)[0], outputs(cut, inputs)[0])


@pytest.mark.parametrize("name", ["residual", "mobile", "vision transformer"])
def test_branches_are_left_out_one_by_one_and_together(name):
    module, inputs, structure = made(name)
    assert structure.branches
    plain = [branch for branch in structure.branches if _is_plain(structure, branch)]
    everything = [[branch.name] for branch in plain] + [[branch.name for branch in plain]]
    for dropped in everything:
        kept = some_units(structure)
        model = build.sliced(structure, kept, dropped)
        cut = cut_module(module, structure, kept, dropped, model, inputs)
        assert any(isinstance(each, (Zero, Skip)) for each in cut.modules())
        assert set(cut.state_dict()) < set(module.state_dict())
        (expected,) = run(model, {model.graph.input[0].name: inputs.numpy()}).values()
        np.testing.assert_allclose(
            outputs(cut, inputs)[0], expected, atol=1e-5 * np.abs(expected).max()
        )


def _is_plain(structure, branch):
    """Return whether what the branch is added to has no weights of its own."""
    node = next(n for n in structure.graph.proto.graph.node if n.name == branch.node)
    makers = {name: n.op_type for n in structure.graph.proto.graph.node for name in n.output}
    return makers.get(node.input[1 - branch.side]) != "Conv" or "downsample" not in str(node)


def test_a_layer_without_bias_gets_one_where_its_input_was_repaired():
    module = trained(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))
    )
    inputs = torch.randn(1, 6)
    structure = analyse(read_module(module, inputs))
    kept = some_units(structure)
    replaced = repaired(structure, kept)
    model = build.sliced(structure, kept, (), replaced)
    cut = cut_module(module, structure, kept, (), model, inputs)
    (expected,) = run(model, {model.graph.input[0].name: inputs.numpy()}).values()
    np.testing.assert_allclose(outputs(cut, inputs)[0], expected, atol=1e-5)
    assert (cut[2].in_features, cut[0].out_features) == (4, 4)


def test_attention_of_torch_keeps_its_parameters_and_masks():
    module, inputs, structure = made("text")
    kept = {name: mask for name, mask in some_units(structure).items() if name.endswith("heads")}
    assert kept
    cut = cut_module(module, structure, kept, (), build.sliced(structure, kept), inputs)
    attention = cut.encoder.layers[0].self_attn
    assert isinstance(attention, CutMultiheadAttention)
    assert attention.num_heads == 2
    assert attention.in_proj_weight.shape == (24, 16)
    masked = text(9)
    masked["attention_mask"][:, 6:] = 0
    short = {key: each[:, :6] for key, each in masked.items()}
    ours = outputs(cut, masked)[1]
    np.testing.assert_allclose(ours, outputs(cut, short)[1], atol=1e-5)


def test_cut_attention_equals_that_of_torch_with_all_heads():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = nn.MultiheadAttention(16, 4, batch_first=True).eval()
        x, mask = torch.randn(3, 5, 16), torch.zeros(3, 5, dtype=torch.bool)
    mask[1, 3:] = True
    ours = copy.deepcopy(whole)
    CutMultiheadAttention.convert(ours, 4)
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    for options in (
        {},
        {"key_padding_mask": mask},
        {"attn_mask": causal, "average_attn_weights": False},
        {"need_weights": False},
    ):
        found, expected = ours(x, x, x, **options), whole(x, x, x, **options)
        torch.testing.assert_close(found[0], expected[0])
        assert (found[1] is None) == (expected[1] is None)
        if found[1] is not None:
            torch.testing.assert_close(found[1], expected[1])
    single = x[0]
    torch.testing.assert_close(ours(single, single, single)[0], whole(single, single, single)[0])


@pytest.mark.parametrize("name", ["residual", "mobile", "vision transformer"])
def test_a_module_is_cut_by_an_onnx_file_that_renamed_and_folded_its_weights(name):
    module, inputs, _ = made(name)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (inputs,), buffer, dynamo=False, input_names=["pixels"],
            dynamic_axes={"pixels": {0: "n"}}, opset_version=17,
        )  # fmt: skip
    structure = analyse(read_graph(onnx.load_from_string(buffer.getvalue())))
    kept = some_units(structure)
    model = build.sliced(structure, kept, (), repaired(structure, kept))
    cut = cut_module(module, structure, kept, (), model)
    assert list(cut.state_dict()) == list(module.state_dict())
    (expected,) = run(model, {"pixels": inputs.numpy()}).values()
    np.testing.assert_allclose(
        outputs(cut, inputs)[0], expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_models_of_transformers_are_cut(attention):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=20, attn_implementation=attention,
    )  # fmt: skip
    module = trained(lambda: transformers.BertForSequenceClassification(config))
    structure = analyse(read_module(module, text()))
    kept = some_units(structure)
    kinds = {group.kind for group in structure.groups if group.name in kept}
    assert kinds == {"heads", "ffn", "inner"}  # inner: the pooler
    cut = cut_module(module, structure, kept, (), build.sliced(structure, kept), text())
    assert cut.bert.encoder.layer[0].attention.self.query.out_features == 8


def test_another_module_or_weights_are_refused():
    _, inputs, structure = made("residual")
    kept = some_units(structure)
    model = build.sliced(structure, kept)
    with pytest.raises(InputError, match="not the one that the elastic model was made of"):
        cut_module(trained(ResidualNet, seed=5), structure, kept, (), model, inputs)
    with pytest.raises(InputError, match="2 inputs and 2 outputs, the elastic model 1 and 1"):
        cut_module(trained(TextEncoder), structure, kept, (), model, text())


class _Fixed(nn.Module):
    """Code that depends on the number of channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.second(x.reshape(-1, 8))


def test_code_that_depends_on_a_number_of_channels_is_named():
    module, inputs = trained(_Fixed), torch.randn(1, 6)
    structure = analyse(read_module(module, inputs))
    kept = some_units(structure)
    assert kept
    with pytest.raises(InputError, match=f"because of {next(iter(kept))!r}"):
        cut_module(module, structure, kept, (), build.sliced(structure, kept), inputs)
