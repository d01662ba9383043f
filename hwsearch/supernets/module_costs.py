"""MACs and parameters of a module, counted on one sample."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwsearch.supernets.interface import TensorSpec


def module_costs(module: nn.Module, inputs: Iterable[TensorSpec]) -> tuple[int, int]:
    """Return the MACs and the parameters of a module in eval mode for one sample.

    Convolutions, linear layers and matrix products count, one multiply-accumulate per product;
    biases, norms, activations and additions are free.
    """
    sample = [torch.zeros((1, *spec.shape), dtype=getattr(torch, spec.dtype)) for spec in inputs]
    macs, _ = counted_macs(module, sample)
    return macs, sum(p.numel() for p in module.parameters())


def counted_macs(module: nn.Module, sample: Sequence[Tensor]) -> tuple[int, Any]:
    """Run a module in eval mode (on device meta without computing); return MACs and its result."""
    # Imported late, because it loads slowly.
    from torch.utils.flop_counter import FlopCounterMode

    free = _ShapesOfFreeLayers()  # type: ignore[no-untyped-call]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, free:
        output = module(*sample)
    return counter.get_total_flops() // 2, output


class _ShapesOfFreeLayers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode: shapes of norms and activations on meta, which take torch milliseconds."""

    _ACTIVATIONS = frozenset(
        getattr(torch.ops.aten, name).default
        for name in ("relu", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu")
    )

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        is_norm = func is torch.ops.aten.native_batch_norm.default
        if (is_norm or func in self._ACTIVATIONS) and args[0].is_meta:
            alike = torch.empty_like(args[0])
            return (alike, args[0].new_empty(0), args[0].new_empty(0)) if is_norm else alike
        return func(*args, **(kwargs or {}))
