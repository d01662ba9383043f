"""Interface of supernet families: input specs, card, network, family."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hwsearch.blocks import Block
from hwsearch.space import Architecture, Architectures, SearchSpace

if TYPE_CHECKING:
    import onnx
    from torch import nn


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
    recalibrate: "tuple[type[nn.Module], ...]"

    def subnet(self, arch: Architecture) -> "nn.Module":
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


class OnnxNetwork(Protocol):
    """A supernet that writes the ONNX models of its subnets itself, such as an elastic model.

    Its subnets are no PyTorch modules, and a search of it does not load PyTorch. ``space``,
    ``card``, ``digest``, ``defaults`` and ``input_spec`` are as in `Network`.

    Optional methods:

    - ``reference_models(arch)`` returns two float32 models that have to agree within
      `hwsearch.verify.slicing.SLICING_TOLERANCE`: the subnet before repair, whose graph is that
      of ``onnx_model(arch)``, and the given model with zeros in the weights that read what is
      removed; or None where such zeros do something else.
    - ``named_weights(model)`` returns the learned numbers of a subnet's model as arrays under the
      names that they have in the given model.
    - ``refined(arch, batches)`` returns the model of a subnet with better weights in the same
      graph; inputs in ``batches``, by name, are samples that nothing is scored on.
    - ``weighted_blocks(arch)`` returns the names of the blocks of a subnet that have weights, and
      ``node_blocks`` is the block of each node of any subnet: blocks may have a precision of
      their own.
    - ``expected_loss`` is None, or tells without a run how much quality n architectures lose, in
      any unit: positive numbers (n,). Searches learn from it.
    - ``path(space)`` returns None, or architectures of a part of the space that are worth
      evaluating first, from the largest to the smallest.
    - ``uniform(space)`` returns architectures whose widths all keep about the same share, from the
      largest to the smallest; searches are compared with them.
    """

    space: SearchSpace
    card: Card
    digest: str

    def input_spec(self, arch: Architecture) -> InputSpec:
        """Return the inputs and outputs of an architecture's subnet."""
        ...

    def onnx_model(self, arch: Architecture) -> "onnx.ModelProto":
        """Return the float32 model of a subnet, a new one each time, with a dynamic batch.

        Samples may not mix; equal architectures have equal models.
        """
        ...

    def macs(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the multiply-accumulates of n architectures for one sample: (n,)."""
        ...

    def params(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the numbers of learned parameters of n architectures: (n,).

        They are those of their models, as `hwsearch.models.agreement.count_params` counts them.
        """
        ...


def writes_onnx(network: object) -> TypeGuard[OnnxNetwork]:
    """Return whether a network writes the ONNX models of its subnets itself."""
    return hasattr(network, "onnx_model")


def of_modules(network: Network | OnnxNetwork) -> TypeGuard[Network]:
    """Return whether the subnets of a network are PyTorch modules."""
    return not writes_onnx(network)


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
