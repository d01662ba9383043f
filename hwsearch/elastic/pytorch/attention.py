"""Attention modules whose heads together are narrower than their input."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.errors import InputError

# Classes of attention whose forward cannot have fewer heads.
_UNCUTTABLE = ("ShiftedWindowAttentionV2",)


def refuse_uncuttable(attention: nn.Module, group: str) -> None:
    """Raise InputError for an attention whose own code cannot take fewer heads."""
    name = type(attention).__name__
    if name in _UNCUTTABLE:
        raise InputError(
            f"the module cannot be cut: {name} computes widths of heads and position biases in "
            f"forward, so it cannot have fewer heads. Freeze {group!r}, or use the exported ONNX "
            "model"
        )


class CutMultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with fewer heads than its width divided by theirs.

    It has the parameters of that class under the same names: ``in_proj_weight`` has 3 n d rows and
    ``out_proj.weight`` n d columns, for n heads of width d.
    """

    @classmethod
    def takes(cls, attention: nn.Module) -> bool:
        """Return whether a module is an attention that can be one of this class."""
        is_plain = type(attention) in (cls, nn.MultiheadAttention)
        return is_plain and attention.bias_k is None and not attention.add_zero_attn

    @classmethod
    def convert(cls, attention: nn.MultiheadAttention, heads: int) -> None:
        """Make an attention one that keeps so many heads, in place."""
        if not cls.takes(attention):
            raise InputError(
                f"the module cannot be cut: a {type(attention).__name__} of its own code, or with "
                "bias_k or add_zero_attn, keeps all heads. Freeze its heads, or use the exported "
                "ONNX model"
            )
        attention.__class__ = cls
        attention.num_heads = heads
        # Layers of torch.nn.TransformerEncoder have a path of their own for others.
        attention._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # noqa: ARG002 - a hint; the mask says it
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended values, and the attention weights if they are needed."""
        is_self = query is key and key is value
        is_single = query.dim() == 2
        if is_single:
            query, key, value = (each.unsqueeze(0) for each in (query, key, value))
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        if is_self and self.in_proj_weight is not None:
            projected = functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(
                3, -1
            )
        else:
            projected = tuple(
                functional.linear(each, weight, bias)
                for each, (weight, bias) in zip((query, key, value), self._parts(), strict=True)
            )
        q, k, v = (
            each.unflatten(-1, (self.num_heads, self.head_dim))  # type: ignore[no-untyped-call]
            for each in projected
        )
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / math.sqrt(self.head_dim)
        if attn_mask is not None:
            mask = attn_mask if attn_mask.dim() == 2 else self._per_head(attn_mask)
            scores = scores + _additive(mask, scores)
        if key_padding_mask is not None:
            padding = key_padding_mask.reshape(-1, 1, 1, key_padding_mask.shape[-1])
            scores = scores + _additive(padding, scores)
        weights = scores.softmax(-1)
        dropped = functional.dropout(weights, self.dropout, self.training)
        result: Tensor = self.out_proj((dropped @ v.transpose(1, 2)).transpose(1, 2).flatten(2))
        shown = weights.mean(1) if average_attn_weights else weights
        if is_single:
            result, shown = result.squeeze(0), shown.squeeze(0)
        elif not self.batch_first:
            result = result.transpose(0, 1)
        return result, shown if need_weights else None

    def _parts(self) -> list[tuple[Tensor, Tensor | None]]:
        joined: Any = self.in_proj_weight  # None if keys or values have another width
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = separate if joined is None else joined.chunk(3)
        bias: Any = self.in_proj_bias
        biases = [None] * 3 if bias is None else bias.chunk(3)
        return list(zip(weights, biases, strict=True))

    def _per_head(self, mask: Tensor) -> Tensor:
        """Return a mask of (batch x heads, queries, keys) by batch and head."""
        return mask.reshape(-1, self.num_heads, *mask.shape[1:])


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, float("-inf"))
    return mask.to(scores.dtype)
