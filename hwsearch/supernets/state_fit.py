"""Comparison of a state dict's keys and shapes with those of a supernet."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hwsearch.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Renamer: TypeAlias = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFit:
    """Comparison of a state dict with the expected tensors: missing and surplus keys, shapes."""

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    shapes: tuple[str, ...]
    expected: int

    @property
    def exact(self) -> bool:
        """Return whether keys and shapes are those expected."""
        return not (self.missing or self.surplus or self.shapes)

    @property
    def share(self) -> float:
        """Return the share of the expected tensors that are present in their shape."""
        return 1 - (len(self.missing) + len(self.shapes)) / max(self.expected, 1)

    def __str__(self) -> str:
        found = (
            ("keys missing", self.missing),
            ("keys unexpected", self.surplus),
            ("shapes differ", self.shapes),
        )
        return "; ".join(
            f"{len(those)} {kind} (first: {those[0]})" for kind, those in found if those
        )


class StateMismatchError(InputError):
    """The state dict ``state`` is not of the supernet that it was given to."""

    def __init__(self, message: str, state: Mapping[str, "Tensor"]) -> None:
        super().__init__(message)
        self.state = state


def fit_state(
    state: Mapping[str, "Tensor"], expected: Mapping[str, "Tensor"], rename: Renamer = str
) -> tuple[StateFit, dict[str, "Tensor"]]:
    """Compare keys and shapes, ignoring counters of batch norms (``num_batches_tracked``).

    Prefixes that wrappers add to all names, such as ``module.`` of DataParallel or ``_orig_mod.``
    of ``torch.compile``, are removed where the names fit without them. ``rename`` maps a key of
    the file to ours, or to None if it is not needed. Return also the state dict under our names.
    """
    fits: list[tuple[StateFit, dict[str, Tensor]]] = []
    for unwrapped in _unwrapped(state, len(expected) // 2):
        named = ((rename(key), tensor) for key, tensor in unwrapped.items())
        ours = {key: tensor for key, tensor in named if key is not None}
        fits.append((_fit(ours, expected), ours))
        if fits[-1][0].exact:
            return fits[-1]
    return max(fits, key=lambda each: each[0].share)


def _unwrapped(state: Mapping[str, "Tensor"], least: int) -> Iterator[Mapping[str, "Tensor"]]:
    """Yield a state dict and its sub-dicts below a first name, with at least ``least`` tensors."""
    yield state
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        first, dot, rest = key.partition(".")
        if dot:
            parts.setdefault(first, {})[rest] = tensor
    for part in parts.values():
        if len(part) >= max(least, 1):
            yield from _unwrapped(part, least)


def _fit(state: Mapping[str, "Tensor"], expected: Mapping[str, "Tensor"]) -> StateFit:
    return StateFit(
        missing=tuple(key for key in expected if key not in state),
        surplus=tuple(
            key for key in state if key not in expected and not key.endswith("num_batches_tracked")
        ),
        shapes=tuple(
            f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ),
        expected=len(expected),
    )
