"""Precision as choices of a search space: of the whole network, or of each of its blocks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, Protocol

import numpy as np

from hwsearch.architectures import PRECISION, Architecture, Architectures
from hwsearch.blocks import Block, BlockSpec
from hwsearch.choices import Choice, Option
from hwsearch.errors import InputError, unknown
from hwsearch.quantization import FP16, FP32, INT8, MIXED, OPTIONS
from hwsearch.space import SearchSpace

WHOLE: Final = ""  # in place of the name of a block
BOUNDARY: Final = "boundary"  # the kind of a conversion of activations between two blocks
PER_BLOCK: Final = "per-block"
Per = Literal["network", "block"]
Condition = tuple[str, tuple[Option, ...]]


class PrecisionSpace:
    """A search space with choices of precision behind those of the structure.

    Attributes:
        structures: The space of structures.
        space: The same, with a choice ``precision``, or ``precision.BLOCK`` for every block. A
            block's choice is active where the block is there.
        options: The precisions, from the fewest bits to the most.
        blocks: Names of the blocks; none where the choice is that of the whole network.
    """

    def __init__(
        self,
        structures: SearchSpace,
        options: Iterable[str],
        blocks: Mapping[str, Condition | None] | None = None,
    ) -> None:
        """Add choices.

        Args:
            structures: The space of structures.
            options: Two or more of `OPTIONS`.
            blocks: Name -> where a block is there, as in `hwsearch.choices.Choice`; None for one
                choice of the whole network.

        Raises:
            InputError: An option is unknown, or is no precision of a block, or there are no
                blocks.
        """
        self.structures, self.options = structures, checked_options(options)
        self.blocks = tuple(blocks or ())
        if blocks is None:
            added = [Choice(PRECISION, self.options)]
        else:
            if FP16 in self.options:
                raise InputError(
                    f"{FP16} is a precision of the whole network, because every boundary costs "
                    f"casts; leave it out of the precisions of blocks, or leave {PER_BLOCK!r} away"
                )
            added = [
                Choice(f"{PRECISION}.{name}", self.options, active)
                for name, active in blocks.items()
            ]
        self.space = structures.derived([*structures.choices, *added])
        self._last: tuple[SearchSpace, SearchSpace, list[int]]
        self._last = structures, structures, list(range(len(structures.choices)))

    def __str__(self) -> str:
        """Return the setting that makes these choices."""
        return str(PrecisionSetting(self.options, "block" if self.blocks else "network"))

    @cached_property
    def _names(self) -> dict[str, str]:
        """Return choice -> block."""
        return {f"{PRECISION}.{name}": name for name in self.blocks} or {PRECISION: WHOLE}

    def of(self, arch: Architecture) -> dict[str, str]:
        """Return the precision of every block of an architecture, or ``{"": precision}``."""
        mapping = arch.mapping
        return {block: str(mapping[n]) for n, block in self._names.items() if n in mapping}

    def structure(self, arch: Architecture) -> Architecture:
        """Return an architecture without its precision."""
        mapping = {name: o for name, o in arch.mapping.items() if name not in self._names}
        return Architecture(self.structures, mapping)

    def all_structures(self, archs: Architectures) -> Architectures:
        """Return n architectures, of this space or a part of it, without their precision."""
        part, columns = self._part(archs.space)
        return part.from_indices(archs.indices[:, columns])

    def _part(self, space: SearchSpace) -> tuple[SearchSpace, list[int]]:
        """Return a part of this space without precision, and the columns of its choices."""
        if space is not self._last[0]:  # a search asks thousands of times for the same one
            kept = [name for name in space.names if name not in self._names]
            part = SearchSpace(c for c in space.choices if c.name in kept)
            self._last = space, part, [space.names.index(name) for name in kept]
        return self._last[1:]

    def throughout(self, structures: Architectures, part: SearchSpace) -> Architectures:
        """Return structures of one precision throughout, as far as a part of the space has it.

        The first one in every precision, and the others with the precisions in turns. Where a
        choice is restricted, its last option stands in for the others.
        """
        own = [choice for choice in part.choices if choice.name in self._names]
        turns = [(0, option) for option in self.options]
        turns += [
            (row, self.options[row % len(self.options)]) for row in range(1, len(structures))
        ]
        rows = [
            structures[row].mapping
            | {c.name: option if option in c.options else c.options[-1] for c in own}
            for row, option in turns
        ]
        return part.architectures(rows).unique()


@dataclass(frozen=True, slots=True)
class PrecisionSetting:
    """A setting ``fp32,int8`` or ``fp32,int8:per-block``."""

    options: tuple[str, ...]
    per: Per

    @classmethod
    def parse(cls, text: str) -> "PrecisionSetting":
        """Parse a setting; raise InputError for an unknown precision or another form."""
        names, colon, per = text.partition(":")
        if colon and per.strip() != PER_BLOCK:
            raise InputError(
                f"precision {text!r} ends in {per.strip()!r}; write 'fp32,int8' for a choice of "
                f"the whole network, or 'fp32,int8:{PER_BLOCK}' for one of each block"
            )
        options = checked_options(part.strip() for part in names.split(","))
        return cls(options, "block" if colon else "network")

    def __str__(self) -> str:
        return ",".join(self.options) + (f":{PER_BLOCK}" if self.per == "block" else "")


def checked_options(options: Iterable[str]) -> tuple[str, ...]:
    """Return precisions from the fewest bits to the most; raise InputError for bad ones."""
    given = [options] if isinstance(options, str) else list(options)
    for option in given:
        if option == "bf16":
            raise InputError(
                "precision bf16 is how a device computes float32 files, and no choice of a file: "
                "give device openvino:precision=bf16"
            )
        if option not in OPTIONS:
            raise unknown("precision", option, OPTIONS)
    if len(given) < 2 or len(set(given)) < len(given):
        raise InputError(
            f"precisions {', '.join(given) or 'of no name'} are no choice; give two or more "
            f"different ones of {', '.join(OPTIONS)}, or a device of one precision, such as "
            "ort-cpu:precision=int8"
        )
    return tuple(option for option in OPTIONS if option in given)


def options_of(chosen: PrecisionSpace | None, precision: str) -> tuple[str, ...]:
    """Return the precisions that blocks of files may have: the chosen ones, or else that one."""
    return (precision,) if chosen is None else chosen.options


def file_kind(precisions: Mapping[str, str]) -> str:
    """Return the precision of a file: that of all its blocks, or ``"mixed"``."""
    found = set(precisions.values())
    return found.pop() if len(found) == 1 else MIXED


def in_precisions(chain: Sequence[Block], precisions: Mapping[str, str]) -> list[Block]:
    """Return a chain of blocks as it is timed in the precisions of its blocks.

    The spec of a block has ``precision`` among its hyperparameters unless it is float32. Between
    blocks of which one has int8 activations and the other has not, there is a further block of
    kind ``"boundary"``, named ``BLOCK.boundary`` by the block behind, with the input of that.

    Args:
        chain: Blocks in float32.
        precisions: Block -> precision, or ``{"": precision}`` of all; a block without one has
            that of the block before, and the first ones that of the next; none for float32.
    """
    whole = precisions.get(WHOLE, FP32)
    before = next((precisions[b.name] for b in chain if b.name in precisions), whole)
    found: list[Block] = []
    for block in chain:
        own = precisions.get(block.name, before)
        sides = (_activations(before), _activations(own))
        if sides[0] != sides[1]:
            spec = BlockSpec(
                kind=BOUNDARY,
                hyperparameters=(("from", sides[0]), ("to", sides[1])),
                input_shape=block.spec.input_shape,
                dtype=block.spec.dtype,
            )
            found.append(Block(name=f"{block.name}.{BOUNDARY}", spec=spec, macs=0, params=0))
        found.append(block if own == FP32 else _converted(block, own))
        before = own
    return found


def has_boundaries(specs: Iterable[BlockSpec]) -> bool:
    """Return whether activations are converted between some blocks."""
    return any(spec.kind == BOUNDARY for spec in specs)


def _activations(precision: str) -> str:
    """Return the type between blocks: int8-dynamic and int4 leave activations in float32."""
    return INT8 if precision == INT8 else FP32


def _converted(block: Block, precision: str) -> Block:
    given = tuple(sorted((*block.spec.hyperparameters, (PRECISION, precision))))
    return replace(block, spec=replace(block.spec, hyperparameters=given))


class Node(Protocol):
    """A node of a graph: its name, and the names of the values that it reads and makes."""

    name: str
    input: Sequence[str]
    output: Sequence[str]


def spread(nodes: Iterable[Node], known: Callable[[Node], str | None]) -> dict[str, str]:
    """Return the block of every node of a graph, where those of some are known.

    A node between blocks, such as an activation, belongs to the block that makes its first input;
    those before the first block belong to that.

    Args:
        nodes: In the order of the graph.
        known: Returns the block of a node, or None.
    """
    own = [(node, known(node)) for node in nodes]
    first = next((block for _, block in own if block is not None), WHOLE)
    made: dict[str, str] = {}
    found: dict[str, str] = {}
    for node, block in own:
        before = next((made[name] for name in node.input if name in made), first)
        found[node.name] = before if block is None else block
        made |= dict.fromkeys(node.output, found[node.name])
    return found


def conditions(
    space: SearchSpace, names_of: Callable[[Architecture], Sequence[str]]
) -> dict[str, Condition | None]:
    """Return block -> the options of one choice under which it is there, None for always.

    The choices are changed one by one from the largest architecture. A block that several choices
    decide counts as always there.

    Args:
        space: The space of structures.
        names_of: Returns the names of the blocks of an architecture.
    """
    largest = space.largest()
    whole = names_of(largest[0])
    there: dict[str, dict[int, list[bool]]] = {name: {} for name in whole}
    for column, choice in enumerate(space.choices):
        for option in range(len(choice.options)):
            row = largest.indices.copy()
            row[0, column] = option
            arch = space.from_indices(row)[0]
            names = set(names_of(arch))
            for name in names - there.keys():
                there[name] = {}
            for name, seen in there.items():
                seen.setdefault(column, [name in whole] * len(choice.options))
                seen[column][option] = name in names
    return {name: _condition(space, seen) for name, seen in there.items()}


def _condition(space: SearchSpace, seen: Mapping[int, Sequence[bool]]) -> Condition | None:
    deciding = [column for column, flags in seen.items() if len(set(flags)) > 1]
    if len(deciding) != 1:
        return None
    choice = space.choices[deciding[0]]
    where = np.flatnonzero(seen[deciding[0]])
    return choice.name, tuple(choice.options[int(position)] for position in where)
