"""Forecast of the hypervolume that further evaluations add."""

from typing import Final

import numpy as np

from hwsearch.objectives import FloatArray, from_losses, hypervolume, to_losses
from hwsearch.optimizer.history import History
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.optimizer.tactics import MIN_SUCCESSES

_N_DRAWS: Final = 32
_OPTIMISM: Final = 2.0  # deviations
_STREAM: Final = 7  # separates its random numbers from those of the proposals


def expected_gain(history: History, n: int, seed: int) -> float | None:
    """Return the hypervolume that n more evaluations are expected to add if chosen now.

    Values of the n most promising candidates are drawn from their predictions, failures and
    missed constraints among them, and the hypervolume that the draws add is averaged. What the
    search learns meanwhile is left out: in the tests and on recorded ImageNet results the search
    then added one to three times as much. It is 0 where nothing is left to propose, None where
    there are too few values for surrogates. The same history gives the same number.
    """
    if history.succeeded.sum() < MIN_SUCCESSES or not history.measured.any():
        return None
    if not history.n_left:
        return 0.0
    from hwsearch.prediction.threads import one_blas_thread

    with one_blas_thread():
        return _simulated(history, n, np.random.default_rng((seed, len(history.told), _STREAM)))


def _simulated(history: History, n: int, rng: np.random.Generator) -> float:
    from hwsearch.optimizer.acquisition import find_candidates
    from hwsearch.optimizer.posterior import Posterior, posterior_values

    posterior = Posterior(history)
    forecast = posterior.forecast(find_candidates(history, posterior, rng))
    losses = to_losses(forecast.mean, history.objectives)
    known, reference = posterior_values(history, posterior), history.reference
    assert reference is not None
    front = to_losses(known[history.non_dominated(known)], history.objectives)
    optimistic = hypervolume_gain(losses - _OPTIMISM * forecast.deviation, front, reference)
    best = np.argsort(-optimistic * forecast.success, kind="stable")[:n]
    before = hypervolume(front, reference)
    gains = []
    for _ in range(_N_DRAWS):
        drawn: FloatArray = losses[best] + forecast.deviation[best] * rng.standard_normal(
            losses[best].shape
        )
        happens = rng.random(len(best)) < forecast.success[best]
        happens &= history.feasible(from_losses(drawn, history.objectives))
        gains.append(hypervolume(np.concatenate([front, drawn[happens]]), reference) - before)
    return float(np.mean(gains))
