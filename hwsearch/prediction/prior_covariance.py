"""Prior covariances of thermometer weights: similar choices have similar weights."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from hwsearch.encoding import thermometer, thermometer_columns
from hwsearch.prediction.base import FloatArray, IntArray
from hwsearch.space import Choice, SearchSpace

_LENGTH_SCALE: Final = 0.2  # of the length of the space
_N_REFERENCE: Final = 256  # random architectures whose values have unit variance


@dataclass(frozen=True, slots=True, eq=False)
class PriorCovariance:
    """One term of the prior covariance of the weights, up to a factor that is learnt.

    Attributes:
        covariance: ``(n_columns, n_columns)``, positive semidefinite; scaled such that the values
            of random architectures have a variance near 1.
        log_factor: Prior mean of the factor's logarithm, for standardised targets.
        log_deviation: Prior standard deviation of that logarithm.
    """

    covariance: FloatArray
    log_factor: float
    log_deviation: float


@lru_cache(maxsize=8)
def prior_covariances(space: SearchSpace) -> tuple[PriorCovariance, ...]:
    """Return the terms of the prior for the columns of `thermometer`.

    The terms: one weight shared by all steps up; one per step of a kind of choices (the same
    options under a name that ends alike, such as ``stage2.block1.kernel`` and
    ``stage4.block3.kernel``); weights of a kind, and of all steps, that are correlated where
    choices are near each other in the order of the space; one weight per column. Their factors
    are learnt: a sum of covariances over groups is a multilevel model (Gelman and Hill, Data
    analysis using regression and multilevel models, 2007, chapter 13).
    """
    columns = thermometer_columns(space)
    step = np.outer(columns.ordered, columns.ordered).astype(np.float64)
    position = columns.choice / len(space.choices)
    near = np.exp(-0.5 * ((position[:, np.newaxis] - position) / _LENGTH_SCALE) ** 2)
    same_kind = _equal(kind_indices(space)[columns.choice])
    same_step = same_kind * _equal(columns.option)
    # Unordered choices have options and no steps: only equal options can be similar.
    similar = np.where(step > 0, same_kind, same_step)
    terms = [
        (step, 0.0, 1.5),
        (same_step, -1.0, 1.5),
        (near * similar, -1.0, 1.5),
        (near * step, -1.0, 1.5),
        (np.eye(len(position)), -2.0, 1.0),
    ]
    drawn = thermometer(space.sample(_N_REFERENCE, 0))
    drawn -= drawn.mean(axis=0)
    priors = []
    for covariance, log_factor, log_deviation in terms:
        variance = float(np.einsum("ij,ij->i", drawn @ covariance, drawn).mean())
        if variance > 0:
            priors.append(PriorCovariance(covariance / variance, log_factor, log_deviation))
    return tuple(priors)


def kind_indices(space: SearchSpace) -> IntArray:
    """Return the number of every choice's kind, from 0 up: ``(n_choices,)``."""
    kinds = [_kind(choice) for choice in space.choices]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return np.array([numbers[kind] for kind in kinds])


def independent_prior(n_columns: int, log_factor: float) -> tuple[PriorCovariance, ...]:
    """Return the prior by which the weights of all columns are independent."""
    covariance = np.eye(n_columns) * (4.0 / max(n_columns, 1))
    return (PriorCovariance(covariance, log_factor, 1.0),)


def _kind(choice: Choice) -> tuple[Hashable, ...]:
    return re.sub(r"\d+", "", choice.name.split(".")[-1]), choice.options, choice.ordered


def _equal(numbers: IntArray) -> FloatArray:
    equal: FloatArray = (numbers[:, np.newaxis] == numbers).astype(np.float64)
    return equal
