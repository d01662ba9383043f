"""Supernets from standard pieces: a search space, and the chain of pieces of an architecture.

The rest of a family follows from these two: static subnets with inherited weights, blocks with
costs, loading and checking of checkpoints, seeded random weights.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from functools import lru_cache

import torch
from torch import Tensor, nn

from hwsearch.blocks import Block, BlockSpec
from hwsearch.errors import InputError
from hwsearch.space import Architecture, Choice, Option, SearchSpace
from hwsearch.supernets.checkpoint_files import read_weights
from hwsearch.supernets.checkpoints import leading_weight, match_state, parameter_digest
from hwsearch.supernets.conv_blocks import ConvNormAct, Piece, Shape
from hwsearch.supernets.interface import Card, InputSpec
from hwsearch.supernets.module_costs import counted_macs
from hwsearch.supernets.state_fit import StateFit, fit_state
from hwsearch.supernets.weight_sources import bundled_card, bundled_file, seed_of

Chain = Iterable[tuple[str, Piece]]
_KEPT = 8192


@dataclass(frozen=True, kw_only=True)
class Design:
    """The structure of a supernet, without its weights.

    Attributes:
        space: Every choice.
        chain: Returns the pieces of an architecture in order, each with its module's dotted name,
            such as ``"stage1.block2"``; architectures share weights by name.
        input_spec: Returns the inputs and outputs of an architecture's subnet.
        defaults: Choices that a search fixes at one option unless a rule mentions them.
        kernels: All kernel sizes, ascending, if the choice ``BLOCK.kernel`` resizes the depthwise
            convolution of an inverted residual block by learned matrices. Each smaller kernel is
            the centre of the next larger one times the matrix ``BLOCK.depthwise.conv.7to5_matrix``
            and so on (Cai et al., "Once-for-All", ICLR 2020, section 3.3). Empty: the centre only.
        statistics: Whether checkpoints hold batch statistics, which subnets then start from.
    """

    space: SearchSpace
    chain: Callable[[Architecture], Chain]
    input_spec: Callable[[Architecture], InputSpec]
    defaults: Mapping[str, Option] = field(default_factory=dict)
    kernels: tuple[int, ...] = ()
    statistics: bool = False

    def links(self, arch: Architecture) -> list[tuple[str, Piece, Shape]]:
        """Return (name, piece, input shape) of every block of an architecture, in order."""
        (tensor,) = self.input_spec(arch).inputs
        links, shape = [], tensor.shape
        for name, piece in self.chain(arch):
            links.append((name, piece, shape))
            shape = piece_facts(piece, shape).output
        return links

    def module(
        self, arch: Architecture, build: Callable[[Piece, Shape], nn.Module] | None = None
    ) -> nn.Sequential:
        """Build the static network of an architecture, freshly initialised by default."""
        network = nn.Sequential()
        for name, piece, shape in self.links(arch):
            *parents, last = name.split(".")
            level: nn.Module = network
            for parent in parents:
                if parent not in level._modules:
                    level.add_module(parent, nn.Sequential())
                level = level.get_submodule(parent)
            level.add_module(last, piece.build(shape) if build is None else build(piece, shape))
        return network

    def shapes(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint without values (on device meta)."""
        network = self.module(self.space.largest()[0], template)
        # Equal blocks share a template, but have separate tensors in a checkpoint.
        tensors: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
        if self.statistics:
            buffers = network.named_buffers(remove_duplicate=False)
            tensors |= {name: b for name, b in buffers if b.is_floating_point()}
        return tensors | self._matrices("meta")

    def random_state(self, seed: int) -> dict[str, Tensor]:
        """Return seeded random weights: convolutions by He et al. (ICCV 2015).

        By fan-out, as for training; where the design has batch statistics, by fan-in, so that
        signals keep their size through untrained norms.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.module(self.space.largest()[0])
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if self.statistics:
                _keep_signals(network)
        held = network.state_dict()
        return {name: held[name] for name in self.shapes() if name in held} | self._matrices("cpu")

    def _matrices(self, device: str) -> dict[str, Tensor]:
        """Return an identity kernel matrix for every choice ``BLOCK.kernel``."""
        steps = list(zip(self.kernels[1:], self.kernels, strict=False))
        blocks = [
            choice.name.removesuffix(".kernel")
            for choice in self.space.choices
            if choice.name.endswith(".kernel")
        ]
        return {
            f"{block}.depthwise.conv.{large}to{small}_matrix": torch.eye(small**2, device=device)
            for block in blocks
            for large, small in steps
        }


@dataclass(frozen=True, slots=True)
class PieceFacts:
    """Spec, costs of one sample, output shape and tensors of a piece on inputs of one shape."""

    spec: BlockSpec
    macs: int
    params: int
    output: Shape
    tensors: tuple[tuple[str, Shape, torch.dtype], ...]


@lru_cache(maxsize=_KEPT)
def template(piece: Piece, shape: Shape) -> nn.Module:
    """Return a piece's shared module without values (on device meta)."""
    with torch.device("meta"):
        return piece.build(shape).eval()


