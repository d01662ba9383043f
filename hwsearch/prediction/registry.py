"""Registry of surrogates by name; the module of a surrogate is imported on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

from hwsearch.encoding import thermometer_columns
from hwsearch.errors import InputError, unknown
from hwsearch.prediction.base import Parametric, Surrogate
from hwsearch.prediction.prior_covariance import prior_covariances
from hwsearch.space import SearchSpace

GAUSSIAN_PROCESS: Final = "gaussian-process"
# Module, class, and its arguments.
_CLASSES: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    GAUSSIAN_PROCESS: ("gaussian_process", "TransformedGaussianProcess", ("priors",)),
    "linear": ("linear", "LinearModel", ("priors",)),
    "additive": ("linear", "LinearModel", ("priors", "steps")),
    "pairwise": ("pairwise", "PairwiseModel", ("priors",)),
    "trees": ("trees", "TreeModel", ()),
}
_ARGUMENTS: Final[Mapping[str, Callable[[SearchSpace], object]]] = {
    "priors": prior_covariances,
    "steps": lambda space: thermometer_columns(space).ordered,
}
NAMES: Final = tuple(_CLASSES)


def make_surrogate(name: str, space: SearchSpace) -> Surrogate:
    """Return a new surrogate for the columns of `thermometer`; InputError for an unknown name."""
    found = _class(name)
    made: Surrogate = found(**{each: _ARGUMENTS[each](space) for each in _CLASSES[name][2]})
    return made


def parametric_class(name: str) -> type[Parametric]:
    """Return the class of a surrogate that can be saved; raise InputError for any other name."""
    found: type[Parametric] = _class(name)
    if not hasattr(found, "from_state"):
        able = [each for each in NAMES if hasattr(_class(each), "from_state")]
        raise InputError(
            f"surrogate {name!r} keeps the rows that it was fitted on and cannot be saved; "
            f"fit one of {', '.join(able)}"
        )
    return found


def _class(name: str) -> type:
    if name not in _CLASSES:
        raise unknown("surrogate", name, NAMES)
    module, member, _ = _CLASSES[name]
    found: type = getattr(import_module(f"hwsearch.prediction.{module}"), member)
    return found
