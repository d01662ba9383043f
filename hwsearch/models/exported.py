"""One architecture's subnet in its ONNX model, and its weights by name."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import numpy_helper

from hwsearch.models.agreement import LEARNED_TYPES
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

BUFFERS = "hwsearch.buffers"  # metadata of a file of weights: names that are not learned


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Exported(ABC):
    """One architecture's subnet and the ONNX model that is timed, scored and shipped.

    ``original`` is the float32 model that it was converted from; None for a float32 model.
    ``run_in`` is the precision in which its device computes, if that is not the model's.
    """

    arch: Architecture
    model: onnx.ModelProto
    original: onnx.ModelProto | None = None
    run_in: str | None = None

    @property
    def float32(self) -> onnx.ModelProto:
        """Return the float32 model."""
        return self.model if self.original is None else self.original

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Return the bytes that the weights take in memory besides those of the models."""

    @abstractmethod
    def safetensors(self) -> bytes:
        """Return the weights as a safetensors file, whose metadata names what is not learned."""

    @abstractmethod
    def module_outputs(
        self, inputs: dict[str, NDArray[Any]], names: Sequence[str]
    ) -> list[NDArray[Any]] | None:
        """Return PyTorch's outputs of these names; None where the subnet is no module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedSlice(Exported):
    """A subnet whose model its network writes itself: see `OnnxNetwork`."""

    net: Supernet

    @property
    def weight_bytes(self) -> int:
        """Return 0: the weights are those of the model."""
        return 0

    def safetensors(self) -> bytes:
        """Return the learned numbers, named as in the given model where that is known."""
        named = self.net.named_weights(self.float32)
        arrays = learned_arrays(self.float32) if named is None else named
        copies = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return safetensors.numpy.save(copies, {BUFFERS: json.dumps([])})

    def module_outputs(
        self, inputs: dict[str, NDArray[Any]], names: Sequence[str]
    ) -> list[NDArray[Any]] | None:
        """Return None."""
        del inputs, names
        return None


def learned_arrays(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return the initialisers that count as learned, by name."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in LEARNED_TYPES
    }
