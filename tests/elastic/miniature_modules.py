"""Miniature PyTorch modules of the kinds that users bring."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import SwinTransformer


class ResidualBlock(nn.Module):
    """The basic block of a ResNet, with batch norms and maybe a projection."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        return functional.relu(out)


class ResidualNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(ResidualBlock(8, 8), ResidualBlock(8, 8))
        self.layer2 = nn.Sequential(ResidualBlock(8, 16, 2), ResidualBlock(16, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class MobileNet(nn.Module):
    """Inverted residuals with depthwise convolutions and squeeze-and-excite."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.expand = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.Hardswish()
        )
        self.squeeze, self.excite = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        scale = self.excite(functional.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        y = y * functional.hardsigmoid(scale)
        return self.head((x + self.project(y)).mean((2, 3)))


class DenseNet(nn.Module):
    """Norms before convolutions, and concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.conv1(functional.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.conv2(functional.relu(self.norm2(x)))], 1)
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Attention with one matrix for queries, keys and values, as in timm."""

    def __init__(self, dim=16, heads=4):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, dim // heads, dim
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        samples, steps, _ = x.shape
        qkv = self.qkv(x).reshape(samples, steps, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(samples, steps, self.attn_dim))


class TransformerBlock(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim)
        self.norm2, self.fc1, self.fc2 = (
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        )  # fmt: skip

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16))
        self.blocks = nn.Sequential(TransformerBlock(), TransformerBlock())
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def window_transformer():
    """A Swin Transformer of one stage, with shifted windows."""
    return SwinTransformer([2, 2], 12, [2], [3], [2, 2], num_classes=5, stochastic_depth_prob=0.0)


@dataclass
class Encoded:
    """Output of `TextEncoder`."""

    last_hidden_state: Tensor
    pooled: Tensor | None = None
    extra: Tensor | None = None


class TextEncoder(nn.Module):
    """Tokens with a mask in, a dataclass out; the encoder layers are those of torch."""

    def __init__(self):
        super().__init__()
        self.embedding, self.position = nn.Embedding(30, 16), nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pool = nn.Linear(16, 16, bias=False)

    def forward(self, input_ids, attention_mask=None):
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.embedding(input_ids) + self.position(steps)
        padding = None if attention_mask is None else attention_mask == 0
        x = self.encoder(x, src_key_padding_mask=padding)
        return Encoded(last_hidden_state=x, pooled=torch.tanh(self.pool(x[:, 0])))


class TiedModel(nn.Module):
    """Embedding and output layer share a weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.hidden, self.back = nn.Linear(8, 24), nn.Linear(24, 8)
        self.output = nn.Linear(8, 30, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids)
        return self.output(x + self.back(functional.relu(self.hidden(x))))


def trained(build, seed=0):
    """Build a module with seeded weights and other batch statistics than at its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        for each in module.modules():
            if isinstance(each, nn.BatchNorm2d):
                each.running_mean.normal_(0, 0.3)
                each.running_var.uniform_(0.5, 2)
                nn.init.uniform_(each.weight, 0.5, 1.5)
                nn.init.normal_(each.bias, 0, 0.3)
    return module.eval()


def image(seed=0, side=16):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def text(length=7):
    ids = torch.randint(0, 30, (1, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
