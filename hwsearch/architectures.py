"""Architectures: single ones as mappings and as text, batches as arrays in canonical form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from hwsearch.errors import InputError, unknown

if TYPE_CHECKING:
    from hwsearch.space import Option, SearchSpace

PRECISION = "precision"  # the choice of that of the network; of a block it is precision.BLOCK
_OF_BLOCK = f"{PRECISION}."
KEEP = "keep"  # what a choice about a part that elastic models may leave out decides


class Architecture(Mapping[str, "Option"]):
    """One architecture as a read-only mapping from its active choices to their options.

    A choice that is inactive or unknown raises ``KeyError``. ``mapping`` is the same as a ``dict``
    of plain Python values.
    """

    def __init__(self, space: SearchSpace, mapping: dict[str, Option]) -> None:
        self.space = space
        self.mapping = mapping

    @cached_property
    def key(self) -> str:
        """Return 16 hex digits that identify this architecture in every process and version.

        They are the start of the SHA-256 of the lines ``name=repr(option)`` of the active choices
        sorted by name, so neither the order of the choices nor inactive ones matter.
        """
        return _key(_line(name, self.mapping[name]) for name in sorted(self.mapping))

    def __getitem__(self, name: str) -> Option:
        if name in self.mapping:
            return self.mapping[name]
        for choice in self.space.choices:
            if choice.name == name:
                why = f"choice {name!r} is inactive here: it is active where {choice.condition}"
                raise KeyError(why)
        raise KeyError(str(unknown("choice", name, self.space.names)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.mapping)

    def __len__(self) -> int:
        return len(self.mapping)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Architecture):
            return self.key == other.key
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Architecture({self.key}: {self.mapping!r})"

    def _repr_html_(self) -> str:
        """Return an HTML table: the key, and a row for each stage."""
        lines = [("key", self.key), *stage_lines(self.mapping)]
        cell = '<td style="text-align:left">'
        rows = (f"<tr><th>{escape(n)}</th>{cell}{escape(text)}</td></tr>" for n, text in lines)
        return f"<table>{''.join(rows)}</table>"


class Architectures:
    """A batch of architectures of one space, in canonical form; made by a ``SearchSpace``.

    An integer index gives an ``Architecture``; a slice, an integer array or a boolean mask gives
    ``Architectures``.

    Attributes:
        indices: (n, number of choices) int64, read-only: the position of each choice's option; 0
            where the choice is inactive.
        active: (n, number of choices) bool, read-only: whether the choice is active.
    """

    __hash__ = None  # type: ignore[assignment]  # batches are compared by content

    def __init__(
        self, space: SearchSpace, indices: npt.NDArray[np.int64], active: npt.NDArray[np.bool_]
    ) -> None:
        indices.setflags(write=False)
        active.setflags(write=False)
        self.space = space
        self.indices = indices
        self.active = active

    @staticmethod
    def concatenate(batches: Sequence[Architectures]) -> Architectures:
        """Join one or more batches of one space, in order, keeping duplicates."""
        if not batches:
            raise InputError("there is nothing to concatenate: give at least one batch")
        space = batches[0].space
        for batch in batches:
            space.check_own(batch)
        return Architectures(
            space,
            np.concatenate([batch.indices for batch in batches]),
            np.concatenate([batch.active for batch in batches]),
        )

    @cached_property
    def ids(self) -> list[str]:
        """Return the ``Architecture.key`` of every architecture, in order."""
        by_name = sorted(range(len(self.space.choices)), key=self.space.names.__getitem__)
        choices = [self.space.choices[position] for position in by_name]
        lines = [[_line(choice.name, o) for o in choice.options] for choice in choices]
        rows = self.indices[:, by_name].tolist()
        active = self.active[:, by_name].tolist()
        return [
            _key(text[i] for text, i, used in zip(lines, *pair, strict=True) if used)
            for pair in zip(rows, active, strict=True)
        ]

    def unique(self, exclude: Architectures | None = None) -> Architectures:
        """Return the first occurrence of every architecture, in order, none of ``exclude``."""
        seen: set[bytes] = set()
        if exclude is not None:
            self.space.check_own(exclude)
            seen.update(exclude._codes())
        new = []
        for position, code in enumerate(self._codes()):
            if code not in seen:
                seen.add(code)
                new.append(position)
        return self[new]

    def _codes(self) -> list[bytes]:
        """Return the rows of indices as bytes, without the zeros at their ends."""
        most = max(len(choice.options) for choice in self.space.choices)
        rows = self.indices.astype(np.min_scalar_type(most), order="C")
        codes: list[bytes] = rows.view(f"S{rows.itemsize * rows.shape[1]}").ravel().tolist()
        return codes

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Architecture]:
        return (self[position] for position in range(len(self)))

    @overload
    def __getitem__(self, item: int | np.integer[Any]) -> Architecture: ...
    @overload
    def __getitem__(
        self, item: slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]
    ) -> Architectures: ...
    def __getitem__(self, item: Any) -> Architecture | Architectures:
        if isinstance(item, int | np.integer):
            row = zip(
                self.space.choices,
                self.indices[item].tolist(),
                self.active[item].tolist(),
                strict=True,
            )
            return Architecture(
                self.space, {choice.name: choice.options[i] for choice, i, used in row if used}
            )
        if not isinstance(item, slice):
            item = np.asarray(item)
            item = item if item.size else item.astype(np.intp)
        return Architectures(self.space, self.indices[item], self.active[item])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architectures):
            return NotImplemented
        return self.space == other.space and np.array_equal(self.indices, other.indices)

    def __repr__(self) -> str:
        return f"Architectures({len(self)} of {self.space!r})"


def parse_name(name: str) -> tuple[str, str, str]:
    """Return stage, block and attribute of the name of a choice; the first two may be empty.

    ``stage2.block1.kernel`` is the kernel of the first block of stage 2, ``stage2.depth`` the
    depth of the stage, and ``resolution`` belongs to no stage.
    """
    path, _, attribute = name.rpartition(".")
    stage, _, block = path.partition(".")
    return stage, block, attribute


def stage_lines(choices: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (stage, text) of active choices, such as ``depth 2 · kernel 3 5`` by block.

    What an elastic model leaves out is named, as in ``without block2``; what it keeps is not.
    Precisions of blocks are one line, such as ``int8, fp32 in stem head``.
    """
    stages: dict[str, dict[str, list[str]]] = {}
    without: dict[str, list[str]] = {}
    precisions: dict[str, list[str]] = {}
    for name, option in choices.items():
        if name.startswith(_OF_BLOCK):
            precisions.setdefault(str(option), []).append(name.removeprefix(_OF_BLOCK))
            continue
        stage, block, attribute = parse_name(name)
        attributes = stages.setdefault(stage, {})
        if attribute == KEEP and option is False:
            without.setdefault(stage, []).append(block or stage)
        elif not (attribute == KEEP and option is True):
            attributes.setdefault(attribute, []).append(str(option))
    lines = {}
    for stage, attributes in stages.items():
        texts = [f"{what} {' '.join(options)}" for what, options in attributes.items()]
        texts += [f"without {', '.join(names)}" for names in (without.get(stage),) if names]
        lines[stage] = " · ".join(texts)
    if precisions:
        most, *others = sorted(precisions, key=lambda option: -len(precisions[option]))
        texts = [most, *(f"{each} in {' '.join(precisions[each])}" for each in others)]
        lines[PRECISION] = ", ".join(texts)
    return [(stage, text) for stage, text in lines.items() if text]


def one_line(choices: Mapping[str, Any]) -> str:
    """Format an architecture in one line."""
    lines = stage_lines(choices)
    return "; ".join(f"{stage}: {text}" if stage else text for stage, text in lines)


def _line(name: str, option: Option) -> str:
    # ASCII: which characters repr() escapes depends on the Unicode tables of the Python version
    return f"{name}={option!a}"


def _key(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
