"""Supernets: tensor, input and preprocessing specs, card, family, network, loaded supernet."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.blocks import Block
from hwsearch.errors import EvaluationError, HwsearchError, InputError
from hwsearch.quantities import exact_quantity
from hwsearch.restriction import one_or_several, restricted
from hwsearch.space import Architecture, Architectures, SearchSpace
from hwsearch.supernets.costs import ExactCosts, module_costs

RANDOM = "random:"
_CHAINS_KEPT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a subnet.

    Attributes:
        name: Its name in the ONNX file.
        shape: Shape without the batch.
        dtype: NumPy name of the element type (``"float32"``, ``"int64"``).
        high: For integer inputs, the exclusive upper bound of valid values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    high: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing:
    """Preprocessing of an RGB image: resize, centre crop, scale to [0, 1], normalise, NCHW.

    Attributes:
        resize: Length in pixels of the shorter side after resizing.
        crop: Side in pixels of the centre crop; the input's height and width.
        mean: Subtracted from each channel after scaling to [0, 1]; then ``std`` divides it.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str = "NCHW"
    colour: str = "RGB"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """Inputs and outputs of a subnet, and the preprocessing of its inputs.

    Attributes:
        inputs: In the order in which ``forward`` takes them.
        outputs: Names of what ``forward`` returns, in order.
        preprocessing: For images; None for inputs that are fed unchanged.
        classes: Names of the classes that the outputs score, if they do.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...] = ("logits",)
    preprocessing: ImagePreprocessing | None = None
    classes: tuple[str, ...] = ()

    def position(self, output: str) -> int | None:
        """Return the position of a declared output, or None; a single output matches any name."""
        if len(self.outputs) == 1:
            return 0
        return self.outputs.index(output) if output in self.outputs else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Name, origin and licence of a supernet and of its weights.

    Attributes:
        source: Where the weights come from.
        data: The training data.
        facts: Further facts, as JSON-ready values.
    """

    name: str
    description: str
    licence: str
    source: str
    data: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Network(Protocol):
    """A family's supernet: a search space and the subnets in it.

    ``recalibrate`` lists the module types whose batch statistics must be re-estimated for every
    subnet; it may be empty. Equal ``digest`` means equal weights. An optional attribute
    ``defaults`` maps choices to options that a search fixes unless a rule mentions them. An
    optional method ``tensors(arch)`` returns the parameters and buffers of a subnet by name, so
    that its ONNX model is made without building the subnet.
    """

    space: SearchSpace
    card: Card
    digest: str
    recalibrate: tuple[type[nn.Module], ...]

    def subnet(self, arch: Architecture) -> nn.Module:
        """Return the standalone network of an architecture, with its own copy of the weights.

        In eval mode no layer but its norms may mix samples, and several threads may call
        ``forward``, each with its own samples.
        """
        ...

    def input_spec(self, arch: Architecture) -> InputSpec:
        """Return the inputs and outputs of an architecture's subnet."""
        ...

    def blocks(self, arch: Architecture) -> list[Block] | None:
        """Return the same network as a chain of blocks, or None if it is no chain."""
        ...


class Family(Protocol):
    """An object registered by name in the entry-point group ``hwsearch.supernets``."""

    name: str
    summary: str

    def load(self, checkpoint: str | None) -> Network:
        """Load the supernet; None means the shipped checkpoint, if there is one."""
        ...

    def tiny(self, seed: int = 0) -> Network:
        """Return a seeded miniature of the same structure, for tests."""
        ...


