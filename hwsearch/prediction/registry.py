"""Surrogates by name, each loaded when it is first asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

from hwsearch.errors import InputError, unknown
from hwsearch.prediction.base import Parametric, Surrogate
from hwsearch.prediction.prior_covariance import kin_gains
from hwsearch.prediction.steps import step_columns
from hwsearch.space import SearchSpace

GAUSSIAN_PROCESS: Final = "gaussian-process"
# Module, class, and what of a space it is told.
_HOMES: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    GAUSSIAN_PROCESS: ("target_transform", "SaturatingProcess", ("gains",)),
    "linear": ("linear", "LinearModel", ("gains",)),
    "additive": ("additive", "AdditiveModel", ("gains", "steps")),
    "pairwise": ("pairwise", "PairwiseModel", ("gains",)),
    "trees": ("trees", "TreeModel", ()),
}
_TOLD: Final[Mapping[str, Callable[[SearchSpace], object]]] = {
    "gains": kin_gains,
    "steps": step_columns,
}
NAMES: Final = tuple(_HOMES)


def make_surrogate(name: str, space: SearchSpace) -> Surrogate:
    """Return a new surrogate for architectures as `encode_steps` encodes them.

    Args:
        name: One of ``NAMES``.
        space: What they are of.

    Raises:
        InputError: No surrogate has that name.
    """
    found = _class(name)
    made: Surrogate = found(**{each: _TOLD[each](space) for each in _HOMES[name][2]})
    return made


def parametric_class(name: str) -> type[Parametric]:
    """Return the class of a surrogate that can be saved.

    Raises:
        InputError: No surrogate has that name, or it keeps the rows that it was fitted on.
    """
    found: type[Parametric] = _class(name)
    if not hasattr(found, "from_state"):
        able = [each for each in NAMES if hasattr(_class(each), "from_state")]
        raise InputError(
            f"surrogate {name!r} keeps the rows that it was fitted on and cannot be saved; "
            f"fit one of {', '.join(able)}"
        )
    return found


def _class(name: str) -> type:
    if name not in _HOMES:
        raise unknown("surrogate", name, NAMES)
    module, member, _ = _HOMES[name]
    found: type = getattr(import_module(f"hwsearch.prediction.{module}"), member)
    return found
