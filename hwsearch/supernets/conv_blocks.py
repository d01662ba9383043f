"""Standard pieces of convolutional networks, the blocks of a chain.

A piece holds everything that decides a block except its input's shape; `build` returns the static
module for one input shape, so that pieces can follow one another in any order.
"""

import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, ...]
DIVISOR = 8
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}


class Piece(Protocol):
    """One block of a chain; a frozen dataclass, so that equal pieces are one block spec."""

    kind: ClassVar[str]

    def __hash__(self) -> int: ...

    def build(self, shape: Shape) -> nn.Module:
        """Return the module for inputs of a shape (without the batch), weights uninitialised."""
        ...


def make_divisible(channels: float, divisor: int = DIVISOR) -> int:
    """Round a channel count to a multiple, at most a tenth below it.

    Source: Howard et al., "MobileNets" (2017), as used by every later network of that line.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class Layers(nn.Sequential):
    """Named layers in order; a residual one adds its input."""

    def __init__(self, layers: dict[str, nn.Module], *, residual: bool = False) -> None:
        super().__init__(OrderedDict(layers))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h / stride, w / stride)."""
        y = x
        for layer in self:
            y = layer(y)
        return x + y if self.residual else y


class ConvNormAct(Layers):
    """A convolution, batch norm and activation."""

    def __init__(
        self,
        in_: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: str = "none",
        norm: bool = True,
        eps: float = 1e-5,
        residual: bool = False,
    ) -> None:
        conv = nn.Conv2d(in_, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        layers: dict[str, nn.Module] = {"conv": conv}
        if norm:
            layers["bn"] = nn.BatchNorm2d(out, eps=eps)
        if act != "none":
            layers["act"] = ACTIVATIONS[act]()
        super().__init__(layers, residual=residual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution with batch norm and activation.

    Attributes:
        kernel: Side of the kernel; the padding keeps the resolution at stride 1.
        act: ``"relu"``, ``"relu6"``, ``"hardswish"`` or ``"none"``.
        norm: Whether a batch norm follows the convolution.
        residual: Whether the input is added at the end, after the activation.
    """

    kind: ClassVar[str] = "conv"
    out: int
    kernel: int = 3
    stride: int = 1
    act: str = "relu"
    norm: bool = True
    residual: bool = False
    eps: float = 1e-5

    def build(self, shape: Shape) -> nn.Module:
        """Return the module for (channels, height, width) inputs."""
        return ConvNormAct(shape[0], **asdict(self))


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018), reduced by 4.

    The gate is a hard sigmoid (Howard et al., "Searching for MobileNetV3", ICCV 2019).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = make_divisible(channels // 4)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (n, c, h, w)."""
        squeezed = functional.adaptive_avg_pool2d(x, 1)
        gate: Tensor = self.expand(functional.relu(self.reduce(squeezed)))
        return x * functional.hardsigmoid(gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual:
    """An inverted residual block (Sandler et al., "MobileNetV2", CVPR 2018).

    The input is added where the stride is 1 and the width stays.

    Attributes:
        kernel: Side of the depthwise kernel.
        expand: Inner width over input width, rounded to a multiple of 8; 1 leaves the expanding
            convolution out.
        act: ``"relu"``, ``"relu6"`` or ``"hardswish"``.
        se: Whether a squeeze-and-excite gate follows the depthwise convolution.
    """

    kind: ClassVar[str] = "inverted_residual"
    out: int
    kernel: int = 3
    expand: float = 6
    stride: int = 1
    act: str = "relu6"
    se: bool = False
    eps: float = 1e-5

    def build(self, shape: Shape) -> nn.Module:
        """Return the module for (channels, height, width) inputs."""
        in_, inner = shape[0], make_divisible(round(shape[0] * self.expand))
        layers: dict[str, nn.Module] = {}
        if self.expand != 1:
            layers["expand"] = ConvNormAct(in_, inner, 1, act=self.act, eps=self.eps)
        layers["depthwise"] = ConvNormAct(
            inner, inner, self.kernel, stride=self.stride, groups=inner, act=self.act, eps=self.eps
        )
        if self.se:
            layers["se"] = SqueezeExcite(inner)
        layers["project"] = ConvNormAct(inner, self.out, 1, eps=self.eps)
        return Layers(layers, residual=self.stride == 1 and in_ == self.out)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions, added to the input or to its projection."""

    def __init__(self, in_: int, inner: int, piece: "Bottleneck") -> None:
        super().__init__()
        eps, stride = piece.eps, piece.stride
        self.conv1 = ConvNormAct(in_, inner, 1, act="relu", eps=eps)
        self.conv2 = ConvNormAct(inner, inner, 3, stride=stride, act="relu", eps=eps)
        self.conv3 = ConvNormAct(inner, piece.out, 1, eps=eps)
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else None
        projected = stride != 1 or in_ != piece.out
        self.downsample = ConvNormAct(in_, piece.out, 1, eps=eps) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h / stride, w / stride)."""
        y = self.conv3(self.conv2(self.conv1(x)))
        x = x if self.pool is None else self.pool(x)
        x = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """A bottleneck block of ResNet-D; ``expand`` is inner over output width, rounded to 8.

    He et al., "Deep Residual Learning" (CVPR 2016), with the average-pooled shortcut of He et al.,
    "Bag of Tricks for Image Classification" (CVPR 2019). The shortcut has a convolution where the
    stride is not 1 or the width changes.
    """

    kind: ClassVar[str] = "bottleneck"
    out: int
    expand: float = 0.25
    stride: int = 1
    eps: float = 1e-5

    def build(self, shape: Shape) -> nn.Module:
        """Return the module for (channels, height, width) inputs."""
        return BottleneckBlock(shape[0], make_divisible(round(self.out * self.expand)), self)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, width to inner and back, added to the block's input."""

    def __init__(self, width: int, inner: int, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=eps)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same shape."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(inner)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """A basic residual block (He et al., CVPR 2016) that keeps width and resolution."""

    kind: ClassVar[str] = "basic"
    inner: int
    eps: float = 1e-5

    def build(self, shape: Shape) -> nn.Module:
        """Return the module for (channels, height, width) inputs."""
        return BasicBlock(shape[0], self.inner, self.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """Max pooling; the padding is half the window's side."""

    kind: ClassVar[str] = "max_pool"
    window: int = 2
    stride: int = 2

    def build(self, shape: Shape) -> nn.Module:  # noqa: ARG002 - the same for every shape
        """Return the module for (channels, height, width) inputs."""
        padding = self.window // 2 if self.window % 2 else 0
        return nn.MaxPool2d(self.window, self.stride, padding=padding)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalPool:
    """Global average pooling to a 1x1 image."""

    kind: ClassVar[str] = "global_pool"

    def build(self, shape: Shape) -> nn.Module:  # noqa: ARG002 - the same for every shape
        """Return the module for (channels, height, width) inputs."""
        return nn.AdaptiveAvgPool2d(1)


class ImageLinear(nn.Linear):
    """A linear layer on the mean of every channel, or on all values if it does not pool."""

    def __init__(self, in_: int, out: int, *, pool: bool) -> None:
        super().__init__(in_, out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, out)."""
        pooled = functional.adaptive_avg_pool2d(x, 1) if self.pool else x
        return super().forward(pooled.flatten(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A linear classifier on channel means (``pool``) or on all values of the image."""

    kind: ClassVar[str] = "classifier"
    classes: int
    pool: bool = True

    def build(self, shape: Shape) -> nn.Module:
        """Return the module for (channels, height, width) inputs."""
        features = shape[0] if self.pool else math.prod(shape)
        return ImageLinear(features, self.classes, pool=self.pool)
