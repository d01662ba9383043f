"""Miniature networks of the usual kinds, and their exports."""

import io
import warnings

import onnx
import torch
from torch import nn
from torch.nn import functional


def with_statistics(module, seed=0):
    """Give batch norms statistics and parameters that matter."""
    generator = torch.Generator().manual_seed(seed)
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            for tensor, low in (
                (each.running_mean, -0.5), (each.running_var, 0.5), (each.weight, 0.5),
                (each.bias, -0.5),
            ):  # fmt: skip
                if tensor is not None:
                    tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module.eval()


class Residual(nn.Module):
    """Convolutions with norms, a shortcut, squeeze and excitation, a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        y = functional.relu6(self.depthwise(self.expand(x)))
        gate = functional.adaptive_avg_pool2d(y, 1)
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(gate))))
        x = x + self.norm(self.project(y * gate))
        return self.head(self.drop(x.mean((2, 3))))


class Dense(nn.Module):
    """Norms before convolutions, concatenation, a channel shuffle, norms of linear layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.before = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.linear = nn.Linear(16, 12, bias=False)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.first(x)
        y = self.second(functional.relu(self.before(x)))
        x = torch.cat([x, y], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = functional.max_pool2d(x, 2).chunk(2, 1)
        x = torch.cat([left, right * 2], 1).mean((2, 3))
        return self.head(functional.relu(self.norm(self.linear(x))))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, attention written out."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.project = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 2, 8).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1)
        x = x + self.project((a @ v).transpose(1, 2).reshape(b, n, c))
        return self.head((x + self.mlp(self.norm2(x)))[:, 0])


class Encoder(nn.Module):
    """Tokens and a mask, attention as in BERT, tied weights, two outputs."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(50, 16), nn.Embedding(40, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.project, self.norm1, self.norm2 = (
            nn.Linear(16, 16),
            nn.LayerNorm(16),
            nn.LayerNorm(16),
        )
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.decoder = nn.Linear(16, 50, bias=False)
        self.decoder.weight = self.words.weight

    def forward(self, ids, mask):
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        bias = (1 - mask[:, None, None, :].to(x.dtype)) * -1e4
        q, k, v = (
            each(x).view(*x.shape[:2], 2, 8).permute(0, 2, 1, 3)
            for each in (self.query, self.key, self.value)
        )
        a = (q @ k.transpose(-1, -2) / 8**0.5 + bias).softmax(-1) @ v
        a = a.permute(0, 2, 1, 3).contiguous()
        x = self.norm1(x + self.project(a.view(*a.shape[:2], 16)))
        x = self.norm2(x + self.mlp(x))
        return self.decoder(x), x[:, 0]


class Windows(nn.Module):
    """Attention within windows, which are merged with the batch."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, 2)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = torch.roll(x, (-1, -1), (1, 2))
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(x).view(x.shape[0], 16, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x.transpose(1, 2).reshape(-1, 16, c)
        x = x.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return self.head(x.mean((1, 2)))


class Segmentation(nn.Module):
    """Resizing, a transposed convolution with a norm, an output as large as the input."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.low = nn.Conv2d(8, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        half = functional.relu(self.down(x))
        low = functional.relu(self.low(half))
        low = functional.interpolate(low, size=half.shape[-2:], mode="bilinear")
        return self.head(functional.relu(self.norm(self.up(half + low))))


class Recurrent(nn.Module):
    """Convolution over time and an LSTM."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(6, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = self.norm(self.conv(x)).transpose(1, 2)
        return self.head(self.lstm(x)[0][:, -1])


class Layer(nn.Module):
    """Attention of PyTorch, whose shapes the older exporter writes as numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)

    def forward(self, x):
        return self.layer(x)


def picture(size=32):
    return {"x": torch.randn(1, 3, size, size)}


MINIATURES = {
    "residual": (Residual, picture()),
    "dense": (Dense, picture(16)),
    "transformer": (VisionTransformer, picture()),
    "windows": (Windows, picture()),
    "segmentation": (Segmentation, picture()),
    "recurrent": (Recurrent, {"x": torch.randn(1, 6, 12)}),
    "layer": (Layer, {"x": torch.randn(1, 9, 16)}),
    "encoder": (
        Encoder,
        {"ids": torch.randint(0, 50, (1, 9)), "mask": torch.ones(1, 9, dtype=torch.int64)},
    ),
}
# Axes that are symbolic beside the batch.
LENGTHS = {"encoder": {"ids": {1: "length"}, "mask": {1: "length"}}}


def build(name):
    """Return a miniature with random weights, and inputs for one sample."""
    torch.manual_seed(0)
    network, inputs = MINIATURES[name]
    return with_statistics(network()), inputs


def export(module, inputs, *, exporter="script", batch="symbolic", lengths=None, opset=17):
    """Export a network by PyTorch's older exporter (script) or its newer one (dynamo)."""
    axes = {name: {0: "batch"} if batch == "symbolic" else {} for name in inputs}
    for name, each in (lengths or {}).items():
        axes[name] |= each
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            return _dynamo(module, inputs, axes, batch, opset)
        buffer = io.BytesIO()
        torch.onnx.export(
            module, tuple(inputs.values()), buffer, dynamo=False, opset_version=opset,
            input_names=list(inputs), dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(module, inputs, axes, batch, opset):
    # A batch of 1 would be taken for a constant.
    doubled = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
    sample = doubled if batch == "symbolic" else inputs
    names = {name for each in axes.values() for name in each.values()}
    dims = {name: torch.export.Dim(name, min=1, max=4096) for name in names}
    shapes = {n: {axis: dims[d] for axis, d in each.items()} for n, each in axes.items()}
    program = torch.onnx.export(
        module, tuple(sample.values()), dynamo=True, opset_version=max(opset, 18),
        input_names=list(inputs), dynamic_shapes=tuple(shapes.values()), verbose=False,
    )  # fmt: skip
    return program.model_proto


def outputs_of(module, inputs):
    """Return a network's outputs as arrays."""
    with torch.no_grad():
        found = module(*inputs.values())
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]
