"""Bayesian linear regression: posterior of the weights, variances by marginal likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, lapack
from scipy.optimize import minimize

from hwsearch.prediction.base import FloatArray

# The likelihood costs the cube of the rows; this many determine a few variances.
MAX_LIKELIHOOD_ROWS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class VariancePrior:
    """Log-normal prior of the standard deviations of groups of weights and, last, of residuals."""

    groups: Sequence[slice]
    logs: FloatArray
    deviations: FloatArray
    bounds: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedWeights:
    """Posterior mean (n_features,) and covariance of weights; deviation of the residuals."""

    weights: FloatArray
    covariance: FloatArray
    unexplained: float


def fit_grouped_weights(
    features: FloatArray, targets: FloatArray, noise: FloatArray, prior: VariancePrior
) -> FittedWeights:
    """Fit weights with a prior mean of 0, and the variances of their groups. Deterministic.

    ``noise``, (n,), are known standard deviations of the targets, beside the residuals'.
    """
    chosen = evenly_spaced(len(targets), MAX_LIKELIHOOD_ROWS)
    rows = features[chosen]
    grams = np.array([rows[:, group] @ rows[:, group].T for group in prior.groups])
    deviations, _ = most_likely_deviations(grams, targets[chosen], noise[chosen], prior)
    spread = np.empty(features.shape[1])
    for group, deviation in zip(prior.groups, deviations[:-1], strict=True):
        spread[group] = deviation
    unexplained = float(deviations[-1])
    weights, covariance = weight_posterior(
        features, targets, np.hypot(noise, unexplained), np.diag(spread)
    )
    return FittedWeights(weights=weights, covariance=covariance, unexplained=unexplained)


def weight_posterior(
    features: FloatArray, targets: FloatArray, noise: FloatArray, root: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the posterior mean (n_features,) and covariance of the weights, in closed form.

    Bishop, Pattern recognition and machine learning, 2006, section 3.3. ``noise``, above 0,
    includes the residuals; ``root``, (n_features, rank), is a root of the prior covariance.
    """
    mixed = features @ root
    weighted = mixed / (noise**2)[:, np.newaxis]
    # The identity where the rows say nothing.
    factor = cho_factor(np.eye(root.shape[1]) + weighted.T @ mixed, lower=True)
    covariance: FloatArray = root @ cho_solve(factor, root.T)
    return root @ cho_solve(factor, weighted.T @ targets), covariance


def most_likely_deviations(
    grams: FloatArray, targets: FloatArray, noise: FloatArray, prior: VariancePrior
) -> tuple[FloatArray, float]:
    """Return the deviations of groups and residuals, and their log likelihood.

    They maximise the marginal likelihood times their log-normal prior, by L-BFGS with a fixed
    start (Bishop, 2006, section 3.5). ``grams``, (n_groups, n, n), are the inner products of the
    rows' features in each group; ``noise``, (n,), known standard deviations of the targets.
    """
    found = minimize(
        _negative_log_posterior,
        prior.logs,
        args=(grams, targets, noise**2, prior),
        jac=True,
        method="L-BFGS-B",
        bounds=prior.bounds,
        options={"ftol": 1e-5},
    )
    return np.exp(found.x), -float(found.fun)


def evenly_spaced(n: int, n_kept: int) -> NDArray[np.intp]:
    """Return the positions of at most ``n_kept`` of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, n_kept)).astype(np.intp)


def negative_log_likelihood(kernel: FloatArray, targets: FloatArray) -> tuple[float, FloatArray]:
    """Return the negative log likelihood of targets (n,), but for a constant, and its slope.

    The inner product of ``slope``, (n, n), with the symmetric derivative of the kernel by a
    parameter is the derivative of the value. ``kernel`` is overwritten.
    """
    factor = cholesky(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    weights = cho_solve((factor, True), targets, check_finite=False)
    value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum()
    slope: FloatArray = lapack.dpotri(factor, lower=1, overwrite_c=1)[0]  # half of the inverse
    slope[np.diag_indices_from(slope)] *= 0.5
    slope -= np.outer(0.5 * weights, weights)
    return float(value), slope.T  # in C order


def _negative_log_posterior(
    logs: FloatArray,
    grams: FloatArray,
    targets: FloatArray,
    known: FloatArray,
    prior: VariancePrior,
) -> tuple[float, FloatArray]:
    """Return the value for the log deviations, and its gradient; ``known`` are noise variances."""
    variances = np.exp(2.0 * logs)
    kernel = np.tensordot(variances[:-1], grams, axes=1)
    kernel[np.diag_indices_from(kernel)] += variances[-1] + known
    value, slope = negative_log_likelihood(kernel, targets)
    by_group = np.tensordot(grams, slope, axes=2)
    gradient = 2.0 * variances * np.append(by_group, np.trace(slope))
    off = (logs - prior.logs) / prior.deviations
    return value + 0.5 * float(off @ off), gradient + off / prior.deviations