class Supernet:
    """A loaded supernet: a family's network, restricted by rules, with its exact costs.

    Attributes:
        name: The name or ``module:function`` that it was loaded by.
        checkpoint: The given checkpoint, or None for the shipped one.
        space: The space to search: the full space restricted by rules and defaults.
        full_space: Every choice with all of its options.
        freeze: Its rules ``GLOB=VALUE``.
        only: Its rules ``GLOB in V1,V2``.
        digest: SHA-256 of its weights.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        checkpoint: str | None = None,
        *,
        freeze: Iterable[str] = (),
        only: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.network = network
        self.freeze, self.only = one_or_several(freeze), one_or_several(only)
        self.full_space = network.space
        defaults = getattr(network, "defaults", {})
        self.space = restricted(self.full_space, self.freeze, self.only, defaults)
        self.card = network.card
        self.digest = network.digest
        self.recalibrate = network.recalibrate
        self._chains: dict[str, list[Block] | None] = {}
        self._costs = ExactCosts(self._blocks, self._count)

    def __repr__(self) -> str:
        return f"Supernet({self.name!r}, {self.space.size:.3g} architectures)"

    @property
    def untrained(self) -> bool:
        """Return whether its weights are random, so that accuracies mean nothing."""
        return is_random(self.checkpoint)

    @property
    def family(self) -> str:
        """Return the registered name of its family, also for an imported checkpoint."""
        return str(self.card.facts.get("family", self.card.name))

    @property
    def weights(self) -> str:
        """Return an identifier of the weights: ``random:SEED``, or 16 digits of their digest."""
        return str(self.checkpoint) if self.untrained else self.digest[:16]

    def restrict(self, freeze: Iterable[str] = (), only: Iterable[str] = ()) -> "Supernet":
        """Return the same supernet with a part of its space.

        Args:
            freeze: Further rules such as ``"stage1.*=max"``.
            only: Further rules such as ``"resolution in 160,192,224"``; they apply before all of
                ``freeze``. See `hwsearch.restriction`.

        Raises:
            InputError: A rule is malformed, matches no choice, names a value that is no option,
                or leaves nothing.
        """
        return self.with_rules(
            (*self.freeze, *one_or_several(freeze)), (*self.only, *one_or_several(only))
        )

    def with_rules(self, freeze: tuple[str, ...], only: tuple[str, ...]) -> "Supernet":
        """Return the same supernet restricted by these rules alone."""
        if (freeze, only) == (self.freeze, self.only):
            return self
        net = Supernet(self.name, self.network, self.checkpoint, freeze=freeze, only=only)
        net._costs, net._chains = self._costs, self._chains
        return net

    def subnet(self, arch: Architecture) -> nn.Module:
        """Return the standalone network of an architecture, before its recalibration.

        Raises:
            InputError: The architecture belongs to another space.
        """
        return self.network.subnet(self._own(arch)).eval()

    def tensors(self, arch: Architecture) -> Mapping[str, Tensor] | None:
        """Return a subnet's parameters and buffers, maybe views of the supernet's, or None."""
        given: Callable[[Architecture], Mapping[str, Tensor]] | None = getattr(
            self.network, "tensors", None
        )
        return None if given is None else given(self._own(arch))

    def input_spec(self, arch: Architecture) -> InputSpec:
        """Return names, shapes and preprocessing of that subnet's inputs."""
        return self.network.input_spec(self._own(arch))

    def blocks(self, arch: Architecture) -> list[Block] | None:
        """Return the subnet as a chain of blocks, or None if it is none; cached."""
        own = self._own(arch)
        if own.key not in self._chains:
            if len(self._chains) >= _CHAINS_KEPT:
                self._chains.clear()
            self._chains[own.key] = self.network.blocks(own)
        chain = self._chains[own.key]
        return None if chain is None else list(chain)

    def exact(self, quantity: str, archs: Architectures) -> NDArray[Any]:
        """Return an exact quantity of n architectures for one sample: (n,).

        ``quantity`` is a computed one of `hwsearch.quantities`, such as ``"macs"``, ``"params"``,
        ``"bytes"``, ``"peak_memory"`` or ``"weight_traffic"``.

        Raises:
            InputError: No such quantity is registered.
            EvaluationError: The family cannot build one of the architectures.
        """
        found = exact_quantity(quantity)
        assert found.exact is not None
        self._check_own(archs.space, lambda: archs[0].key if len(archs) else "of an empty batch")
        return np.asarray(found.exact(self, archs))

    def count_macs(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the multiply-accumulates of n architectures for one sample: (n,)."""
        return self._costs.of(archs, 0)

    def count_params(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the numbers of learned parameters of n architectures: (n,)."""
        return self._costs.of(archs, 1)

    def _blocks(self, arch: Architecture) -> list[Block] | None:
        return self.network.blocks(self._full(arch))

    def _count(self, arch: Architecture) -> tuple[int, int]:
        try:
            blocks = self._blocks(arch)
            if blocks is None:
                full = self._full(arch)
                inputs = self.network.input_spec(full).inputs
                return module_costs(self.network.subnet(full).eval(), inputs)
            return sum(b.macs for b in blocks), sum(b.params for b in blocks)
        except HwsearchError:
            raise
        except Exception as error:
            # A third-party family may fail for some architectures.
            raise EvaluationError(
                f"the costs of {arch.key} cannot be computed: {type(error).__name__}: {error}"
            ) from error

    def _own(self, arch: Architecture) -> Architecture:
        """Return an architecture in the full space, which the family knows."""
        self._check_own(arch.space, lambda: arch.key)
        return self._full(arch)

    def _check_own(self, space: SearchSpace, key: Callable[[], str]) -> None:
        if space is not self.full_space and space not in (self.space, self.full_space):
            raise InputError(
                f"architecture {key()} belongs to another search space than {self.name!r}; "
                "build it with net.space.architectures(...)"
            )

    def _full(self, arch: Architecture) -> Architecture:
        return (
            arch if arch.space is self.full_space else Architecture(self.full_space, arch.mapping)
        )


def is_random(checkpoint: str | None) -> bool:
    """Return whether a checkpoint means seeded random weights."""
    return checkpoint is not None and checkpoint.startswith(RANDOM)
