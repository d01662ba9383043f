"""Inputs that a model is compared with: samples, or random ones that move its outputs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hwsearch.elastic.analysis.sample_axes import random_inputs
from hwsearch.errors import EvaluationError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Model: TypeAlias = Callable[[Arrays], Arrays]
_SCALES = (1.0, 10.0, 0.1, 100.0)  # of random inputs: pixels from 0 to 255 saturate few models
_MOVED = 1e-4  # of the largest number of an output


class Feed:
    """Inputs of any shapes.

    Attributes:
        samples: Input -> samples, the first axis counts them; others than these are random.
        scale: Of random numbers.
        unmoved: Outputs of the given model that no inputs changed: they prove nothing.
    """

    def __init__(self, samples: Arrays | None = None) -> None:
        self.samples = dict(samples or {})
        self.scale = _SCALES[0]
        self.unmoved: tuple[str, ...] = ()

    def __call__(self, model: ir.Model, shapes: Shapes, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Return inputs of these shapes; samples are cut or repeated to fit them."""
        drawn = random_inputs(model, shapes, seed)
        for name, array in drawn.items():
            sample = self.samples.get(name)
            if sample is not None and sample.size and sample.ndim == array.ndim:
                first = seed * array.shape[0] if array.ndim else 0
                drawn[name] = _fitted(sample, array.shape, first).astype(array.dtype)
            elif array.dtype.kind == "f":
                drawn[name] = (array * self.scale).astype(array.dtype)
        return drawn

    def settle(self, given: Model, model: ir.Model, shapes: Shapes) -> None:
        """Choose what moves all outputs of a model, or else most of them.

        Raises:
            EvaluationError: The model runs with none of the inputs.
        """
        choices: list[tuple[dict[str, NDArray[Any]], float]] = [({}, scale) for scale in _SCALES]
        if self.samples:
            choices.insert(0, (self.samples, _SCALES[0]))
        found: dict[int, tuple[str, ...]] = {}
        failed: list[EvaluationError] = []
        for place, (self.samples, self.scale) in enumerate(choices):
            try:
                first, second = (given(self(model, shapes, seed)) for seed in (0, 1))
            except EvaluationError as error:
                failed.append(error)
                continue
            found[place] = tuple(n for n in first if not _moves(first[n], second[n]))
            if not found[place]:
                break
        if not found:
            raise failed[0]
        best = min(found, key=lambda place: len(found[place]))
        self.samples, self.scale = choices[best]
        self.unmoved = found[best]


def _fitted(sample: NDArray[Any], shape: tuple[int, ...], first: int) -> NDArray[Any]:
    """Cut and repeat samples to a shape, from a sample on."""
    for axis, size in enumerate(shape):
        places = (np.arange(size) + (first if axis == 0 else 0)) % sample.shape[axis]
        sample = sample.take(places, axis)
    return sample


def _moves(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.shape != second.shape:
        return True
    if first.dtype.kind != "f":
        return bool((first != second).any())
    a, b = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    largest = float(np.abs(a[finite]).max(initial=0.0))
    return largest > 0 and float(np.abs(a - b)[finite].max(initial=0.0)) > _MOVED * largest