@lru_cache(maxsize=_KEPT)
def piece_facts(piece: Piece, shape: Shape) -> PieceFacts:
    """Return the facts of a piece, from one sample passed through it on device meta."""
    module = template(piece, shape)
    macs, output = counted_macs(module, [torch.zeros((1, *shape), device="meta")])
    state = module.state_dict().items()
    names = sorted(each.name for each in fields(piece))  # type: ignore[arg-type]  # dataclasses
    hyperparameters = tuple((name, getattr(piece, name)) for name in names)
    return PieceFacts(
        spec=BlockSpec(kind=piece.kind, hyperparameters=hyperparameters, input_shape=shape),
        macs=macs,
        params=sum(parameter.numel() for parameter in module.parameters()),
        output=tuple(output.shape[1:]),
        tensors=tuple((name, tuple(each.shape), each.dtype) for name, each in state),
    )


def elastic_stage(
    stage: str, depths: Sequence[int], *, base: int = 0, **options: Sequence[Option]
) -> list[Choice]:
    """Return the choices of a stage: its depth, and options of every block.

    Args:
        stage: Prefix of the names: ``stage1`` gives ``stage1.depth``, ``stage1.block1.kernel``.
        depths: Options of the depth; a single one makes no choice.
        base: Number of blocks that the stage has beyond its depth.
        options: Per block: name and options of each choice, such as ``kernel=(3, 5, 7)``.
    """
    choices = [Choice(f"{stage}.depth", tuple(depths))] if len(depths) > 1 else []
    for block in range(1, base + max(depths) + 1):
        deep_enough = tuple(depth for depth in depths if base + depth >= block)
        always = len(deep_enough) == len(depths)
        condition = None if always else (f"{stage}.depth", deep_enough)
        choices += [
            Choice(f"{stage}.block{block}.{name}", tuple(values), condition)
            for name, values in options.items()
        ]
    return choices


class ChainNetwork:
    """A supernet of some design; ``state`` holds the full weights by name."""

    recalibrate: tuple[type[nn.Module], ...] = (nn.BatchNorm2d,)

    def __init__(self, design: Design, state: Mapping[str, Tensor], card: Card) -> None:
        self.design, self.state, self.card = design, dict(state), card
        self.space, self.defaults = design.space, design.defaults
        self.input_spec = design.input_spec
        self.digest = parameter_digest(self.state)

    def subnet(self, arch: Architecture) -> nn.Module:
        """Return the standalone network with copies of its inherited weights."""
        tensors = {name: tensor.clone() for name, tensor in self.tensors(arch).items()}
        return _filled(self.design.module(arch, template), tensors).eval()

    def tensors(self, arch: Architecture) -> dict[str, Tensor]:
        """Return the parameters and buffers of a subnet by name; they may share memory."""
        return {
            f"{block}.{name}": leading_weight(self.state, f"{block}.{name}", shape, dtype)
            for block, piece, input_shape in self.design.links(arch)
            for name, shape, dtype in piece_facts(piece, input_shape).tensors
        }

    def blocks(self, arch: Architecture) -> list[Block]:
        """Return the pieces in the order of the network, with their exact costs."""
        chain = []
        for name, piece, shape in self.design.links(arch):
            facts = piece_facts(piece, shape)
            chain.append(Block(name=name, spec=facts.spec, macs=facts.macs, params=facts.params))
        return chain


