import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hwsearch.elastic.pytorch.module import export_module
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
)

ROW = torch.arange(4.0)[None]
IMAGE_MODULES = (ResidualNet, MobileNet, DenseNet, VisionTransformer)


def initialisers(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def operators(model):
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("build", IMAGE_MODULES)
def test_every_weight_has_its_name_and_values(build):
    module = trained(build)
    found = initialisers(export_module(module, image()).model)
    state = module.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)


@pytest.mark.parametrize("build", IMAGE_MODULES)
def test_outputs_are_the_modules_for_any_batch(build):
    module = trained(build)
    model = export_module(module, image()).model
    onnx.checker.check_model(model)
    pictures = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (found,) = run(model, {model.graph.input[0].name: pictures.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, module(pictures).numpy(), atol=1e-5)


def test_the_module_is_not_changed():
    module = trained(ResidualNet).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_module(module, image())
    assert module.training
    assert all(torch.equal(before[name], each) for name, each in module.state_dict().items())


def test_sizes_of_images_are_free_where_the_module_allows_it():
    convolutional = export_module(trained(ResidualNet), image()).model
    assert dims(convolutional.graph.input[0]) == ["batch", 3, "height", "width"]
    fixed = export_module(trained(VisionTransformer), image()).model
    assert dims(fixed.graph.input[0]) == ["batch", 3, 16, 16]


def test_tokens_have_a_free_length_and_outputs_their_names():
    module = trained(TextEncoder)
    model = export_module(module, text()).model
    assert [(each.name, dims(each)) for each in model.graph.input] == [
        ("input_ids", ["batch", "sequence"]),
        ("attention_mask", ["batch", "sequence"]),
    ]
    assert [(each.name, dims(each)) for each in model.graph.output] == [
        ("last_hidden_state", ["batch", "sequence", 16]),
        ("pooled", ["batch", 16]),
    ]
    inputs = text(11)
    inputs["attention_mask"][:, 8:] = 0
    found = run(model, {name: each.numpy() for name, each in inputs.items()})
    with torch.no_grad():
        expected = module(**inputs)
    np.testing.assert_allclose(
        found["last_hidden_state"][:, :8], expected.last_hidden_state[:, :8].numpy(), atol=1e-5
    )


def test_norms_activations_and_attention_are_few_operators():
    found = operators(export_module(trained(VisionTransformer), image()).model)
    assert {"LayerNormalization", "Gelu", "Softmax"} <= found
    assert not found & {"Erf", "ReduceMean", "IsNaN", "Pow"}


def test_equal_weights_keep_names_of_their_own():
    module = trained(lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    nn.init.zeros_(module[0].bias)
    nn.init.zeros_(module[2].bias)
    found = initialisers(export_module(module, torch.randn(1, 4)).model)
    assert {"0.bias", "2.bias"} <= set(found)


def test_a_tied_weight_is_one_initialiser():
    module = trained(TiedModel)
    found = initialisers(export_module(module, torch.zeros(1, 5, dtype=torch.int64)).model)
    assert "embedding.weight" in found
    assert sum(each.shape == (30, 8) for each in found.values()) == 1


def test_parametrised_weights_are_plain():
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    nn.utils.parametrizations.weight_norm(module[0])
    model = export_module(module, image()).model
    np.testing.assert_allclose(
        initialisers(model)["0.weight"], module[0].weight.detach().numpy(), atol=1e-6
    )
    assert not any("original" in name for name in initialisers(model))
    assert hasattr(module[0], "parametrizations")


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ((torch.randn(1, 4), torch.randn(1, 4)), ["left", "right"]),
        ({"left": torch.randn(1, 4), "right": torch.randn(1, 4)}, ["left", "right"]),
        (
            {"left": torch.randn(1, 4), "right": torch.randn(1, 4), "twice": True},
            ["left", "right"],
        ),
        (
            (torch.randn(1, 4), [torch.randn(1, 4), torch.randn(1, 4)]),
            ["left", "right_0", "right_1"],
        ),
    ],
)
def test_inputs_by_position_by_name_and_nested(inputs, names):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, left, right, twice=False):
            right = right[0] - right[1] if isinstance(right, list) else right
            return self.layer(left) + right * (2 if twice else 1), [left * 2, None]

    model = export_module(Sum(), inputs).model
    assert [each.name for each in model.graph.input] == names
    assert [each.name for each in model.graph.output] == ["output0", "output1_0"]


def test_names_of_outputs_may_be_those_of_layers_and_inputs():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Linear(4, 4)

        def forward(self, embedding):
            return {"embedding": self.embedding(embedding), "relu": torch.relu(embedding)}

    model = export_module(Named(), torch.randn(1, 4)).model
    onnx.checker.check_model(model)
    assert [each.name for each in model.graph.output] == ["embedding_", "relu"]


def test_a_reshape_that_fixes_the_batch_is_repaired():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 4)

        def forward(self, x):
            return self.layer(x.reshape(int(x.shape[0]), -1))

    model = export_module(Viewing(), torch.randn(1, 3, 4)).model
    found = run(model, {model.graph.input[0].name: np.ones((4, 3, 4), np.float32)})
    assert next(iter(found.values())).shape == (4, 4)


class _Random(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.rand_like(x)


class _Text(nn.Linear):
    def forward(self, x):
        return super().forward(x), "words"


class _Nothing(nn.Linear):
    def forward(self, x):
        return None


class _Unknown(nn.Linear):
    def forward(self, x):
        return torch.linalg.eigvals(super().forward(x)[:, None] * x[:, :, None]).real


class _OneSample(nn.Linear):
    def forward(self, x):
        return super().forward(x.reshape(4))[None]


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (_Random(4, 4), torch.randn(1, 4), "draw random numbers"),
        (_Text(4, 4), torch.randn(1, 4), "is a str, no tensor"),
        (_Nothing(4, 4), torch.randn(1, 4), "returns no tensor"),
        (_Unknown(4, 4), torch.randn(1, 4), "cannot be exported to ONNX: "),
        (_OneSample(4, 4), torch.randn(1, 4), "samples at once"),
        (nn.Linear(4, 4), torch.randn(1, 5), "does not take the example inputs"),
        (nn.Linear(4, 4), (), "hold no tensor"),
        (nn.Linear(4, 4), 3, "are a int"),
        (nn.Bilinear(4, 4, 4), (torch.randn(1, 4), torch.randn(2, 4)), "input1 1, input2 2"),
        (nn.ReLU(), torch.randn(1, 4), "has no parameters"),
        (nn.LazyLinear(4), torch.randn(1, 4), "gets its shape in the first forward pass"),
        (nn.Linear(4, 4, device="meta"), torch.randn(1, 4), "load its weights"),
        (nn.Linear(4, 4).state_dict(), torch.randn(1, 4), "no torch.nn.Module"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_error(module, inputs, message):
    with pytest.raises(InputError, match=message):
        export_module(module, inputs, "torchscript")


def test_a_masked_module_is_refused():
    from torch.nn.utils import prune

    module = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(module[0], "weight", 0.5)
    with pytest.raises(InputError, match="make the masks permanent"):
        export_module(module, torch.randn(1, 4))


def test_parallel_branches_that_can_be_merged_are_named(caplog):
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def reparameterize(self):
            raise NotImplementedError

        def forward(self, x):
            return self.wide(x) + self.narrow(x)

    export_module(nn.Sequential(Parallel(), nn.Conv2d(3, 4, 1)), image())
    assert "such as '0', have parallel branches" in caplog.text
