"""A supernet for sequences of tokens: attention layers of elastic depth, width and hidden width.

It is no chain of blocks, has no batch statistics, and its inputs are integers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwsearch.space import Architecture, Choice, SearchSpace
from hwsearch.supernets.checkpoints import leading_weights, parameter_digest
from hwsearch.supernets.interface import Card, InputSpec, TensorSpec
from hwsearch_test_plugin.weights import card, load_state, seeded_state

NAME = "test-tokens"
VOCABULARY, LENGTH, CLASSES = 20, 12, 4
WIDTHS, DEPTHS, HIDDEN = (8, 16, 24), (1, 2, 3, 4), (8, 16, 32)


class Layer(nn.Module):
    """Self-attention of one head, then a perceptron, each added to its normalised input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        weights = (self.query(y) @ self.key(y).transpose(1, 2)).softmax(dim=2)
        x = x + weights @ self.value(y)
        return x + self.down(self.up(self.norm2(x)).relu())


class Classifier(nn.Module):
    def __init__(self, width: int, hidden: list[int]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(LENGTH, width))
        self.layers = nn.Sequential(*(Layer(width, each) for each in hidden))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.layers(self.embedding(tokens) + self.positions)
        return self.head(self.norm(x.mean(dim=1)))


def search_space() -> SearchSpace:
    hidden = [
        Choice(
            f"layer{layer}.hidden",
            HIDDEN,
            None if layer == 1 else ("depth", tuple(d for d in DEPTHS if d >= layer)),
        )
        for layer in range(1, max(DEPTHS) + 1)
    ]
    return SearchSpace([Choice("width", WIDTHS), Choice("depth", DEPTHS), *hidden])


def build(arch: Mapping[str, object]) -> Classifier:
    hidden = [arch[f"layer{layer}.hidden"] for layer in range(1, arch["depth"] + 1)]
    return Classifier(arch["width"], hidden)


class TokenSupernet:
    recalibrate = ()

    def __init__(self, state: Mapping[str, Tensor], of: Card) -> None:
        self.space = search_space()
        self.state, self.card = dict(state), of
        self.digest = parameter_digest(self.state)

    def subnet(self, arch: Architecture) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            network = build(arch)
        network.load_state_dict(leading_weights(self.state, network))
        return network.eval()

    def input_spec(self, arch: Architecture) -> InputSpec:
        tokens = TensorSpec(name="tokens", shape=(LENGTH,), dtype="int64", high=VOCABULARY)
        return InputSpec(inputs=(tokens,), outputs=("scores",))

    def blocks(self, arch: Architecture) -> None:
        return None


class TokenFamily:
    name = NAME
    summary = "sequences of tokens, for tests"

    def load(self, checkpoint: str | None) -> TokenSupernet:
        return TokenSupernet(load_state(self._largest, checkpoint, NAME), card(NAME, checkpoint))

    def tiny(self, seed: int = 0) -> TokenSupernet:
        return TokenSupernet(seeded_state(self._largest, seed), card(NAME, f"random:{seed}"))

    @staticmethod
    def _largest() -> nn.Module:
        return build(search_space().largest()[0])


FAMILY = TokenFamily()
