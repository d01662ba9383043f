"""Layers of a cut module: new tensors in place of the old ones, and attributes that follow."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.elastic.graph import Group, Structure
from hwsearch.elastic.pytorch.attention import CutMultiheadAttention, refuse_uncuttable
from hwsearch.elastic.pytorch.cut_weights import Changes
from hwsearch.elastic.pytorch.match import Matcher

# Attributes of attention modules: numbers of heads, and widths of all heads together.
_COUNTS = (
    "num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "nhead_", "h",
    "num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_q_heads",
)  # fmt: skip
_WIDTHS = (
    "all_head_size", "attn_dim", "inner_dim", "all_head_dim", "inner_size", "dim_inner", "dim",
    "embed_dim", "d_model", "hidden_size", "dim_out", "total_head_dim", "out_dim", "split_size",
)  # fmt: skip


def apply(module: nn.Module, changes: Changes) -> None:
    """Put new tensors into a module, and adjust the attributes of its layers to them."""
    places = _places(module)
    touched: dict[int, nn.Module] = {}
    replaced: dict[int, Any] = {}
    for entry, array in changes.entries.items():
        owner_name, _, name = entry.rpartition(".")
        old = getattr(module.get_submodule(owner_name), name)
        if id(old) in replaced:
            continue
        new: Tensor = torch.from_numpy(np.array(array))
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        replaced[id(old)] = old  # keeps the identity from being used again
        for owner, each in places[id(old)]:
            held = owner._parameters if each in owner._parameters else owner._buffers
            held[each] = new  # type: ignore[assignment]
            touched[id(owner)] = owner
    for owner_name, array in changes.added.items():
        owner = module.get_submodule(owner_name)
        owner.register_parameter("bias", nn.Parameter(torch.from_numpy(np.array(array))))
        touched[id(owner)] = owner
    named = {id(each): name for name, each in module.named_modules()}
    for owner in touched.values():
        adjust(owner, changes.groups.get(named[id(owner)]))


def _places(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Return tensor -> every module and name that holds it; tied weights have several."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for each in module.modules():
        for held in (each._parameters, each._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    found.setdefault(id(tensor), []).append((each, name))
    return found


def adjust(layer: Any, groups: int | None = None) -> None:
    """Set the attributes of a layer that repeat sizes of its tensors."""
    weight: Any = getattr(layer, "weight", None)
    if isinstance(layer, nn.modules.conv._ConvNd):
        layer.groups = layer.groups if groups is None else groups
        first, second = weight.shape[0], weight.shape[1] * layer.groups
        turned = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        layer.in_channels, layer.out_channels = (first, second) if turned else (second, first)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = weight.shape
    elif isinstance(layer, nn.GroupNorm):
        _adjust_groups(layer)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = weight.numel()
    elif getattr(layer, "running_mean", None) is not None:
        if hasattr(layer, "num_features"):
            layer.num_features = len(layer.running_mean)
    elif hasattr(layer, "normalized_shape") and weight is not None:
        layer.normalized_shape = tuple(weight.shape)


def _adjust_groups(norm: nn.GroupNorm) -> None:
    """Keep the channels in a group if whole groups were removed, else the number of groups."""
    channels, size = len(norm.weight), norm.num_channels // norm.num_groups
    if norm.num_groups not in (1, norm.num_channels) and channels % norm.num_groups:
        norm.num_groups = channels // size
    elif norm.num_groups == norm.num_channels:
        norm.num_groups = channels
    norm.num_channels = channels


def cut_heads(
    module: nn.Module,
    structure: Structure,
    matcher: Matcher,
    kept: Mapping[str, NDArray[np.bool_]],
    *,
    with_widths: bool,
) -> None:
    """Set the numbers of heads of attention modules, and the widths of all heads together.

    Args:
        module: Before or after its tensors are replaced.
        structure: Of the whole model.
        matcher: Of its weights and the module's.
        kept: Group -> its kept units, (size,) bool.
        with_widths: Whether attributes such as ``dim`` are the heads' width, where they have its
            value; they may be the width of the layer's input, which stays.

    Raises:
        InputError: An attention module's code cannot take fewer heads.
    """
    for group in structure.groups:
        if group.kind != "heads" or group.name not in kept:
            continue
        for attention in _attentions(module, matcher, group):
            size, count = group.size, int(kept[group.name].sum())
            if isinstance(attention, nn.MultiheadAttention):
                CutMultiheadAttention.convert(attention, count)
                continue
            if type(attention).__name__ == "ShiftedWindowAttention":
                from hwsearch.elastic.pytorch.windows import CutShiftedWindowAttention

                CutShiftedWindowAttention.convert(attention, count)
                continue
            refuse_uncuttable(attention, group.name)
            heads = [n for n in _COUNTS if _is_multiple(getattr(attention, n, None), size)]
            width = _width(attention, heads)
            for name in heads:
                setattr(attention, name, getattr(attention, name) * count // size)
            for name in _WIDTHS if with_widths else _WIDTHS[:5]:
                if getattr(attention, name, None) == width:
                    setattr(attention, name, width * count // size)


def _attentions(module: nn.Module, matcher: Matcher, group: Group) -> Iterable[Any]:
    """Return the modules that have a group's weights and a number of heads."""
    found: dict[int, Any] = {}
    modules: dict[str, Any] = dict(module.named_modules())
    for slot in group.slots:
        match = matcher.of(slot.weight)
        name = "" if match is None else match.entry.rpartition(".")[0]
        while name in modules and name:  # others are left out
            each = modules[name]
            if isinstance(each, nn.MultiheadAttention) or any(
                _is_multiple(getattr(each, count, None), group.size) for count in _COUNTS
            ):
                found[id(each)] = each
                break
            name = name.rpartition(".")[0]
    return found.values()


def _is_multiple(value: Any, size: int) -> bool:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return is_count and value > 0 and not value % size


def _width(attention: Any, heads: list[str]) -> int:
    """Return the width of all heads together, or 0 if it is not known."""
    count = max((getattr(attention, name) for name in heads), default=0)
    for name in ("attention_head_size", "head_dim", "attn_head_size", "dim_head", "dim_per_head"):
        size = getattr(attention, name, None)
        if isinstance(size, int):
            return size * count
    for names in (_WIDTHS[:5], _WIDTHS[5:]):
        found = [getattr(attention, name, None) for name in names]
        if sizes := [size for size in found if isinstance(size, int)]:
            return max(sizes)
    return 0
