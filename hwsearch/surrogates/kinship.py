"""What is believed of gains before anything is measured: choices that are alike gain alike."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from hwsearch.space import Choice, SearchSpace
from hwsearch.surrogates.base import FloatArray
from hwsearch.surrogates.steps import encode_steps, step_columns, step_widths

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
    step = np.outer(step_columns(space), step_columns(space)).astype(np.float64)
    widths = step_widths(space)
    place = np.repeat(np.arange(len(widths)) / len(widths), widths)
    near = np.exp(-0.5 * ((place[:, np.newaxis] - place) / _NEAR) ** 2)
    kinds, labels = _repeated([kind_of(c) for c in space.choices], widths), _labels(space.choices)
    same_step = _same(list(zip(kinds, labels, strict=True)))
    # An unordered choice has options and no steps: only equal options can be alike.
    same_kind = np.where(step > 0, _same(kinds), same_step)
    terms = [
        (step, 0.0, 1.5),
        (same_step, -1.0, 1.5),
        (near * same_kind, -1.0, 1.5),
        (near * step, -1.0, 1.5),
        (np.eye(len(kinds)), -2.0, 1.0),
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


def _labels(choices: Sequence[Choice]) -> list[int]:
    """The option that every column of the encoding stands for, by its position."""
    labels: list[int] = []
    for choice in choices:
        labels += range(1 if choice.ordered and choice.active is None else 0, len(choice.options))
    return labels


def _repeated(values: Sequence[Hashable], times: Sequence[int]) -> list[Hashable]:
    return [value for value, n in zip(values, times, strict=True) for _ in range(n)]


def _same(values: Sequence[Hashable]) -> FloatArray:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    group = np.array([numbers[value] for value in values])
    same: FloatArray = (group[:, np.newaxis] == group).astype(np.float64)
    return same
