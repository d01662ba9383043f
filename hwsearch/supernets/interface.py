"""Interface of supernet families: input specs, card, network, family."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import nn

from hwsearch.blocks import Block
from hwsearch.space import Architecture, SearchSpace


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
