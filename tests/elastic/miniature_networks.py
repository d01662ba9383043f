"""Miniature networks of ten kinds, with random weights and statistics, as ONNX models."""

import io
import warnings

import onnx
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its common name

from tests.elastic.miniature_modules import ResidualBlock


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(ResidualBlock(8, 8), ResidualBlock(8, 8))
        self.layer2 = nn.Sequential(ResidualBlock(8, 12, 2), ResidualBlock(12, 12))
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class InvertedResidual(nn.Module):
    class Block(nn.Module):
        def __init__(self, inputs, hidden, outputs):
            super().__init__()
            self.expand = nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.BatchNorm2d(hidden))
            self.depthwise = nn.Sequential(
                nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden), nn.BatchNorm2d(hidden)
            )
            self.squeeze = nn.Conv2d(hidden, 4, 1)
            self.excite = nn.Conv2d(4, hidden, 1)
            self.project = nn.Conv2d(hidden, outputs, 1)
            self.same = inputs == outputs

        def forward(self, x):
            y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
            y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
            y = self.project(y)
            return x + y if self.same else y

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(
            self.Block(8, 16, 8), self.Block(8, 24, 12), self.Block(12, 24, 12)
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.blocks(F.relu6(self.stem(x))).mean([2, 3]))


class Dense(nn.Module):
    class Layer(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.norm = nn.BatchNorm2d(inputs)
            self.conv = nn.Conv2d(inputs, 6, 3, 1, 1)

        def forward(self, x):
            return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1), self.Layer(8), self.Layer(14), nn.BatchNorm2d(20),
            nn.Conv2d(20, 10, 1), nn.AvgPool2d(2), self.Layer(10), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.classifier = nn.Linear(16 * 4 * 4, 5)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).flatten(1))


class Shuffle(nn.Module):
    class Unit(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.branch = nn.Sequential(
                nn.Conv2d(width, width, 1), nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, groups=width),
                nn.Conv2d(width, width, 1), nn.ReLU(),
            )  # fmt: skip

        def forward(self, x):
            a, b = x.chunk(2, 1)
            y = torch.cat([a, self.branch(b)], 1)
            n, c, h, w = y.shape
            return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.stage = nn.Sequential(self.Unit(8), self.Unit(8), self.Unit(8))
        self.last = nn.Conv2d(16, 12, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(F.relu(self.last(self.stage(F.relu(self.stem(x))))).mean([2, 3]))


class Inception(nn.Module):
    class Block(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.one = nn.Conv2d(inputs, 4, 1)
            self.three = nn.Sequential(
                nn.Conv2d(inputs, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1)
            )
            self.five = nn.Sequential(
                nn.Conv2d(inputs, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, (1, 5), 1, (0, 2)),
                nn.Conv2d(6, 6, (5, 1), 1, (2, 0)),
            )  # fmt: skip
            self.pool = nn.Conv2d(inputs, 4, 1)

        def forward(self, x):
            pooled = self.pool(F.max_pool2d(x, 3, 1, 1))
            return F.relu(torch.cat([self.one(x), self.three(x), self.five(x), pooled], 1))

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.mixed = nn.Sequential(self.Block(8), self.Block(22))
        self.fc = nn.Linear(22, 5)

    def forward(self, x):
        return self.fc(self.mixed(F.relu(self.stem(x))).mean([2, 3]))


class Grouped(nn.Module):
    """Whole groups of the first grouped convolution, and channels within those of the second."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.many = nn.Conv2d(16, 32, 3, 1, 1, groups=8)
        self.mix = nn.Conv2d(32, 16, 1)
        self.few = nn.Conv2d(16, 24, 3, 1, 1, groups=4)
        self.up = nn.ConvTranspose2d(24, 8, 2, 2, groups=2)
        self.last = nn.ConvTranspose2d(8, 6, 3)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = F.relu(self.many(F.relu(self.stem(x))))
        return self.head(F.relu(self.last(F.relu(self.up(F.relu(self.few(F.relu(self.mix(x)))))))))


class Attention(nn.Module):
    """Multi-head attention with one projection for queries, keys and values."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class PreNorm(nn.Module):
    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm1 = nn.LayerNorm(width)
            self.attn = Attention(width, 4)
            self.norm2 = nn.LayerNorm(width)
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 24), "fc2": nn.Linear(24, width)})

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 16))
        self.patch_embed = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(self.Block(16), self.Block(16))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class PostNorm(nn.Module):
    class Layer(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.attention = nn.ModuleDict(
                {name: nn.Linear(width, width) for name in ("query", "key", "value", "output")}
            )
            self.norm1 = nn.LayerNorm(width)
            self.intermediate = nn.Linear(width, 24)
            self.output = nn.Linear(24, width)
            self.norm2 = nn.LayerNorm(width)

        def forward(self, x, mask):
            def heads(y):
                return y.view(y.shape[0], y.shape[1], 4, 4).permute(0, 2, 1, 3)

            q, k, v = (heads(self.attention[n](x)) for n in ("query", "key", "value"))
            scores = (q @ k.transpose(-1, -2)) / 2.0 + mask
            y = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
            y = y.view(y.shape[0], y.shape[1], 16)
            x = self.norm1(x + self.attention["output"](y))
            return self.norm2(x + self.output(F.gelu(self.intermediate(x))))

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.positions = nn.Embedding(8, 16)
        self.layer = nn.ModuleList([self.Layer(16) for _ in range(3)])
        self.classifier = nn.Linear(16, 2)

    def forward(self, ids, mask):
        extended = (1.0 - mask[:, None, None, :].float()) * -1e4
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))[None]
        for layer in self.layer:
            x = layer(x, extended)
        return self.classifier(x[:, 0])


