"""The supernet under test, and its cases: architectures with what the checks share of them."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from hwsearch.blocks import Block
from hwsearch.devices import Device, load_device
from hwsearch.errors import ContractError
from hwsearch.models.agreement import count_macs, count_params, probe_inputs
from hwsearch.models.export import to_onnx
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.space import Architecture, SearchSpace
from hwsearch.supernets.interface import InputSpec, Network, OnnxNetwork, writes_onnx
from hwsearch.supernets.module_costs import module_costs
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import lacking_in
from hwsearch.verify.running import run_model

N_RANDOM = 2
Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """One architecture, and the expression of its space that gives it.

    What is made of it is made once; an error in the family's code names the architecture.
    """

    net: Supernet
    arch: Architecture
    call: str

    def __str__(self) -> str:
        return f"architecture {self.arch.key} ({self.call})"

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Raise errors from inside as ContractError that names the family's call."""
        try:
            yield
        except ContractError:
            raise
        except Exception as error:
            text = f"{self}: {what} raised {type(error).__name__}: {error}"
            raise ContractError(text) from error

    def build(self) -> nn.Module:
        """Build the subnet anew; a check may change it."""
        with self.during("subnet(arch)"):
            return self.net.subnet(self.arch)

    @cached_property
    def subnet(self) -> nn.Module:
        """The subnet that checks share and do not change."""
        return self.build()

    @cached_property
    def spec(self) -> InputSpec:
        """The subnet's input specification."""
        with self.during("input_spec(arch)"):
            return self.net.input_spec(self.arch)

    @cached_property
    def blocks(self) -> list[Block] | None:
        """The subnet's chain of blocks, or None."""
        with self.during("blocks(arch)"):
            return self.net.blocks(self.arch)

    @property
    def chain(self) -> list[Block]:
        """The blocks; none where the subnet is no chain."""
        return self.blocks or []

    def written(self) -> onnx.ModelProto:
        """Return the model that the network writes itself, anew; a check may change it."""
        with self.during("onnx_model(arch)"):
            model = self.net.onnx_model(self.arch)
        assert model is not None
        return model

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The ONNX model of the shared subnet."""
        with self.during("its export to ONNX"):
            return to_onnx(self.net, self.arch, None if self.net.writes_onnx else self.subnet)

    @cached_property
    def costs(self) -> tuple[int, int]:
        """(MACs, parameters) counted on the shared subnet, or in the model that is written."""
        if self.net.writes_onnx:
            with self.during("its model, while its MACs were counted,"):
                return count_macs(self.model), count_params(self.model, ())
        with self.during("its subnet, while its MACs were counted,"):
            return module_costs(self.subnet, self.spec.inputs)

    def inputs(self, n: int = 3, seed: int = 0) -> Inputs:
        """Draw n (1 to 4) samples of every input."""
        first, second = (probe_inputs(self.spec.inputs, seed=2 * seed + half) for half in (0, 1))
        return {name: np.concatenate([first[name], second[name]])[:n] for name in first}

    def outputs(
        self, inputs: Inputs | None = None, subnet: nn.Module | None = None
    ) -> list[NDArray[Any]]:
        """Run a subnet on inputs; by default the shared subnet on three samples."""
        fed = self.inputs() if inputs is None else inputs
        if self.net.writes_onnx:
            return self.run(self.model, fed)
        shapes = ", ".join(str(tuple(array.shape)) for array in fed.values())
        network = self.subnet if subnet is None else subnet
        with self.during(f"its subnet, on inputs of shape {shapes},"):
            return torch_outputs(network, fed, self.spec.outputs)

    def run(self, model: onnx.ModelProto, inputs: Inputs) -> list[NDArray[Any]]:
        """Run a model in ONNX Runtime."""
        shapes = ", ".join(str(tuple(array.shape)) for array in inputs.values())
        runtime: _Runtime = self.net.caches.setdefault("runtime of checks", _Runtime())
        with self.during(f"its model, on inputs of shape {shapes},"):
            return list(run_model(runtime.device, model, inputs))


class _Runtime:
    """The device ``ort-cpu``; its process starts at first use and ends with this object."""

    @cached_property
    def device(self) -> Device:
        device = load_device("ort-cpu")
        weakref.finalize(self, device.close)
        return device


class Examined:
    """A supernet under test; subnets, outputs and costs are computed once for all checks.

    The checks use the family's whole space, including choices that a search leaves at a default.

    Args:
        net: A loaded supernet, or the network that a family's ``load`` or ``tiny`` returns.
    """

    def __init__(self, net: Supernet | Network | OnnxNetwork) -> None:
        self.network = net.network if isinstance(net, Supernet) else net
        self._given = net

    @property
    def name(self) -> str:
        """Return the supernet's name in messages."""
        if isinstance(self._given, Supernet):
            return self._given.name
        name = getattr(getattr(self.network, "card", None), "name", None)
        return str(name or type(self.network).__name__)

    @property
    def lacking(self) -> list[str]:
        """Return the required attributes that are missing."""
        return lacking_in(self.network)

    @property
    def writes_onnx(self) -> bool:
        """Return whether the network writes the ONNX models of its subnets itself."""
        return writes_onnx(self.network)

    @cached_property
    def net(self) -> Supernet:
        """Return the network as a `Supernet`."""
        if isinstance(self._given, Supernet):
            return self._given
        if self.lacking:
            raise ContractError(f"supernet {self.name!r} lacks {', '.join(self.lacking)}")
        return Supernet(self.name, self.network)

    @property
    def space(self) -> SearchSpace:
        """Return the family's whole search space."""
        return self.network.space

    @cached_property
    def cases(self) -> list[Case]:
        """Return the smallest, the largest and random architectures, each once."""
        found = [
            Case(self.net, self.space.smallest()[0], "space.smallest()[0]"),
            Case(self.net, self.space.largest()[0], "space.largest()[0]"),
            *self.sampled(N_RANDOM),
        ]
        return list({case.arch.key: case for case in reversed(found)}.values())[::-1]

    def sampled(self, n: int) -> list[Case]:
        """Return n random architectures."""
        drawn = enumerate(self.space.sample(n, seed=0))
        return [Case(self.net, arch, f"space.sample({n}, seed=0)[{i}]") for i, arch in drawn]


def for_each(
    cases: Callable[[Examined], list[Case]],
) -> Callable[[Callable[[Case], Iterator[str]]], Callable[[Examined], Iterator[str]]]:
    """Make a check of a supernet from a check of one case, which begins each problem."""

    def decorate(problems: Callable[[Case], Iterator[str]]) -> Callable[[Examined], Iterator[str]]:
        @wraps(problems)
        def check(subject: Examined) -> Iterator[str]:
            for case in cases(subject):
                yield from (f"{case}: {problem}" for problem in problems(case))

        return check

    return decorate


each_case = for_each(lambda subject: subject.cases)
each_end = for_each(lambda subject: subject.cases[:2])
