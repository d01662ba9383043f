"""Effects of timing jobs, which shift all latencies of a job by a common factor.

Jobs and models form an incomplete block design: log ratio = model + job effect + error. Source of
the solution for given variances: Henderson, Best linear unbiased estimation and prediction under
a selection model, Biometrics 31, 1975. A few measurements are wrong, see
`hwsearch.evaluation.wrong_measurements`.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.evaluation.wrong_measurements import Cases, cases_of_jobs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Standard deviations in logarithms that are tried: scales of their priors times powers of two.
# Jobs that differed by 12% were seen, and 0.3% between processes that timed the same model.
_JOB_SCALE: Final = 0.04
_PROCESS_SCALE: Final = 0.003
_JOB_DEVIATIONS: Final = np.array([_JOB_SCALE * 2.0**n for n in range(-5, 3)])
_PROCESS_DEVIATIONS: Final = np.array([_PROCESS_SCALE * 2.0**n for n in range(-2, 5)])
_HUBER: Final = 1.345  # standard deviations; efficient to 95% where errors are normal
_START_STEPS: Final = 10
_MOST_STEPS: Final = 20
_SMALL_STEP: Final = 1e-5  # in logarithms, below which the steps end
_NEGLIGIBLE: Final = 8.0  # in log likelihood, below the most likely pair of deviations


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
    """Estimate models and job effects from n measurements.

    Job effects have a normal prior around 0, so that a job that shares no model with others is
    not corrected. The deviations of job effects and between processes are unknown: solutions are
    averaged over a grid of both, weighted by the likelihood of the measurements, and within a job
    over which measurements are wrong. Errors include what these solutions differ by.

    Args:
        jobs: (n,) number of each measurement's job, from 0 without gaps.
        models: (n,) number of its model, likewise.
        log_ratios: (n,) log of the measured ratio to the anchor.
        variances: (n,) variances of those within the job, from 0.
    """
    job, model = np.asarray(jobs, np.int64), np.asarray(models, np.int64)
    y, within = np.asarray(log_ratios, np.float64), np.asarray(variances, np.float64)
    grid = np.meshgrid(_PROCESS_DEVIATIONS, _JOB_DEVIATIONS, indexing="ij")
    process, deviation = (axis.ravel() for axis in grid)
    # A model that was measured once tells nothing about job effects.
    repeated = np.bincount(model)[model] > 1
    names, place = np.unique(model[repeated], return_inverse=True)
    n_jobs, n_models = int(job.max()) + 1, int(model.max()) + 1
    there = job[repeated], place, y[repeated], within[repeated]
    prior = _log_prior(process, _PROCESS_SCALE) + _log_prior(deviation, _JOB_SCALE)
    start = np.tile(_robust_logs(*there, n_jobs, len(names)), (len(prior), 1))
    first = _step(cases_of_jobs(*there, process, deviation), start)
    likely = first.likelihood + prior
    kept = likely > likely.max() - _NEGLIGIBLE
    process, deviation, prior = process[kept], deviation[kept], prior[kept]
    cases = cases_of_jobs(*there, process, deviation)
    likelihood, effects, of_effects, *of_names = _solve(cases, first.logs[kept], n_jobs, deviation)

    once = ~repeated
    logs, of_logs = np.empty((2, len(process), n_models))
    logs[:, names], of_logs[:, names] = of_names
    logs[:, model[once]] = y[once] - effects[:, job[once]]
    own = within[once] + process[:, np.newaxis] ** 2
    of_logs[:, model[once]] = own + of_effects[:, job[once]]
    weights = np.exp(likelihood + prior - (likelihood + prior).max())
    weights /= weights.sum()
    mean_logs, log_errors = _averaged(weights, logs, of_logs)
    mean_effects, effect_errors = _averaged(weights, effects, of_effects)
    return JobEffects(
        logs=mean_logs, log_errors=log_errors, effects=mean_effects, effect_errors=effect_errors
    )


class _Step(NamedTuple):
    """Logs (k, n_names) after a step, their log likelihoods (k,), and the information on them."""

    logs: FloatArray
    likelihood: FloatArray
    information: FloatArray


def _step(cases: list[Cases], logs: FloatArray) -> _Step:
    """Do a step of expectation maximisation, for k pairs of deviations at a time.

    Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM
    algorithm, Journal of the Royal Statistical Society B 39, 1977.
    """
    k, n = logs.shape
    score, likelihood = np.zeros((k, n)), np.zeros(k)
    for each in cases:
        each.update(logs)
        _add(score, each.models, each.score)
        likelihood += each.likelihood
    information = _matrix(cases, [each.information for each in cases], (k, n, n))
    step = np.linalg.solve(information, score[..., np.newaxis])[..., 0]
    likelihood += 0.5 * ((score * step).sum(axis=1) - np.linalg.slogdet(information)[1])
    return _Step(logs + step, likelihood, information)


def _solve(
    cases: list[Cases], logs: FloatArray, n_jobs: int, deviation: FloatArray
) -> tuple[FloatArray, ...]:
    """Solve for each of k pairs of deviations, from given logs (k, n_names) of repeated models.

    Returns the log likelihoods (k,), the job effects and their variances (k, n_jobs), and the
    logs and their variances (k, n_names), relative to the mean job.
    """
    k, n = logs.shape
    before, (logs, likelihood, information) = logs, _step(cases, logs)
    for _ in range(_MOST_STEPS):
        if np.abs(logs - before).max(initial=0.0) < _SMALL_STEP:
            break
        before, (logs, likelihood, information) = logs, _step(cases, logs)
    inverse = np.asarray(np.linalg.inv(information), np.float64)
    disagreement = _matrix(cases, [each.disagreement() for each in cases], (k, n, n))
    covariance = inverse + inverse @ disagreement @ inverse

    effects, slopes = np.zeros((k, n_jobs)), np.zeros((k, n_jobs, n))
    variances = np.tile(deviation[:, np.newaxis] ** 2, n_jobs)
    for each in cases:
        effects[:, each.jobs], variances[:, each.jobs], of_models = each.effects()
        for models, slope in zip(each.models, of_models, strict=True):
            slopes[:, each.jobs, models] += slope
    mean, of_mean = effects.mean(axis=1, keepdims=True), slopes.mean(axis=1, keepdims=True)
    shared = variances.sum(axis=1, keepdims=True) / n_jobs**2
    return (
        likelihood,
        effects - mean,
        variances * (1.0 - 2.0 / n_jobs) + shared + _spread(slopes - of_mean, covariance),
        logs + mean,
        shared + _spread(np.eye(n) - of_mean, covariance),
    )


def _spread(directions: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the variances (k, m) along directions (k, m, n)."""
    found: FloatArray = ((directions @ covariance) * directions).sum(axis=-1)
    return found


