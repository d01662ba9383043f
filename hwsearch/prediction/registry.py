"""Registry of surrogates by name; the module of a surrogate is imported on first use."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from hwsearch.encoding import thermometer_columns
from hwsearch.errors import InputError, unknown
from hwsearch.prediction.base import Parametric, Surrogate
from hwsearch.prediction.prior_covariance import prior_covariances
from hwsearch.space import SearchSpace

GAUSSIAN_PROCESS: Final = "gaussian-process"
_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    GAUSSIAN_PROCESS: ("gaussian_process", "TransformedGaussianProcess"),
    "linear": ("linear", "LinearModel"),
    "additive": ("linear", "LinearModel"),
    "pairwise": ("pairwise", "PairwiseModel"),
    "trees": ("trees", "TreeModel"),
}
NAMES: Final = tuple(_CLASSES)


def make_surrogate(name: str, space: SearchSpace) -> Surrogate:
    """Return a new surrogate for the columns of `thermometer`; InputError for an unknown name."""
    arguments: dict[str, object] = {}
    if name != "trees":
        arguments["priors"] = prior_covariances(space)
    if name == "additive":
        arguments["steps"] = thermometer_columns(space).ordered
    made: Surrogate = _class(name)(**arguments)
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
    module, member = _CLASSES[name]
    found: type = getattr(import_module(f"hwsearch.prediction.{module}"), member)
    return found
