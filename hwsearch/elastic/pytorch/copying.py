"""Copies of PyTorch modules to export and to cut: float32, in eval mode, without wrappers."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from hwsearch.errors import InputError

# Methods of modules that have parallel branches in training, and merge them into one layer.
_MERGING = ("reparameterize", "switch_to_deploy", "reparam", "convert_to_deploy")


def plain_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module in eval mode, in float32 and on the CPU.

    Wrappers (``DataParallel``, ``torch.compile``) are left out, and parametrisations, weight norm
    and spectral norm are replaced by the weights that they give. Parameters that are used twice
    stay shared.

    Raises:
        InputError: It is no module, has no weights or quantised ones, or cannot be copied.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"a {type(module).__name__} is no torch.nn.Module; give the module itself, not its "
            "state dict or a class"
        )
    inner = unwrapped(module)
    _check_weights(inner)
    try:
        copied = copy.deepcopy(inner)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"module {type(inner).__name__} cannot be copied: {first_line(error)}. It may hold "
            "the results of a forward pass or open files; load it anew and give it unused"
        ) from error
    _remove_parametrisations(copied)
    return copied.cpu().float().eval()


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module in wrappers for several devices, averaging and compilation."""
    while True:
        compiled = getattr(module, "_orig_mod", None)
        is_wrapper = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = module.module if is_wrapper else compiled
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def unmerged(module: nn.Module) -> list[str]:
    """Return the names of modules with parallel branches that could be one layer (RepVGG)."""
    return [
        name
        for name, each in module.named_modules()
        if any(callable(getattr(each, method, None)) for method in _MERGING)
        and not _is_merged(each)
    ]


def _is_merged(module: nn.Module) -> bool:
    """Return whether a module that merges branches has done so: one layer with weights is left."""
    return sum(1 for each in module.children() if any(True for _ in each.parameters())) <= 1


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _check_weights(module: nn.Module) -> None:
    what = f"module {type(module).__name__}"
    if not any(True for _ in module.parameters()) and not _has_packed(module.modules()):
        raise InputError(f"{what} has no parameters, so there is nothing in it to remove")
    for name, tensor in _tensors(module):
        if is_lazy(tensor):
            raise InputError(
                f"{what}: parameter {name!r} gets its shape in the first forward pass; run the "
                "module once on the example inputs, and load its weights"
            )
        if tensor.is_meta:
            raise InputError(f"{what}: {name!r} is on the device 'meta': load its weights first")
    if _has_packed(module.modules()) or any(t.is_quantized for _, t in _tensors(module)):
        raise InputError(
            f"{what} is quantised; give the float module. hwsearch quantises what it finds: "
            "precision int8"
        )
    pruned = next((name for name, _ in module.named_buffers() if name.endswith("weight_mask")), "")
    if pruned:
        raise InputError(
            f"{what} is masked by torch.nn.utils.prune ({pruned!r}); make the masks permanent "
            "first: torch.nn.utils.prune.remove(layer, 'weight')"
        )


def _has_packed(modules: Iterable[nn.Module]) -> bool:
    return any(hasattr(each, "_packed_params") for each in modules)


def _remove_parametrisations(module: nn.Module) -> None:
    """Replace all that computes a weight in forward by the weight."""
    for each in list(module.modules()):
        if parametrize.is_parametrized(each):
            # Removing changes the class, which copies of a module share.
            old = type(each)
            each.__class__ = type(old.__name__, old.__bases__, dict(vars(old)))
            for name in list(each.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(each, name, leave_parametrized=True)
        hooks: dict[int, Any] = each._forward_pre_hooks
        for number, hook in list(hooks.items()):
            # Of torch.nn.utils.weight_norm and spectral_norm, which set the weight before forward.
            if callable(getattr(hook, "compute_weight", None)) and hasattr(hook, "name"):
                hook.remove(each)
                del hooks[number]