class ChannelsLast(nn.Module):
    """Depthwise convolution, layer norm and layer scale, as in ConvNeXt."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.dwconv = nn.Conv2d(width, width, 3, 1, 1, groups=width)
            self.norm = nn.LayerNorm(width)
            self.pwconv1 = nn.Linear(width, 3 * width)
            self.pwconv2 = nn.Linear(3 * width, width)
            self.gamma = nn.Parameter(torch.ones(width))

        def forward(self, x):
            y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
            y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
            return x + y.permute(0, 3, 1, 2)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.stages = nn.Sequential(self.Block(8), self.Block(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean([2, 3]))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 12, 3, 1, 1)
        self.middle = nn.Conv2d(12, 16, 3, 1, 1)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 12, 2, 2), nn.Conv2d(24, 10, 3, 1, 1)
        self.out = nn.Conv2d(18, 6, 3, 1, 1)
        self.logits = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        c = F.relu(self.middle(F.max_pool2d(b, 2)))
        d = F.relu(self.up1(torch.cat([self.up2(c), b], 1)))
        d = F.interpolate(d, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.logits(F.relu(self.out(torch.cat([d, a], 1))))


IMAGE = (torch.zeros(2, 3, 8, 8),)
TEXT = (torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64))
NETWORKS = {
    "residual": (Residual, IMAGE),
    "inverted residual": (InvertedResidual, IMAGE),
    "dense": (Dense, IMAGE),
    "shuffle": (Shuffle, IMAGE),
    "inception": (Inception, IMAGE),
    "grouped": (Grouped, IMAGE),
    "pre-norm": (PreNorm, IMAGE),
    "post-norm": (PostNorm, TEXT),
    "channels last": (ChannelsLast, IMAGE),
    "u-net": (UNet, IMAGE),
}


def randomised(network, seed=0):
    """Draw parameters and statistics, so that a wrong slice of any shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim == 1:
                tensor.copy_(0.5 + 0.5 * noise)
            else:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
    return network.eval()


def exported(network, example, **options):
    """Trace a network with a symbolic batch."""
    names = [f"input{number}" for number in range(len(example))]
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, content, dynamo=False, opset_version=17, input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names}, **options,
        )  # fmt: skip
    return onnx.load_from_string(content.getvalue())


def miniature(name):
    """Return a miniature as an ONNX model."""
    make, example = NETWORKS[name]
    torch.manual_seed(0)
    return exported(randomised(make()), example)
