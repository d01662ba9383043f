"""Checks of `blocks`: the chain computes the subnet, and its costs are right."""

import copy
import unittest
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.blocks import Block
from hwsearch.models.agreement import disagreement
from hwsearch.supernets.interface import TensorSpec
from hwsearch.supernets.module_costs import module_costs
from hwsearch.testing.subject import Case, Examined

SAME = 1e-5
N_SPECS = 20


@dataclass(frozen=True, slots=True)
class Link:
    """One block with its module's input and output."""

    block: Block
    module: nn.Module
    received: Tensor
    returned: Tensor


def blocks_chain_to_the_network(subject: Examined) -> Iterator[str]:
    """Running the blocks' modules one after another is running the subnet."""
    for case, blocks in _chains(subject):
        names = [block.name for block in blocks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            yield f"{case}: {len(twice)} block names are there twice (first: {twice[0]!r})"
            continue
        if len(subject.spec(case).inputs) != 1:
            yield f"{case}: a chain of blocks has one input; let blocks(arch) return None"
            continue
        links, broken = _links(subject, case, blocks)
        if broken:
            yield f"{case}: {broken}"
            continue
        expected = subject.outputs(case)
        difference = disagreement([links[-1].returned.numpy()], expected)
        if not difference <= SAME:
            shapes = f"{tuple(links[-1].returned.shape)} and {expected[0].shape}"
            yield (
                f"{case}: its blocks {', '.join(names)}, run one after another, give other "
                f"outputs than the subnet (shapes {shapes}, they differ by {difference:.2g}); "
                "all that forward does between two blocks, pooling and flattening too, belongs "
                "into the module of one of them"
            )


def blocks_own_every_parameter(subject: Examined) -> Iterator[str]:
    """Every parameter of the subnet belongs to exactly one block."""
    for case, blocks in _chains(subject):
        names = {block.name for block in blocks}
        for parameter, _ in subject.subnet(case).named_parameters():
            parts = parameter.split(".")
            prefixes = {".".join(parts[:end]) for end in range(1, len(parts))}
            owners = sorted(names & prefixes)
            if len(owners) != 1:
                found = f"to {' and '.join(owners)}" if owners else "to none"
                yield (
                    f"{case}: parameter {parameter!r} belongs {found} of its blocks; name blocks "
                    "so that each parameter is in the module of exactly one"
                )


def block_inputs_are_honest(subject: Examined) -> Iterator[str]:
    """A block receives what its spec says: shape and element type."""
    for case, blocks in _chains(subject):
        for link in _links(subject, case, blocks)[0]:
            shape = tuple(link.received.shape[1:])
            dtype = str(link.received.dtype).removeprefix("torch.")
            spec = link.block.spec
            if (spec.input_shape, spec.dtype) != (shape, dtype):
                yield (
                    f"{case}: block {link.block.name!r} says that it takes {spec.dtype} of shape "
                    f"{spec.input_shape}, but it receives {dtype} of shape {shape}; latency "
                    "tables and costs go by what it says"
                )


def equal_specs_cost_the_same(subject: Examined) -> Iterator[str]:
    """Blocks with equal specs have equal costs: the spec says all that decides them."""
    known: dict[object, tuple[int, int]] = {}
    where: dict[object, str] = {}
    told = set()
    for case, blocks in _chains(subject, (*subject.cases[:2], *subject.sampled(N_SPECS))):
        for block in blocks:
            costs = (block.macs, block.params)
            here = f"{block.name!r} of {case}"
            if known.setdefault(block.spec, costs) != costs and block.spec not in told:
                told.add(block.spec)
                first = known[block.spec]
                yield (
                    f"{where[block.spec]} costs {first[0]:,} MACs and {first[1]:,} parameters, "
                    f"{here} {costs[0]:,} and {costs[1]:,}, but their specs are equal: "
                    f"{block.spec}; put what differs into the hyperparameters"
                )
            where.setdefault(block.spec, here)


def equal_specs_are_equal_modules(subject: Examined) -> Iterator[str]:
    """Blocks with equal specs do the same with equal weights, so that one graph serves all."""
    known: dict[object, tuple[Link, str]] = {}
    told = set()
    for case, blocks in _chains(subject):
        for link in _links(subject, case, blocks)[0]:
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


def costs_are_counted_ones(subject: Examined) -> Iterator[str]:
    """MACs, parameters and bytes are those counted by running each block and each subnet."""
    for case in subject.cases:
        blocks = subject.blocks(case)
        wrong = [] if blocks is None else list(_wrong_costs(subject, case, blocks))
        if wrong:
            yield from wrong
            continue
        macs, params = subject.costs(case)
        one = subject.space.architectures([case.arch.mapping])
        for quantity, counted in (("macs", macs), ("params", params), ("bytes", 4 * params)):
            said = int(subject.net.exact(quantity, one)[0])
            if said != counted:
                yield (
                    f"{case}: {quantity} are said to be {said:,}, but its subnet counts "
                    f"{counted:,}; its blocks must be the whole network"
                )


def _wrong_costs(subject: Examined, case: Case, blocks: list[Block]) -> Iterator[str]:
    for link in _links(subject, case, blocks)[0]:
        block, dtype = link.block, str(link.received.dtype).removeprefix("torch.")
        received = TensorSpec(name="x", shape=tuple(link.received.shape[1:]), dtype=dtype)
        counted = module_costs(link.module, [received])
        if (block.macs, block.params) != counted:
            yield (
                f"{case}: block {block.name!r} is said to cost {block.macs:,} MACs and "
                f"{block.params:,} parameters, but its module counts {counted[0]:,} and "
                f"{counted[1]:,}"
            )


def _chains(
    subject: Examined, cases: "tuple[Case, ...] | None" = None
) -> Iterator[tuple[Case, list[Block]]]:
    """Yield every case that is a chain, with its blocks; raise SkipTest if there is none."""
    asked = [(case, subject.blocks(case)) for case in cases or subject.cases]
    found = [(case, blocks) for case, blocks in asked if blocks is not None]
    if not found:
        raise unittest.SkipTest("blocks(arch) is None: no chain of blocks")
    yield from found


def _links(subject: Examined, case: Case, blocks: list[Block]) -> tuple[list[Link], str]:
    """Run the blocks in order; also return the reason for stopping early, or an empty text."""
    links: list[Link] = []
    subnet = subject.subnet(case)
    x = torch.from_numpy(np.ascontiguousarray(next(iter(subject.inputs(case).values()))))
    for block in blocks:
        try:
            module = subnet.get_submodule(block.name)
        except AttributeError:
            return links, f"there is no module {block.name!r}; name blocks by their modules"
        try:
            with torch.no_grad():
                y = module(x)
        except Exception as error:  # noqa: BLE001 - a family is a stranger's code
            return links, (
                f"block {block.name!r} cannot take {tuple(x.shape)}, what the one before it gives "
                f"({type(error).__name__}: {error}); all that forward does between two "
                "blocks, pooling and flattening too, belongs into the module of one of them"
            )
        links.append(Link(block, module, x, y))
        x = y
    return links, "" if links else "blocks(arch) is empty; return None where there is no chain"
