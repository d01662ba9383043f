"""Outputs of a subnet that is a PyTorch module, by their declared names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.errors import InputError


def torch_outputs(
    subnet: nn.Module, inputs: dict[str, NDArray[Any]], names: Sequence[str] | None = None
) -> list[NDArray[Any]]:
    """Run a network in eval mode; return the outputs of these names, or else all of a sequence."""
    if names is not None:
        return module_run(subnet, inputs)(names)
    outputs = _result(subnet, inputs)
    listed = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [output.numpy() for output in listed]


def module_run(
    subnet: nn.Module, inputs: dict[str, NDArray[Any]]
) -> Callable[[Sequence[str]], list[NDArray[Any]]]:
    """Run a network in eval mode; return a function from declared names to its outputs.

    The function raises InputError as `declared_outputs` does.
    """
    result = _result(subnet, inputs)
    return lambda names: [each.numpy() for each in declared_outputs(result, names).values()]


def _result(subnet: nn.Module, inputs: dict[str, NDArray[Any]]) -> Any:
    with torch.no_grad():
        return subnet.eval()(*(torch.from_numpy(array) for array in inputs.values()))


def declared_outputs(result: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the result of ``forward`` by name, in the declared order.

    A mapping and a named tuple are read by name, and may hold more than is declared; a tensor, a
    tuple and a list by position, and hold as many as are declared. Else raise InputError.
    """
    fields = getattr(result, "_fields", None)
    if fields is not None and set(names) <= set(fields):
        result = dict(zip(fields, result, strict=True))
    if isinstance(result, Mapping):
        lacking = [name for name in names if name not in result]
        if lacking:
            raise InputError(
                f"forward returns {', '.join(map(str, result))}, but input_spec names the outputs "
                f"{', '.join(names)}; make the names agree"
            )
        found = {name: result[name] for name in names}
    else:
        listed = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(listed) != len(names):
            raise InputError(
                f"forward returns {len(listed)} outputs, but input_spec names {len(names)}: "
                f"{', '.join(names)}; name all of them in order, or return a dict"
            )
        found = dict(zip(names, listed, strict=True))
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"output {name!r} of forward is a {type(value).__name__}, not a tensor; return "
                "tensors only, in a dict or in the order of input_spec.outputs"
            )
    return found
