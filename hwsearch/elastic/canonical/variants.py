"""Sizes of a graph's symbolic axes that it can be traced with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from hwsearch.elastic.analysis.sample_axes import InputAxes, shapes_of, varied_sizes
from hwsearch.elastic.canonical.shapes import KnownBranch, ShapeError, trace

Sizes = dict[str, int]


def takes(model: ir.Model, inputs: Sequence[InputAxes], sizes: Mapping[str, int]) -> bool:
    """Return whether a graph's operators accept sizes of its symbolic axes."""
    try:
        trace(model, [shapes_of(inputs, sizes)])
    except KnownBranch:
        return True
    except ShapeError:
        return False
    return True


def working_sizes(
    model: ir.Model,
    inputs: Sequence[InputAxes],
    sizes: Mapping[str, int],
    more: Sequence[Sizes] = (),
) -> tuple[list[InputAxes], list[Sizes], list[str]]:
    """Return sizes that a graph takes, the sample's first, and notes for the user.

    ``more`` are tried as well.

    Axes that must be equal get one name in the returned inputs; those that cannot vary are fixed.
    """
    tried = varied_sizes(inputs, sizes)
    tried += [_completed(each, tried[0]) for each in more]
    found = _taken(model, inputs, tried)
    if constant := _constant_axes(found):
        tied = _taken(model, inputs, varied_sizes(inputs, sizes, tied=True))
        if not _constant_axes(tied):
            return *_merged(inputs, tied), []
        for name in constant:
            alone = ({**tried[0], name: each[name]} for each in tried[1:])
            found += [each for each in alone if takes(model, inputs, each)]
    constant = _constant_axes(found)
    fixed, notes = pinned(inputs, {n: sizes[n] for n in constant}, "the graph takes no other size")
    left = set(found[0]).difference(constant)
    return fixed, [{n: s for n, s in each.items() if n in left} for each in found], notes


def pinned(
    inputs: Sequence[InputAxes], sizes: Mapping[str, int], why: str
) -> tuple[list[InputAxes], list[str]]:
    """Return inputs with axes fixed at sizes, and notes for the user that say why."""
    fixed = [
        replace(each, dims=tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim
                                 for dim in each.dims))
        for each in inputs
    ]  # fmt: skip
    return fixed, [f"axis {name!r} is fixed at {size}: {why}" for name, size in sizes.items()]


def _completed(some: Sizes, sizes: Sizes) -> Sizes:
    """Return sizes of all axes; one that is absent is as long as those that it equals."""
    return {
        name: some.get(name, next((s for n, s in some.items() if sizes[n] == size != 1), size))
        for name, size in sizes.items()
    }


def _taken(model: ir.Model, inputs: Sequence[InputAxes], tried: Sequence[Sizes]) -> list[Sizes]:
    return [tried[0], *(each for each in tried[1:] if takes(model, inputs, each))]


def _merged(
    inputs: Sequence[InputAxes], sizes: Sequence[Sizes]
) -> tuple[list[InputAxes], list[Sizes]]:
    """Name axes of equal sizes by the first of them."""
    names: dict[tuple[int, ...], str] = {}
    same = {name: names.setdefault(tuple(s[name] for s in sizes), name) for name in sizes[0]}
    renamed = [
        replace(each, dims=tuple(same[d] if isinstance(d, str) else d for d in each.dims))
        for each in inputs
    ]
    return renamed, [{n: s for n, s in each.items() if same[n] == n} for each in sizes]


def _constant_axes(sizes: Sequence[Sizes]) -> list[str]:
    return [name for name in sizes[0] if len({each[name] for each in sizes}) == 1]
