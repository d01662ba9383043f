"""Bayesian linear regression whose features come in groups, each with a variance of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, lapack
from scipy.optimize import minimize

from hwsearch.prediction.base import FloatArray

# The likelihood costs the cube of the rows, and so many of them settle a few numbers.
MAX_LIKELIHOOD_ROWS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is known of a linear model before its rows.

    Attributes:
        groups: Which features share a variance.
        logs: (n_groups + 1,) logarithms of standard deviations, of every group's weights and of
            what the features do not explain.
        deviations: (n_groups + 1,) how sure that is: standard deviations of those logarithms.
        bounds: (n_groups + 1) lowest and highest logarithm.
    """

    groups: Sequence[slice]
    logs: FloatArray
    deviations: FloatArray
    bounds: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a linear model learnt.

    Attributes:
        weights: (n_features,) posterior mean.
        covariance: (n_features, n_features) of the posterior.
        unexplained: Standard deviation of what the features do not explain.
    """

    weights: FloatArray
    covariance: FloatArray
    unexplained: float


def fit_groups(
    features: FloatArray, targets: FloatArray, noise: FloatArray, prior: Prior
) -> Fitted:
    """Learn weights around 0 and the variances of their groups. Deterministic.

    Args:
        features: (n, n_features), n at least 1.
        targets: (n,).
        noise: (n,) known standard deviations of the targets, besides what is not explained.
        prior: Of weights and variances.
    """
    chosen = evenly(len(targets), MAX_LIKELIHOOD_ROWS)
    rows = features[chosen]
    grams = np.array([rows[:, group] @ rows[:, group].T for group in prior.groups])
    deviations, _ = most_likely(grams, targets[chosen], noise[chosen], prior)
    spread = np.empty(features.shape[1])
    for group, deviation in zip(prior.groups, deviations[:-1], strict=True):
        spread[group] = deviation
    unexplained = float(deviations[-1])
    weights, covariance = posterior(
        features, targets, np.hypot(noise, unexplained), np.diag(spread)
    )
    return Fitted(weights=weights, covariance=covariance, unexplained=unexplained)


def posterior(
    features: FloatArray, targets: FloatArray, noise: FloatArray, root: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean (n_features,) and covariance of the weights of a linear model.

    In closed form (Bishop, Pattern recognition and machine learning, 2006, section 3.3).

    Args:
        features: (n, n_features).
        targets: (n,).
        noise: (n,) standard deviations of all that the features do not explain, above 0.
        root: (n_features, rank) of the prior covariance of the weights, root times root'.
    """
    mixed = features @ root
    weighted = mixed / (noise**2)[:, np.newaxis]
    # The identity where the rows say nothing.
    factor = cho_factor(np.eye(root.shape[1]) + weighted.T @ mixed, lower=True)
    covariance: FloatArray = root @ cho_solve(factor, root.T)
    return root @ cho_solve(factor, weighted.T @ targets), covariance


def most_likely(
    grams: FloatArray, targets: FloatArray, noise: FloatArray, prior: Prior
) -> tuple[FloatArray, float]:
    """Return deviations by group and of the rest, and the log likelihood that they have.

    They maximise the marginal likelihood times their log-normal prior, by L-BFGS with a fixed
    start (Bishop, 2006, section 3.5).

    Args:
        grams: (n_groups, n, n) inner products of the rows' features in each group.
        targets: (n,).
        noise: (n,) known standard deviations of the targets.
        prior: Of the deviations.
    """
    found = minimize(
        _negative_log_posterior,
        prior.logs,
        args=(grams, targets, noise**2, prior),
        jac=True,
        method="L-BFGS-B",
        bounds=prior.bounds,
    )
    return np.exp(found.x), -float(found.fun)


def evenly(n: int, n_kept: int) -> NDArray[np.intp]:
    """Return positions of at most so many of n rows, in even steps."""
    return np.linspace(0, n - 1, min(n, n_kept)).astype(np.intp)


def slope_of(factor: FloatArray, weights: FloatArray) -> FloatArray:
    """Twice the slope of a negative log likelihood in the kernel of its targets, (n, n).

    Args:
        factor: (n, n) lower Cholesky factor of the kernel.
        weights: (n,) the targets that the kernel is divided out of.
    """
    lower, _ = lapack.dpotri(factor, lower=1)  # the inverse, without the half above
    slope: FloatArray = lower + np.tril(lower, -1).T - np.outer(weights, weights)
    return slope


def _negative_log_posterior(
    logs: FloatArray, grams: FloatArray, targets: FloatArray, known: FloatArray, prior: Prior
) -> tuple[float, FloatArray]:
    """Of the standard deviations, with its gradient; ``known`` are variances of the targets."""
    variances = np.exp(2.0 * logs)
    kernel = np.tensordot(variances[:-1], grams, axes=1)
    kernel[np.diag_indices_from(kernel)] += variances[-1] + known
    factor = cholesky(kernel, lower=True, check_finite=False)
    weights = cho_solve((factor, True), targets, check_finite=False)
    slope = slope_of(factor, weights)
    by_group = np.tensordot(grams, slope, axes=2)
    gradient = variances * np.append(by_group, np.trace(slope))
    off = (logs - prior.logs) / prior.deviations
    value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    return float(value), gradient + off / prior.deviations
