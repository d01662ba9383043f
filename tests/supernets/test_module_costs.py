"""Counting against numbers worked out by hand."""

import torch
from torch import nn

from hwsearch.supernets.checkpoints import parameter_digest
from hwsearch.supernets.interface import TensorSpec
from hwsearch.supernets.module_costs import module_costs


def image(channels, height, width):
    return [TensorSpec(name="x", shape=(channels, height, width))]


def test_convolution():
    # 8 outputs at 5 x 7 pixels, each 3 x 3 x 3 products; 8 x 27 weights and 8 biases.
    assert module_costs(nn.Conv2d(3, 8, 3, padding=1), image(3, 5, 7)) == (7560, 224)


def test_strided_grouped_convolution():
    # 6 outputs at 3 x 3 pixels, each 2 x 3 x 3 products (4 input channels in 2 groups).
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
    assert module_costs(conv, image(4, 5, 5)) == (972, 108)


def test_norms_activations_and_additions_are_free():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2 * 3 * 3, 5)

        def forward(self, x):
            return self.head((x + self.norm(x)).relu().flatten(1))

    # 18 x 5 products; 90 weights, 5 biases, and a scale and a shift for either channel.
    assert module_costs(Residual().eval(), image(2, 3, 3)) == (90, 99)


def test_matrix_products_of_integers_looked_up():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.mix = nn.Embedding(10, 4), nn.Linear(4, 4, bias=False)

        def forward(self, ids):
            x = self.mix(self.table(ids))
            return (x @ x.transpose(1, 2)) @ x

    tokens = [TensorSpec(name="ids", shape=(6,), dtype="int64", high=10)]
    # Linear 6 x 4 x 4, scores 6 x 6 x 4, mixing 6 x 4 x 6; looking up is free.
    assert module_costs(Attention().eval(), tokens) == (96 + 144 + 144, 40 + 16)


def test_two_inputs_in_order():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, first, second):
            return self.a(first) + self.b(second)

    inputs = [TensorSpec(name="first", shape=(3,)), TensorSpec(name="second", shape=(5,))]
    assert module_costs(Two(), inputs) == (12 + 20, 16 + 24)


def test_a_shared_parameter_counts_once():
    linear = nn.Linear(4, 4, bias=False)
    inputs = [TensorSpec(name="x", shape=(4,))]
    assert module_costs(nn.Sequential(linear, linear), inputs) == (32, 16)


def test_digest_tells_weights_apart():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}
    digest = parameter_digest(state)
    assert digest == parameter_digest(dict(reversed(state.items())))
    assert digest != parameter_digest({**state, "b": torch.tensor([0.0, 1e-30])})
    assert digest != parameter_digest({**state, "a": state["a"].reshape(3, 2)})
    assert digest != parameter_digest({"a": state["a"], "c": state["b"]})
    assert digest == parameter_digest({**state, "a": state["a"].T.contiguous().T})
