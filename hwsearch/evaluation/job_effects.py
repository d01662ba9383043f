"""Effects of timing jobs, which shift all latencies of a job by a common factor.

Jobs and models form an incomplete block design: log ratio = model + job effect + error. Source of
the solution for given variances: Henderson, Best linear unbiased estimation and prediction under
a selection model, Biometrics 31, 1975.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# Standard deviations in logarithms that are tried: scales of their priors times powers of two.
# Jobs that differed by 12% were seen, and 0.3% between processes that timed the same model.
_JOB_SCALE: Final = 0.04
_PROCESS_SCALE: Final = 0.003
_JOB_DEVIATIONS: Final = np.array([_JOB_SCALE * 2.0**n for n in range(-5, 3)])
_PROCESS_DEVIATIONS: Final = np.array([_PROCESS_SCALE * 2.0**n for n in range(-2, 5)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobEffects:
    """Solution of a block design, in logarithms, relative to the mean job.

    Attributes:
        logs: (n_models,) log ratio of each model in a job of mean effect.
        log_errors: (n_models,) standard errors, for comparison with other models.
        effects: (n_jobs,) log factor of each job; they sum to 0.
        effect_errors: (n_jobs,) standard errors.
    """

    logs: FloatArray
    log_errors: FloatArray
    effects: FloatArray
    effect_errors: FloatArray


def solve_job_effects(
    jobs: ArrayLike, models: ArrayLike, log_ratios: ArrayLike, variances: ArrayLike
) -> JobEffects:
    """Estimate models and job effects from n measurements by regularised least squares.

    Job effects have a normal prior around 0, so that a job that shares no model with others is
    not corrected. The deviations of job effects and between processes are unknown: solutions are
    averaged over a grid of both, weighted by the likelihood of the measurements.

    Args:
        jobs: (n,) number of each measurement's job, from 0 without gaps.
        models: (n,) number of its model, likewise.
        log_ratios: (n,) log of the measured ratio to the anchor.
        variances: (n,) variances of those within the job, from 0.
    """
    job, model = np.asarray(jobs, np.int64), np.asarray(models, np.int64)
    y, within = np.asarray(log_ratios, np.float64), np.asarray(variances, np.float64)
    fits = [_solve(job, model, y, within + deviation**2) for deviation in _PROCESS_DEVIATIONS]
    likelihood, *parts = (np.stack(part) for part in zip(*fits, strict=True))
    likelihood = likelihood + _log_prior(_PROCESS_DEVIATIONS, _PROCESS_SCALE)[:, np.newaxis]
    likelihood = likelihood + _log_prior(_JOB_DEVIATIONS, _JOB_SCALE)
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    logs, log_errors = _averaged(weights, *parts[:2])
    effects, effect_errors = _averaged(weights, *parts[2:])
    return JobEffects(
        logs=logs, log_errors=log_errors, effects=effects, effect_errors=effect_errors
    )


def _solve(
    job: NDArray[Any], model: NDArray[Any], y: FloatArray, variances: FloatArray
) -> tuple[FloatArray, ...]:
    """Solve for each of the k job deviations, with known variances of the measurements.

    Returns the log likelihoods (k,), the models' logs and their variances (k, n_models), and the
    job effects and their variances (k, n_jobs).
    """
    n_jobs, n_models, weight = job.max() + 1, model.max() + 1, 1.0 / variances
    weights = np.zeros((n_models, n_jobs))
    np.add.at(weights, (model, job), weight)
    total = weights.sum(axis=1)
    shares = weights / total[:, np.newaxis]
    mean = np.bincount(model, weight * y, n_models) / total
    residual = y - mean[model]
    # Equations of the job effects once the models are eliminated; the prior adds to its diagonal.
    matrix = np.diag(weights.sum(axis=0)) - weights.T @ shares
    eigenvalues, vectors = np.linalg.eigh(matrix)
    precision = _JOB_DEVIATIONS[:, np.newaxis] ** -2
    inverse = 1.0 / (eigenvalues.clip(0.0) + precision)
    right = vectors.T @ np.bincount(job, weight * residual, n_jobs)
    misfit = (weight * residual**2).sum() - (inverse * right**2).sum(axis=1)
    likelihood = np.log(weight).sum() - np.log(total).sum() - misfit
    likelihood = 0.5 * (likelihood + (np.log(inverse) + np.log(precision)).sum(axis=1))
    of_models = (shares - 1.0 / n_jobs) @ vectors
    of_jobs = vectors - vectors.mean(axis=0)
    return (
        likelihood,
        mean - (inverse * right) @ of_models.T,
        1.0 / total + inverse @ (of_models**2).T,
        (inverse * right) @ of_jobs.T,
        inverse @ (of_jobs**2).T,
    )


def _log_prior(deviations: FloatArray, scale: float) -> FloatArray:
    """Return the log density, up to a constant, of a half-t prior on a logarithmic grid.

    It has 3 degrees of freedom; source: Gelman, Prior distributions for variance parameters in
    hierarchical models, Bayesian Analysis 1, 2006.
    """
    density: FloatArray = np.log(deviations) - 2.0 * np.log1p((deviations / scale) ** 2 / 3.0)
    return density


def _averaged(
    weights: FloatArray, means: FloatArray, variances: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean and deviation, (n,), of a mixture of (..., n) normal distributions."""
    flat = weights.ravel()
    means, variances = (each.reshape(len(flat), -1) for each in (means, variances))
    mean = flat @ means
    return mean, np.sqrt(flat @ (variances + (means - mean) ** 2))
