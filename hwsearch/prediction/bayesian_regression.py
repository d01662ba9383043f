"""Bayesian linear regression: posterior of the weights, variances by marginal likelihood."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, lapack
from scipy.optimize import minimize

from hwsearch.prediction.base import FloatArray

# The likelihood costs the cube of the rows; this many determine a few variances.
MAX_LIKELIHOOD_ROWS: Final = 128

# Logarithms of hyperparameters -> kernel (n, n), and the gradient in them by its slope (n, n).
KernelOf: TypeAlias = Callable[[FloatArray], tuple[FloatArray, Callable[[FloatArray], FloatArray]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNormalPrior:
    """Log-normal prior of hyperparameters, such as standard deviations, and bounds of the logs."""

    logs: FloatArray
    deviations: FloatArray
    bounds: Sequence[tuple[float, float]]


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
    grams: FloatArray, targets: FloatArray, noise: FloatArray, prior: LogNormalPrior
) -> tuple[FloatArray, float]:
    """Return the deviations of groups of weights and of the residuals, and their log likelihood.

    ``grams``, (n_groups, n, n), are the inner products of the rows' features in each group;
    ``noise``, (n,), known standard deviations of the targets beside the residuals'.
    """

    def kernel_of(logs: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        variances = np.exp(2.0 * logs)
        kernel = np.tensordot(variances[:-1], grams, axes=1)
        np.einsum("ii->i", kernel)[:] += variances[-1] + noise**2

        def gradient(slope: FloatArray) -> FloatArray:
            by_group = np.tensordot(grams, slope, axes=2)
            of_logs: FloatArray = 2.0 * variances * np.append(by_group, np.trace(slope))
            return of_logs

        return kernel, gradient

    logs, likelihood = most_likely(kernel_of, targets, prior, prior.logs)
    return np.exp(logs), likelihood


def most_likely(
    kernel_of: KernelOf,
    targets: FloatArray,
    prior: LogNormalPrior,
    start: FloatArray,
    **options: float,
) -> tuple[FloatArray, float]:
    """Return the logarithms of the most likely hyperparameters, and their log likelihood.

    They maximise the marginal likelihood of targets (n,) times the prior, by L-BFGS (Bishop, 2006,
    section 3.5).
    """
    found = minimize(
        negative_log_posterior,
        start,
        args=(kernel_of, targets, prior),
        jac=True,
        method="L-BFGS-B",
        bounds=prior.bounds,
        options=options,
    )
    return found.x, -float(found.fun)


def negative_log_posterior(
    logs: FloatArray, kernel_of: KernelOf, targets: FloatArray, prior: LogNormalPrior
) -> tuple[float, FloatArray]:
    """Return the value for logarithms of hyperparameters, but for a constant, and its gradient."""
    kernel, gradient = kernel_of(logs)
    factor = cholesky(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    weights = cho_solve((factor, True), targets, check_finite=False)
    value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum()
    # All that matters of a slope are inner products with symmetric matrices.
    slope = lapack.dpotri(factor, lower=1, overwrite_c=1)[0].T  # half of the inverse
    np.einsum("ii->i", slope)[:] *= 0.5
    slope -= np.outer(0.5 * weights, weights)
    off = (logs - prior.logs) / prior.deviations
    return float(value + 0.5 * off @ off), gradient(slope) + off / prior.deviations


def evenly_spaced(n: int, n_kept: int) -> NDArray[np.intp]:
    """Return the positions of at most ``n_kept`` of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, n_kept)).astype(np.intp)
