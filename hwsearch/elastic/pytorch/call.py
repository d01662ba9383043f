"""Calls of a PyTorch module with tensors by name, and its outputs by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.errors import InputError


class ModuleCall:
    """How a module is called, after its example inputs.

    Args:
        module: In eval mode.
        inputs: A tensor, a sequence of positional arguments, or a mapping of keyword arguments.
            Arguments may be nested; what is no tensor in them is a constant.

    Attributes:
        inputs: Name -> example. Names are those of the arguments, ``NAME_KEY`` for nested ones.
        outputs: Names of the output tensors: the keys of a mapping, ``output`` for one tensor,
            ``output0``, ``output1`` and so on for a sequence. Entries that are None have none.
        batch: Samples in the example inputs.

    Raises:
        InputError: The inputs hold no tensor or have no batch in common, forward fails with them,
            or an output is no tensor.
    """

    def __init__(self, module: nn.Module, inputs: Any) -> None:
        self._args, self._kwargs = _arguments(inputs)
        given = _argument_names(module, len(self._args))
        named = [*zip(given, self._args, strict=True), *self._kwargs.items()]
        taken = set(module.state_dict())
        self.inputs: dict[str, Tensor] = {}
        for name, leaf in (pair for key, value in named for pair in leaves(value, str(key))):
            if isinstance(leaf, Tensor):
                self.inputs[_unique(name, taken)] = leaf.detach().cpu()
        self.batch = self._batch(module)
        results = [pair for pair in self._first_results(module) if pair[1] is not None]
        taken |= set(self.inputs)
        self.outputs = tuple(_unique(name or "output", taken) for name, _ in results)
        odd = next(((n, v) for n, v in results if not isinstance(v, Tensor)), None)
        what = type(module).__name__
        if odd is not None:
            raise InputError(
                f"module {what}: output {odd[0] or 'output'!r} is a {type(odd[1]).__name__}, no "
                "tensor; wrap the module in one whose forward returns tensors alone"
            )
        if not results:
            raise InputError(f"module {what} returns no tensor, but None")

    def __call__(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a module of the same signature; return its output tensors by name."""
        found = [value for _, value in self._results(module, tensors) if value is not None]
        return dict(zip(self.outputs, found, strict=True))

    def flat(self, forward: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
        """Return forward as a function of the input tensors that returns the output tensors."""
        names = list(self.inputs)

        def flattened(*tensors: Tensor) -> tuple[Tensor, ...]:
            args, kwargs = self._filled(dict(zip(names, tensors, strict=True)))
            return tuple(
                value for _, value in leaves(forward(*args, **kwargs)) if value is not None
            )

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(f"input{i}", kind) for i in range(len(names))]
        flattened.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return flattened

    def examples(
        self, samples: int, sizes: Mapping[tuple[str, int], int] | None = None
    ) -> dict[str, Tensor]:
        """Return example inputs of another number of samples, and of other sizes of axes.

        Args:
            samples: Of the batch; floating-point samples differ from each other.
            sizes: (input, axis) -> size. What is there is repeated along the axis.
        """
        made = {}
        for name, tensor in self.inputs.items():
            for (input_, axis), size in (sizes or {}).items():
                if input_ == name:
                    tensor = _resized(tensor, axis, size)
            tensor = _resized(tensor, 0, samples)
            if tensor.is_floating_point():
                steps = 1 + 0.1 * torch.arange(samples, dtype=tensor.dtype)
                tensor = tensor * steps.reshape(-1, *[1] * (tensor.ndim - 1))
            made[name] = tensor.contiguous()
        return made

    def _results(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> list[tuple[str, Any]]:
        args, kwargs = self._filled(tensors)
        with torch.no_grad():
            return list(leaves(module(*args, **kwargs)))

    def _filled(self, tensors: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments with these tensors in place of the examples."""
        remaining = iter([tensors[name] for name in self.inputs])
        args = tuple(_replaced(value, remaining) for value in self._args)
        return args, {key: _replaced(value, remaining) for key, value in self._kwargs.items()}

    def _batch(self, module: nn.Module) -> int:
        """Return the number of samples that all inputs have."""
        what = f"module {type(module).__name__}"
        if not self.inputs:
            raise InputError(f"{what}: the example inputs hold no tensor; give one per argument")
        scalar = next((name for name, tensor in self.inputs.items() if tensor.ndim == 0), None)
        if scalar is not None:
            raise InputError(
                f"{what}: example input {scalar!r} is a tensor without axes; give a Python "
                "number, which is a constant, or a tensor whose first axis is the batch"
            )
        batches = {name: tensor.shape[0] for name, tensor in self.inputs.items()}
        if len(set(batches.values())) > 1 or not min(batches.values()):
            sizes = ", ".join(f"{name} {size}" for name, size in batches.items())
            raise InputError(
                f"{what}: the first axis of every example input is the batch, but they have "
                f"{sizes} samples; give as many of each, at least one"
            )
        return batches[next(iter(batches))]

    def _first_results(self, module: nn.Module) -> list[tuple[str, Any]]:
        try:
            return self._results(module, self.inputs)
        except Exception as error:
            # The module is the user's: any exception in it is an error in the user's input.
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in self.inputs.items())
            raise InputError(
                f"module {type(module).__name__} does not take the example inputs {shapes}: "
                f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
            ) from error


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all that is no container in nested arguments or results, with its name."""
    items = _items(value)
    if items is None:
        yield name, value
        return
    is_list = isinstance(value, Sequence) and not hasattr(value, "_fields")
    for key, each in items:
        joined = f"{name}_{key}" if name else (f"output{key}" if is_list else str(key))
        yield from leaves(each, joined)


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    """Return keys and values of a container, or None for other values."""
    if isinstance(value, Mapping):
        return list(value.items())
    names = getattr(value, "_fields", None)
    if isinstance(value, tuple) and names is not None:
        return list(zip(names, value, strict=True))
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    return None


def _replaced(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a nested argument with its tensors replaced in order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Mapping):
        return {key: _replaced(each, tensors) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replaced(each, tensors) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_replaced(each, tensors) for each in value)
    return value


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), {str(key): value for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    raise InputError(
        f"example inputs are a {type(inputs).__name__}; give a tensor, a tuple of positional "
        "arguments, or a dict of keyword arguments"
    )


def _argument_names(module: nn.Module, n_args: int) -> list[str]:
    """Return the names of the first positional arguments of forward."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # of a script module
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in kinds][:n_args]
    rest = range(len(names), n_args)
    return names + [f"input{number}" if n_args > 1 else "input" for number in rest]


def _unique(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _resized(tensor: Tensor, axis: int, size: int) -> Tensor:
    repeats = -(-size // tensor.shape[axis])
    return torch.cat([tensor] * repeats, axis).narrow(axis, 0, size)