def _matrix(
    cases: list[Cases], blocks: list[FloatArray], shape: tuple[int, int, int]
) -> FloatArray:
    """Return the sum (k, n, n) of blocks (s, s, k, n_jobs) of the models of jobs."""
    total = np.zeros((shape[0], shape[1] * shape[2]))
    for each, block in zip(cases, blocks, strict=True):
        _add(total, each.models[:, np.newaxis] * shape[2] + each.models, block)
    return total.reshape(shape)


def _add(total: FloatArray, places: IntArray, values: FloatArray) -> None:
    """Add values (..., k, n_jobs) to columns of a total (k, n), by places (..., n_jobs)."""
    order = np.argsort(places, axis=None, kind="stable")
    columns, starts = np.unique(places.ravel()[order], return_index=True)
    flat = np.moveaxis(values, -2, 0).reshape(len(total), -1)
    total[:, columns] += np.add.reduceat(flat[:, order], starts, axis=1)


def _robust_logs(
    job: IntArray, model: IntArray, y: FloatArray, within: FloatArray, n_jobs: int, n_models: int
) -> FloatArray:
    """Return logs of models, (n_models,), that a few wrong measurements do not move by much.

    They are where steps begin: from the least-squares solution these may end where most
    measurements count as wrong. Source: Huber, Robust estimation of a location parameter, Annals
    of Mathematical Statistics 35, 1964; by iteratively reweighted least squares.
    """
    scale = np.sqrt(within + _PROCESS_SCALE**2)
    weight, logs = scale**-2, np.zeros(n_models)
    if not n_models:
        return logs
    for _ in range(_START_STEPS):
        table = np.bincount(model * n_jobs + job, weight, n_models * n_jobs)
        table = table.reshape(n_models, n_jobs)
        total = table.sum(axis=0) + _JOB_SCALE**-2
        matrix = np.diag(table.sum(axis=1)) - table / total @ table.T
        right = np.bincount(model, weight * y, n_models)
        right -= table @ (np.bincount(job, weight * y, n_jobs) / total)
        logs = np.linalg.solve(matrix, right)
        effects = np.bincount(job, weight * (y - logs[model]), n_jobs) / total
        residuals = np.abs(y - logs[model] - effects[job]) / scale
        weight = np.minimum(1.0, _HUBER / np.maximum(residuals, _HUBER)) / scale**2
    return logs


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
    """Return mean and deviation, (n,), of a mixture of k normal distributions (k, n)."""
    mean = weights @ means
    return mean, np.sqrt(weights @ (variances + (means - mean) ** 2))
