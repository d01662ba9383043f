"""Linear regression in which all steps up have weights of one sign."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls

from hwsearch.prediction.base import BoolArray, FloatArray
from hwsearch.prediction.linear import LinearModel, WeightDistribution
from hwsearch.prediction.prior_covariance import PriorCovariance

_JITTER: Final = 1e-9  # of the mean variance of a step, so that all of them vary


class AdditiveModel(LinearModel):
    """A `LinearModel` whose weights of steps up of ordered choices have one sign.

    The weights of the steps maximise the posterior without a wrong sign, by non-negative least
    squares; the sign is that of their sum. The deviation is the posterior's given that the weights
    at 0 are 0 (the normal approximation at a constrained mode). Deterministic.

    Args:
        steps: ``(n_features,)``, True for columns that are steps up; none by default.
    """

    def __init__(
        self, priors: Sequence[PriorCovariance] | None = None, steps: BoolArray | None = None
    ) -> None:
        super().__init__(priors)
        self.steps = steps

    def _columns(self, weights: WeightDistribution) -> FloatArray:
        if self.steps is None or not self.steps.any():
            return super()._columns(weights)
        return super()._columns(_one_sign(weights, np.append(np.False_, self.steps)))


def _one_sign(weights: WeightDistribution, steps: BoolArray) -> WeightDistribution:
    """Return the weights given that no step has another sign than the sum of all steps."""
    covariance = weights.covariance[np.ix_(steps, steps)].copy()
    covariance[np.diag_indices_from(covariance)] += (
        _JITTER * np.trace(covariance) / len(covariance)
    )
    factor = cholesky(covariance, lower=True)
    whitening = solve_triangular(factor, np.eye(len(factor)), lower=True)
    of_steps = weights.mean[steps]
    sign = -1.0 if of_steps.sum() < 0 else 1.0
    nearest = sign * nnls(whitening, whitening @ (sign * of_steps))[0]
    moved = cho_solve((factor, True), nearest - of_steps)
    mean = weights.mean + weights.covariance[:, steps] @ moved
    mean[steps] = nearest
    without = np.flatnonzero(steps)[nearest == 0.0]
    return replace(weights, mean=mean, covariance=_given(weights.covariance, without))


def _given(covariance: FloatArray, known: FloatArray) -> FloatArray:
    """Return the covariance given that the weights at some positions are known."""
    if not len(known):
        return covariance
    theirs = covariance[np.ix_(known, known)].copy()
    theirs[np.diag_indices_from(theirs)] *= 1.0 + _JITTER
    factor = cho_factor(theirs, lower=True)
    left: FloatArray = covariance - covariance[:, known] @ cho_solve(factor, covariance[known])
    return left
