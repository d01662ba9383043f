"""Checks of `blocks`: the chain computes the subnet, and its costs are right."""

import copy
import unittest
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.blocks import Block
from hwsearch.models.agreement import disagreement
from hwsearch.supernets.interface import TensorSpec
from hwsearch.supernets.module_costs import module_costs
from hwsearch.testing.subject import Case, Examined, each_case, for_each

SAME = 1e-5
N_SPECS = 20
_BETWEEN = (
    "all that forward does between two blocks, pooling and flattening too, belongs into the "
    "module of one of them"
)


class Link(NamedTuple):
    """One block with its module's input and output."""

    block: Block
    module: nn.Module
    received: Tensor
    returned: Tensor

    @property
    def spec_received(self) -> TensorSpec:
        """Shape and element type of the input."""
        dtype = str(self.received.dtype).removeprefix("torch.")
        return TensorSpec(name="x", shape=tuple(self.received.shape[1:]), dtype=dtype)


def _chains(subject: Examined, cases: Iterable[Case] | None = None) -> list[Case]:
    """Return the cases that are chains; raise SkipTest if there is none."""
    found = [case for case in cases or subject.cases if case.blocks is not None]
    if not found:
        raise unittest.SkipTest("blocks(arch) is None: no chain of blocks")
    return found


each_chain = for_each(_chains)


@each_chain
def blocks_chain_to_the_network(case: Case) -> Iterator[str]:
    """Running the blocks' modules one after another is running the subnet."""
    names = [block.name for block in case.chain]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"{len(twice)} block names are there twice (first: {twice[0]!r})"
        return
    if len(case.spec.inputs) != 1:
        yield "a chain of blocks has one input; let blocks(arch) return None"
        return
    links, broken = _links(case)
    if broken:
        yield broken
        return
    expected, returned = case.outputs(), links[-1].returned
    difference = disagreement([returned.numpy()], expected)
    if not difference <= SAME:
        yield (
            f"its blocks {', '.join(names)}, run one after another, give other outputs than the "
            f"subnet (shapes {tuple(returned.shape)} and {expected[0].shape}, they differ by "
            f"{difference:.2g}); {_BETWEEN}"
        )


@each_chain
def blocks_own_every_parameter(case: Case) -> Iterator[str]:
    """Every parameter of the subnet belongs to exactly one block."""
    names = {block.name for block in case.chain}
    for parameter, _ in case.subnet.named_parameters():
        parts = parameter.split(".")
        prefixes = {".".join(parts[:end]) for end in range(1, len(parts))}
        owners = sorted(names & prefixes)
        if len(owners) != 1:
            found = f"to {' and '.join(owners)}" if owners else "to none"
            yield (
                f"parameter {parameter!r} belongs {found} of its blocks; name blocks so that each "
                "parameter is in the module of exactly one"
            )


@each_chain
def block_inputs_are_honest(case: Case) -> Iterator[str]:
    """A block receives what its spec says: shape and element type."""
    for link in _links(case)[0]:
        spec, received = link.block.spec, link.spec_received
        if (spec.input_shape, spec.dtype) != (received.shape, received.dtype):
            yield (
                f"block {link.block.name!r} says that it takes {spec.dtype} of shape "
                f"{spec.input_shape}, but it receives {received.dtype} of shape {received.shape}; "
                "latency tables and costs go by what it says"
            )


def equal_specs_cost_the_same(subject: Examined) -> Iterator[str]:
    """Blocks with equal specs have equal costs: the spec says all that decides them."""
    known: dict[object, tuple[Block, str]] = {}
    told = set()
    for case in _chains(subject, [*subject.cases[:2], *subject.sampled(N_SPECS)]):
        for block in case.chain:
            here = f"{block.name!r} of {case}"
            first, where = known.setdefault(block.spec, (block, here))
            equal = (first.macs, first.params) == (block.macs, block.params)
            if not equal and block.spec not in told:
                told.add(block.spec)
                yield (
                    f"{where} costs {first.macs:,} MACs and {first.params:,} parameters, {here} "
                    f"{block.macs:,} and {block.params:,}, but their specs are equal: "
                    f"{block.spec}; put what differs into the hyperparameters"
                )


def equal_specs_are_equal_modules(subject: Examined) -> Iterator[str]:
    """Blocks with equal specs do the same with equal weights, so that one graph serves all."""
    known: dict[object, tuple[Link, str]] = {}
    told = set()
    for case in _chains(subject):
        for link in _links(case)[0]:
            spec, here = link.block.spec, f"{link.block.name!r} of {case}"
            first, where = known.setdefault(spec, (link, here))
            if first is not link and spec not in told and not _interchangeable(first, link):
                told.add(spec)
                yield (
                    f"{where} and {here} have equal specs, but do something else with equal "
                    f"weights: {spec}; put what differs into the hyperparameters"
                )


def _interchangeable(first: Link, second: Link) -> bool:
    module = copy.deepcopy(first.module)
    try:
        module.load_state_dict(second.module.state_dict())
        with torch.no_grad():
            returned = module(second.received)
    except (RuntimeError, TypeError, ValueError):
        return False
    return disagreement([returned.numpy()], [second.returned.numpy()]) <= SAME


@each_case
def costs_are_counted_ones(case: Case) -> Iterator[str]:
    """MACs, parameters and bytes are those counted by running each block and each subnet."""
    wrong = False
    for link in _links(case)[0]:
        block, counted = link.block, module_costs(link.module, [link.spec_received])
        if (block.macs, block.params) != counted:
            wrong = True
            yield (
                f"block {block.name!r} is said to cost {block.macs:,} MACs and {block.params:,} "
                f"parameters, but its module counts {counted[0]:,} and {counted[1]:,}"
            )
    if wrong:
        return
    macs, params = case.costs
    one = case.arch.space.architectures([case.arch.mapping])
    for quantity, owed in (("macs", macs), ("params", params), ("bytes", 4 * params)):
        said = int(case.net.exact(quantity, one)[0])
        if said != owed:
            yield (
                f"{quantity} are said to be {said:,}, but its subnet counts {owed:,}; its "
                "blocks must be the whole network"
            )


def _links(case: Case) -> tuple[list[Link], str]:
    """Run the blocks in order; also return the reason for stopping early, or an empty text."""
    links: list[Link] = []
    x = torch.from_numpy(np.ascontiguousarray(next(iter(case.inputs().values()))))
    for block in case.chain:
        try:
            module = case.subnet.get_submodule(block.name)
        except AttributeError:
            return links, f"there is no module {block.name!r}; name blocks by their modules"
        try:
            with torch.no_grad():
                y = module(x)
        except Exception as error:  # noqa: BLE001 - a family is a stranger's code
            return links, (
                f"block {block.name!r} cannot take {tuple(x.shape)}, what the one before it gives "
                f"({type(error).__name__}: {error}); {_BETWEEN}"
            )
        links.append(Link(block, module, x, y))
        x = y
    return links, "" if links else "blocks(arch) is empty; return None where there is no chain"
