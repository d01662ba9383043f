"""The supernet under test, with the subnets, outputs and models shared by its checks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.blocks import Block
from hwsearch.errors import ContractError
from hwsearch.models.agreement import probe_inputs, torch_outputs
from hwsearch.models.export import to_onnx
from hwsearch.space import Architecture, SearchSpace
from hwsearch.supernets.interface import InputSpec, Network
from hwsearch.supernets.module_costs import module_costs
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import OWED

N_RANDOM = 2
Inputs = dict[str, NDArray[Any]]
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Case:
    """One architecture, and the expression of its space that gives it."""

    arch: Architecture
    call: str

    def __str__(self) -> str:
        return f"architecture {self.arch.key} ({self.call})"


class Examined:
    """A supernet under test; subnets, outputs and costs are computed once for all checks.

    The checks use the family's whole space, including choices that a search leaves at a default.

    Args:
        net: A loaded supernet, or the network that a family's ``load`` or ``tiny`` returns.
    """

    def __init__(self, net: Supernet | Network) -> None:
        self.network: Network = net.network if isinstance(net, Supernet) else net
        self._given = net
        self._made: dict[tuple[str, str], Any] = {}

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
        return [name for name in OWED if not hasattr(self.network, name)]

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
            Case(self.space.smallest()[0], "space.smallest()[0]"),
            Case(self.space.largest()[0], "space.largest()[0]"),
            *self.sampled(N_RANDOM),
        ]
        return list({case.arch.key: case for case in reversed(found)}.values())[::-1]

    def sampled(self, n: int) -> list[Case]:
        """Return n random architectures."""
        drawn = enumerate(self.space.sample(n, seed=0))
        return [Case(arch, f"space.sample({n}, seed=0)[{i}]") for i, arch in drawn]

    def build(self, case: Case) -> nn.Module:
        """Build the subnet anew; a check may change it."""
        with during(f"{case}: subnet(arch)"):
            return self.net.subnet(case.arch)

    def subnet(self, case: Case) -> nn.Module:
        """Return the subnet that checks share and do not change."""
        return self._once("subnet(arch)", case, lambda: self.net.subnet(case.arch))

    def spec(self, case: Case) -> InputSpec:
        """Return the subnet's input specification."""
        with during(f"{case}: input_spec(arch)"):
            return self.net.input_spec(case.arch)

    def blocks(self, case: Case) -> list[Block] | None:
        """Return the subnet's chain of blocks, or None; cached."""
        return self._once("blocks(arch)", case, lambda: self.net.blocks(case.arch))

    def inputs(self, case: Case, n: int = 3, seed: int = 0) -> Inputs:
        """Draw n (1 to 4) samples of every input."""
        first, second = (
            probe_inputs(self.spec(case).inputs, seed=2 * seed + half) for half in (0, 1)
        )
        return {name: np.concatenate([first[name], second[name]])[:n] for name in first}

    def outputs(
        self, case: Case, inputs: Inputs | None = None, subnet: nn.Module | None = None
    ) -> list[NDArray[Any]]:
        """Run a subnet on inputs; by default the shared subnet on three samples."""
        fed = self.inputs(case) if inputs is None else inputs
        network = self.subnet(case) if subnet is None else subnet
        shapes = ", ".join(str(tuple(array.shape)) for array in fed.values())
        with during(f"{case}: its subnet, on inputs of shape {shapes},"):
            return torch_outputs(network, fed, self.spec(case).outputs)

    def model(self, case: Case) -> onnx.ModelProto:
        """Return the ONNX model of the shared subnet."""
        return self._once(
            "its export to ONNX", case, lambda: to_onnx(self.net, case.arch, self.subnet(case))
        )

    def costs(self, case: Case) -> tuple[int, int]:
        """Return (MACs, parameters) counted on the shared subnet."""
        return self._once(
            "its subnet, while its MACs were counted,",
            case,
            lambda: module_costs(self.subnet(case), self.spec(case).inputs),
        )

    def _once(self, what: str, case: Case, make: Callable[[], Made]) -> Made:
        """Make something of an architecture, or return what was made before."""
        key = what, case.arch.key
        if key not in self._made:
            with during(f"{case}: {what}"):
                self._made[key] = make()
        made: Made = self._made[key]
        return made


@contextmanager
def during(what: str) -> Iterator[None]:
    """Raise errors from inside as ContractError that names the family's call."""
    try:
        yield
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"{what} raised {type(error).__name__}: {error}") from error


def unequal(a: dict[str, Tensor], b: dict[str, Tensor]) -> str | None:
    """Return the first name whose tensors differ, or None."""
    names = [*a, *(name for name in b if name not in a)]
    for name in names:
        if name not in a or name not in b:
            return name
        same = a[name].shape == b[name].shape and a[name].dtype == b[name].dtype
        if not same or not bool((a[name] == b[name]).all()):
            return name
    return None
