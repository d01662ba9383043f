"""Calibration of predicted deviations, by the errors on values that were held out, job by job.

Values of one measuring job share a deviation of their own, which says how far a value of another
job may lie. An interval made from values of the same jobs is too narrow.
"""

from typing import Final, NamedTuple

import numpy as np
from scipy.special import stdtrit

from hwsearch.prediction.base import FloatArray, IntArray

_JOB: Final = 8  # values that are measured together
_FEWEST, _MOST = 4, 10  # jobs; each costs a fit


class Calibration(NamedTuple):
    """``factor`` of the deviations, at least 1, and the degrees of freedom that it is known by.

    The default is that of a model whose deviations were not compared with any value.
    """

    factor: float = 1.0
    degrees: float = float(_FEWEST)

    def quantile_95(self) -> float:
        """Return half of a 95% interval in deviations, by Student's distribution."""
        return float(stdtrit(self.degrees, 0.975))


def job_numbers(n: int) -> IntArray:
    """Return the numbers of the jobs to hold out, (n,), for values in the order of measurement.

    All are 0 where the values are too few.
    """
    n_jobs = min(max(n // _JOB, _FEWEST), _MOST)
    jobs: IntArray = np.arange(n) * (n_jobs if n >= _FEWEST else 0) // max(n, 1)
    return jobs


def calibrated(errors: FloatArray, jobs: IntArray) -> Calibration:
    """Return the calibration by held-out errors, (n,), in predicted deviations.

    The degrees of freedom are n divided by the design effect: the more alike the errors of a job
    are, by the analysis of variance, the less each of them tells (Kish, Survey sampling, 1965).
    """
    n, numbers = len(errors), np.unique(jobs)
    groups = [errors[jobs == number] for number in numbers]
    size = n / len(groups)
    between = sum(len(group) * group.mean() ** 2 for group in groups) / len(groups)
    within = sum(len(group) * group.var() for group in groups) / max(n - len(groups), 1)
    alike = (between - within) / max(between + (size - 1.0) * within, 1e-300)
    degrees = n / (1.0 + (size - 1.0) * min(max(alike, 0.0), 1.0))
    return Calibration(max(1.0, float(np.sqrt(np.mean(errors**2)))), float(degrees))
