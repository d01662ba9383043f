"""Agreement of a canonical model with the one that was given, on random inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.elastic.canonical.constants import RANDOM

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Model: TypeAlias = Callable[[Arrays], Arrays]
# Equal up to rounding is not equal for these: what follows from them can be another sample's.
_UNSTABLE = RANDOM | {"ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "TopK", "Unique"}
_FEW = 0.01  # share of integers that may differ: places of equal scores


def differences(found: Arrays, expected: Arrays) -> dict[str, float]:
    """Return max|a - b| / max|b| of each output; infinite for other shapes.

    NaN equals NaN. Of integers and truth values it is the share that differs, 0 below 1%.
    """
    return {name: _differs(found[name], array) for name, array in expected.items()}


def largest(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the larger difference of each output of either."""
    return {n: max(first.get(n, 0.0), second.get(n, 0.0)) for n in {**first, **second}}


def unstable_values(graph: ir.Graph) -> tuple[set[str], list[str]]:
    """Return values that depend on an order or on chance, and what the first of their nodes read.

    Boxes that are sorted by their scores are such values.
    """
    unstable: set[ir.Value] = set()
    read: dict[str, None] = {}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        is_late = not unstable.isdisjoint(inputs)
        if is_late or node.op_type in _UNSTABLE:
            unstable.update(node.outputs)
        if node.op_type in _UNSTABLE and not is_late:
            read.update({str(v.name): None for v in inputs if v.producer() is not None})
    return {str(value.name) for value in unstable}, list(read)


def _differs(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        share = float(np.mean(found != expected)) if expected.size else 0.0
        return share if share > _FEW else 0.0
    a, b = found.astype(np.float64), expected.astype(np.float64)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    if equal.all():
        return 0.0
    if not (np.isfinite(a[~equal]).all() and np.isfinite(b[~equal]).all()):
        return float("inf")
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return float(np.abs(a - b)[~equal].max()) / max(largest, 1e-30)


def batch_differences(
    given: Model,
    canonical: Model,
    samples: Sequence[Arrays],
    batched_inputs: Sequence[str],
    batched_outputs: Sequence[str],
    *,
    whole: bool,
) -> dict[str, float]:
    """Compare the canonical model on a batch of samples with the given one on each.

    ``whole``: the given model takes batches too. Outputs that are not among the batched ones are
    compared with its own for the batch, if it takes one.
    """
    stacked = {
        name: np.concatenate([each[name] for each in samples])
        if name in batched_inputs
        else samples[0][name]
        for name in samples[0]
    }
    found = canonical(stacked)
    expected = [given({**each, **_shared(samples[0], batched_inputs)}) for each in samples]
    joined = {n: np.concatenate([each[n] for each in expected]) for n in batched_outputs}
    if whole and len(batched_outputs) < len(found):
        rest = given(stacked)
        joined |= {name: rest[name] for name in found if name not in batched_outputs}
    return differences(found, joined)


def _shared(sample: Arrays, batched: Sequence[str]) -> Arrays:
    return {name: array for name, array in sample.items() if name not in batched}
