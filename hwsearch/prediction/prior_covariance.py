"""What is believed of gains before anything is measured: choices that are alike gain alike."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from hwsearch.prediction.base import FloatArray
from hwsearch.prediction.steps import IntArray, columns_in, encode_steps
from hwsearch.space import Choice, SearchSpace

_NEAR: Final = 0.2  # of the length of the space
_N_REFERENCE: Final = 256  # architectures drawn to learn how far a prior spreads their values


@dataclass(frozen=True, slots=True, eq=False)
class GainPrior:
    """A normal prior of the gains of all columns, up to a factor that is learnt.

    Attributes:
        covariance: ``(n_columns, n_columns)``, positive semidefinite; scaled such that the values
            of architectures drawn at random have a variance near 1.
        log_factor: What the logarithm of the factor is believed to be, for standardised targets.
        spread: Standard deviation of that belief.
    """

    covariance: FloatArray
    log_factor: float
    spread: float


@lru_cache(maxsize=8)
def kin_gains(space: SearchSpace) -> tuple[GainPrior, ...]:
    """Priors of the gains of `encode_steps`, from what all steps share to what each has alone.

    All steps up share one gain; steps of choices of a kind do, each step its own (the same
    options under a name that ends alike, such as ``stage2.block1.kernel`` and
    ``stage4.block3.kernel``); gains of choices of a kind, and of all, are alike where the choices
    are near each other in the order of the space, which is mostly that of the network's layers;
    and every column has a gain of its own. How much there is to each is learnt from what is
    measured: a sum of covariances over groups is a multilevel model (Gelman and Hill, Data
    analysis using regression and multilevel models, 2007, chapter 13).
    """
    columns = columns_in(space)
    step = np.outer(columns.ordered, columns.ordered).astype(np.float64)
    place = columns.choice / len(space.choices)
    near = np.exp(-0.5 * ((place[:, np.newaxis] - place) / _NEAR) ** 2)
    same_kind = _equal(kind_numbers(space)[columns.choice])
    same_step = same_kind * _equal(columns.option)
    # An unordered choice has options and no steps: only equal options can be alike.
    alike = np.where(step > 0, same_kind, same_step)
    terms = [
        (step, 0.0, 1.5),
        (same_step, -1.0, 1.5),
        (near * alike, -1.0, 1.5),
        (near * step, -1.0, 1.5),
        (np.eye(len(place)), -2.0, 1.0),
    ]
    drawn = encode_steps(space.sample(_N_REFERENCE, 0))
    drawn -= drawn.mean(axis=0)
    priors = []
    for covariance, log_factor, spread in terms:
        variance = float(np.einsum("ij,ij->i", drawn @ covariance, drawn).mean())
        if variance > 0:
            priors.append(GainPrior(covariance / variance, log_factor, spread))
    return tuple(priors)


def kind_of(choice: Choice) -> tuple[Hashable, ...]:
    """Return what choices of a kind share: how their names end, without numbers, and options."""
    return re.sub(r"\d+", "", choice.name.split(".")[-1]), choice.options, choice.ordered


def kind_numbers(space: SearchSpace) -> IntArray:
    """Number the kinds of the choices, in their order: ``(n_choices,)``, from 0 up."""
    kinds = [kind_of(choice) for choice in space.choices]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return np.array([numbers[kind] for kind in kinds])


def independent(n_columns: int, log_factor: float) -> tuple[GainPrior, ...]:
    """Return the prior by which every column has a gain of its own."""
    covariance = np.eye(n_columns) * (4.0 / max(n_columns, 1))
    return (GainPrior(covariance, log_factor, 1.0),)


def _equal(numbers: IntArray) -> FloatArray:
    equal: FloatArray = (numbers[:, np.newaxis] == numbers).astype(np.float64)
    return equal
