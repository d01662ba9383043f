"""A seeded probe input and the model's output for it, kept in the card.

With it an ONNX file can be checked from the exported files alone, without data, supernet and
PyTorch. The output is that of the PyTorch subnet for a float32 file, else that of the file itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.errors import InputError
from hwsearch.supernets.interface import TensorSpec

BATCH = 2
# Between float32 and PyTorch, and between two runtimes or processors. float16 is rounded in other
# places by each. In int8 a last bit can move an activation by a whole step, which the layers after
# it carry on: ONNX Runtime and OpenVINO differed by up to 6%, two builds of one runtime by 2%.
TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-1}
TOLERANCE = TOLERANCES["fp32"]


def probe_inputs(
    tensors: Sequence[TensorSpec], seed: int = 0, samples: int = BATCH
) -> dict[str, NDArray[Any]]:
    """Draw samples of every input: standard normal, or integers below the input's bound."""
    rng = np.random.default_rng(seed)
    return {tensor.name: _draw(tensor, samples, rng) for tensor in tensors}


def _draw(tensor: TensorSpec, samples: int, rng: np.random.Generator) -> NDArray[Any]:
    shape = (samples, *tensor.shape)
    if np.issubdtype(np.dtype(tensor.dtype), np.integer):
        return rng.integers(0, tensor.high or 2, size=shape).astype(tensor.dtype)
    return rng.standard_normal(shape).astype(tensor.dtype)


def torch_outputs(
    subnet: nn.Module, inputs: dict[str, NDArray[Any]], names: Sequence[str] | None = None
) -> list[NDArray[Any]]:
    """Run a network in eval mode; return the outputs of these names, or else all of a sequence."""
    with torch.no_grad():
        outputs = subnet.eval()(*(torch.from_numpy(array) for array in inputs.values()))
    if names is not None:
        outputs = tuple(declared_outputs(outputs, names).values())
    listed = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [output.numpy() for output in listed]


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


def disagreement(ours: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> float:
    """Return ``max|a - b| / max|b|``, the largest over the outputs; infinite for other shapes."""
    if [a.shape for a in ours] != [b.shape for b in reference]:
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, reference, strict=True):
        difference = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
        largest = float(np.abs(b).max(initial=0.0))
        relative = difference / largest if largest else difference
        # Not finite when either holds NaN, which max() would pass over.
        worst = max(worst, relative) if np.isfinite(relative) else float("inf")
    return worst


def labels_agree(
    ours: NDArray[Any], reference: NDArray[Any], tolerance: float = TOLERANCE
) -> NDArray[np.bool_]:
    """Return for each sample whether both (n, classes) scores have the same label, up to ties.

    ``tolerance`` of a tie is relative to the largest absolute reference score.
    """
    rows = np.arange(len(ours))
    mine, theirs = ours.argmax(axis=1), reference.argmax(axis=1)
    margin = np.abs(reference[rows, theirs] - reference[rows, mine])
    agree: NDArray[np.bool_] = (mine == theirs) | (margin <= tolerance * np.abs(reference).max())
    return agree
