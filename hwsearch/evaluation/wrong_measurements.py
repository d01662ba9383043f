"""Jobs some of whose measurements are wrong: likelihoods and job effects of every case.

A wrong measurement is one whose process was disturbed, so that it is off by tens of percent. Which
ones are wrong is unknown: each set of at most two of a job is a *case*, and what a job tells is
averaged over its cases by their probabilities. Source: Box and Tiao, A Bayesian approach to some
outlier problems, Biometrika 55, 1968.
"""

from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

WRONG_SHARE: Final = 0.005  # of measurements
WRONG_DEVIATION: Final = 0.2  # of a wrong one, in logarithms
_MOST_WITH_PAIRS: Final = 8  # measurements; of more of them, one at most is taken to be wrong


class Cases:
    """The c cases of n jobs with s measurements each, for k pairs of deviations.

    `update` computes the attributes from the logs of the models.

    Attributes:
        jobs: (n,) numbers of the jobs.
        models: (s, n) numbers of the measured models.
        likelihood: (k,) log likelihood of all measurements.
        score: (s, k, n) its derivative by the log of each measurement's model.
        information: (s, s, k, n) mean information on these logs, over cases.

    Args:
        jobs, models: See above.
        logs: (s, n) measured log ratios.
        variances: (s, n) their variances within the job.
        process: (k,) standard deviations between processes.
        deviation: (k,) standard deviations of job effects.
    """

    likelihood: FloatArray
    score: FloatArray
    information: FloatArray

    def __init__(
        self,
        jobs: IntArray,
        models: IntArray,
        logs: FloatArray,
        variances: FloatArray,
        process: FloatArray,
        deviation: FloatArray,
    ) -> None:
        self.jobs, self.models, self._logs = jobs, models, logs[:, np.newaxis]
        self._wrong = _sets(len(models))
        right = variances[:, np.newaxis] + process[:, np.newaxis] ** 2
        wrong = right + WRONG_DEVIATION**2
        # Weights (s, k, n) of right measurements, and by how much that of a wrong one is lower.
        self._weights, self._less = 1.0 / right, 1.0 / wrong - 1.0 / right
        prior = deviation[:, np.newaxis] ** -2
        self._precision = self._of_cases(self._weights, self._less) + prior
        n_wrong = self._wrong.sum(axis=1)
        chance = n_wrong * np.log(WRONG_SHARE) + (len(models) - n_wrong) * np.log1p(-WRONG_SHARE)
        spread = self._of_cases(np.log(right), np.log(wrong / right)) + np.log(
            self._precision / prior
        )
        self._constant = chance[:, np.newaxis, np.newaxis] - 0.5 * spread

    def _of_cases(self, right: FloatArray, more: FloatArray) -> FloatArray:
        """Return sums over measurements (c, k, n), to which each wrong one adds ``more``."""
        summed: FloatArray = right.sum(axis=0)
        return summed + _combined(self._wrong, more)

    def _of_measurements(self, values: FloatArray) -> FloatArray:
        """Return sums (s, k, n) over cases of values (c, k, n) times the weights."""
        summed: FloatArray = values.sum(axis=0)
        return self._weights * summed + self._less * _combined(self._wrong.T, values)

    def update(self, logs: FloatArray) -> None:
        """Compute the probability of every case, and what is averaged over cases.

        Args:
            logs: (k, n_models) logs of the models.
        """
        weights, less, wrong = self._weights, self._less, self._wrong
        residuals = self._residuals = self._logs - np.moveaxis(logs[:, self.models], 0, 1)
        pulls, fewer = weights * residuals, less * residuals
        self._effects = self._of_cases(pulls, fewer) / self._precision
        misfit = self._of_cases(pulls * residuals, fewer * residuals)
        log_shares = self._constant - 0.5 * (misfit - self._effects**2 * self._precision)
        peak = log_shares.max(axis=0)
        shares = np.exp(log_shares - peak)
        total = shares.sum(axis=0)
        self._shares = shares = shares / total
        self.likelihood = (peak + np.log(total)).sum(axis=1)
        mean = weights + less * _combined(wrong.T, shares)
        self.score = mean * residuals - self._of_measurements(shares * self._effects)
        # Mean of u u' / a, for the weights u of a case and their sum a with the prior's.
        inverse = self._inverse = shares / self._precision
        crossed = weights[:, np.newaxis] * (less * _combined(wrong.T, inverse))
        both = (wrong[:, :, np.newaxis] * wrong[:, np.newaxis]).reshape(len(wrong), -1)
        outer = weights[:, np.newaxis] * weights * inverse.sum(axis=0)
        outer += crossed + np.swapaxes(crossed, 0, 1)
        outer += less[:, np.newaxis] * less * _combined(both.T, inverse).reshape(outer.shape)
        self.information = -outer
        place = np.arange(len(mean))
        self.information[place, place] += mean

    def effects(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return job effects (k, n), their variances (k, n), and slopes (s, k, n).

        They are for given logs of the models; a slope is by how much the effect falls when the
        log of a measurement's model rises. Variances include what cases differ by.
        """
        means = (self._shares * self._effects).sum(axis=0)
        squares = (self._inverse + self._shares * self._effects**2).sum(axis=0)
        return means, squares - means**2, self._of_measurements(self._inverse)

    def disagreement(self) -> FloatArray:
        """Return the covariances over cases (s, s, k, n) of the scores of measurements."""
        wrong = self._wrong[..., np.newaxis, np.newaxis]
        cases = self._weights + self._less * wrong
        scores = cases * (self._residuals - self._effects[:, np.newaxis]) - self.score
        found: FloatArray = np.einsum("ckn,cikn,cjkn->ijkn", self._shares, scores, scores)
        return found


def cases_of_jobs(
    jobs: IntArray,
    models: IntArray,
    logs: FloatArray,
    variances: FloatArray,
    process: FloatArray,
    deviation: FloatArray,
) -> list[Cases]:
    """Return the cases of jobs, by their numbers of measurements.

    Args:
        jobs: (n,) number of each measurement's job.
        models: (n,) number of its model.
        logs: (n,) measured log ratios.
        variances: (n,) their variances within the job.
        process: (k,) standard deviations between processes.
        deviation: (k,) standard deviations of job effects.
    """
    order = np.argsort(jobs, kind="stable")
    sizes = np.bincount(jobs)[jobs[order]]
    found = []
    for size in np.unique(sizes):
        rows = order[sizes == size].reshape(-1, size).T
        there = jobs[rows[0]], models[rows], logs[rows], variances[rows]
        found.append(Cases(*there, process, deviation))
    return found


def _sets(n: int) -> FloatArray:
    """Return the cases of n measurements, (c, n), 1 where one is wrong; the first has none."""
    most = min(n, 2 if n <= _MOST_WITH_PAIRS else 1)
    sets = [wrong for size in range(most + 1) for wrong in combinations(range(n), size)]
    return np.array([[float(i in wrong) for i in range(n)] for wrong in sets])


def _combined(factors: FloatArray, values: FloatArray) -> FloatArray:
    """Return the linear combinations (m, k, n) of values (c, k, n) with factors (m, c)."""
    flat = factors @ values.reshape(len(values), -1)
    return flat.reshape(-1, *values.shape[1:])
