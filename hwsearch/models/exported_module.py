"""A subnet that is a PyTorch module, with its ONNX model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from numpy.typing import NDArray
from torch import nn

from hwsearch.models.exported import BUFFERS, Exported
from hwsearch.models.module_outputs import torch_outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModule(Exported):
    """A recalibrated subnet that is a PyTorch module, and its model."""

    subnet: nn.Module

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of the module's parameters and buffers."""
        return sum(each.nbytes for each in self.subnet.state_dict().values())

    def safetensors(self) -> bytes:
        """Return the state; tied weights are stored under each name, but count once."""
        tensors = self.subnet.state_dict().items()
        state = {name: tensor.clone().contiguous() for name, tensor in tensors}
        return safetensors.torch.save(
            state, {BUFFERS: json.dumps(sorted(buffer_names(self.subnet)))}
        )

    def module_outputs(
        self, inputs: dict[str, NDArray[Any]], names: Sequence[str]
    ) -> list[NDArray[Any]]:
        """Return the outputs of these names."""
        return torch_outputs(self.subnet, inputs, names)


def buffer_names(subnet: nn.Module) -> set[str]:
    """Return the names in the state that are not parameters, or are duplicates of one."""
    learned = {name for name, _ in subnet.named_parameters()}
    return {name for name, _ in subnet.named_buffers()} | (set(subnet.state_dict()) - learned)
