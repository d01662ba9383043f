"""A linear model in which no step up takes anything away."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls

from hwsearch.prediction.base import BoolArray, FloatArray
from hwsearch.prediction.linear import LinearModel, Weights
from hwsearch.prediction.prior_covariance import GainPrior

_JITTER: Final = 1e-9  # of the mean variance of a step, so that all of them vary


class AdditiveModel(LinearModel):
    """One gain of one sign for every step up of an ordered choice, free gains for other options.

    The scale and the prior of the gains are those of `LinearModel`. The gains are the
    most likely ones of its posterior in which no step has the wrong sign, found by non-negative
    least squares; whether values rise or fall with the steps is taken from the sum of the gains.
    The deviation is the posterior's given that the steps without a gain have none (the normal
    approximation at a constrained mode). Deterministic.

    Args:
        gains: As for `LinearModel`.
        steps: ``(n_features,)``, which columns count steps upward; none by default.
    """

    def __init__(
        self, gains: Sequence[GainPrior] | None = None, steps: BoolArray | None = None
    ) -> None:
        super().__init__(gains)
        self.steps = steps

    def _columns(self, weights: Weights) -> FloatArray:
        if self.steps is None or not self.steps.any():
            return super()._columns(weights)
        return super()._columns(_one_sign(weights, np.append(np.False_, self.steps)))


def _one_sign(weights: Weights, steps: BoolArray) -> Weights:
    """Return the weights given that no step has another sign than the sum of all."""
    covariance = weights.covariance[np.ix_(steps, steps)].copy()
    covariance[np.diag_indices_from(covariance)] += (
        _JITTER * np.trace(covariance) / len(covariance)
    )
    factor = cholesky(covariance, lower=True)
    whitening = solve_triangular(factor, np.eye(len(factor)), lower=True)
    gains = weights.mean[steps]
    sign = -1.0 if gains.sum() < 0 else 1.0
    nearest = sign * nnls(whitening, whitening @ (sign * gains))[0]
    moved = cho_solve((factor, True), nearest - gains)
    mean = weights.mean + weights.covariance[:, steps] @ moved
    mean[steps] = nearest
    without = np.flatnonzero(steps)[nearest == 0.0]
    return replace(weights, mean=mean, covariance=_given(weights.covariance, without))


def _given(covariance: FloatArray, known: FloatArray) -> FloatArray:
    """The covariance once some of the weights, by position, are known."""
    if not len(known):
        return covariance
    theirs = covariance[np.ix_(known, known)].copy()
    theirs[np.diag_indices_from(theirs)] *= 1.0 + _JITTER
    factor = cho_factor(theirs, lower=True)
    left: FloatArray = covariance - covariance[:, known] @ cho_solve(factor, covariance[known])
    return left