@dataclass(frozen=True, kw_only=True)
class ChainFamily:
    """A family of one design, as it is registered.

    Attributes:
        small: The miniature design, for tests.
        rename: Maps a key of a published checkpoint to ours; None for one that is not needed.
        weights: Where to get weights; leave it out where weights ship.
    """

    name: str
    summary: str
    design: Design
    small: Design
    rename: Callable[[str], str | None] = str
    weights: str = ""
    licence: str = "unknown"

    def load(self, checkpoint: str | None) -> ChainNetwork:
        """Load a checkpoint file, seeded random weights ("random:SEED"), or the shipped ones.

        Raises:
            InputError: The file is no safe checkpoint of this network, or no weights ship.
        """
        seed = seed_of(checkpoint)
        if seed is not None:
            card = self.card(f"seeded random weights ({checkpoint})")
            return ChainNetwork(self.design, self.design.random_state(seed), card)
        shipped = bundled_file(self.name, "weights.safetensors")
        if checkpoint is None and not shipped.is_file():
            raise InputError(
                f"supernet {self.name!r} ships no weights: give a checkpoint{self.weights}, or "
                "random:0 for seeded random weights (latency, MACs and export do not depend on "
                "weights; accuracies mean nothing then)"
            )
        path = shipped if checkpoint is None else checkpoint
        weights = read_weights(path)
        state = match_state(weights.state, self.design.shapes(), path, self.name, self.rename)
        if checkpoint is None:
            return ChainNetwork(self.design, state, bundled_card(self.name))
        return ChainNetwork(self.design, state, self.card(f"file {weights.source}"))

    def tiny(self, seed: int = 0) -> ChainNetwork:
        """Return a seeded miniature of the same structure."""
        return ChainNetwork(
            self.small, self.small.random_state(seed), self.card(f"tiny, random:{seed}")
        )

    def fit(self, state: Mapping[str, Tensor]) -> StateFit:
        """Compare the keys and shapes of a state dict with those of this family."""
        return fit_state(state, self.design.shapes(), self.rename)[0]

    def card(self, source: str) -> Card:
        """Return the card of weights from some source."""
        return Card(name=self.name, description=self.summary, licence=self.licence, source=source)


def _keep_signals(network: nn.Module) -> None:
    """Initialise convolutions by fan-in, so that the output still depends on the image.

    Residual branches are drawn smaller; what follows a gate is drawn larger, since a gate lets
    half through. Depthwise kernels count as 5x5, the middle of the sizes they are cut to.
    """
    for name, module in network.named_modules():
        if not isinstance(module, ConvNormAct):
            continue
        weight = module.get_parameter("conv.weight")
        fan_in = weight[0].numel() if weight.shape[1] > 1 else min(weight[0].numel(), 25)
        gain = 2.0 if "act" in module._modules else 0.5
        block = network.get_submodule(name.rpartition(".")[0])
        gated = name.endswith(".project") and getattr(block, "se", None) is not None
        nn.init.normal_(weight, std=math.sqrt((2.0 if gated else 1.0) * gain / fan_in))


def _filled(empty: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "") -> nn.Module:
    """Copy a module tree and fill in tensors: five times as fast as building and loading."""
    module = copy(empty)
    for name, value in vars(module).items():
        if isinstance(value, dict | set):  # such as hooks, which belong to one copy
            module.__dict__[name] = copy(value)
    module._parameters = {
        name: None if p is None else nn.Parameter(tensors[prefix + name], p.requires_grad)
        for name, p in empty._parameters.items()
    }
    module._buffers = {
        name: None if b is None else tensors[prefix + name] for name, b in empty._buffers.items()
    }
    module._modules = {
        name: None if child is None else _filled(child, tensors, f"{prefix}{name}.")
        for name, child in empty._modules.items()
    }
    return module
