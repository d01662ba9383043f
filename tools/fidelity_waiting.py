"""A rule that was tried: score everything in part, complete what can still matter on the front.

A candidate is scored on a part of the images, and told as an estimate. A few are completed while
the search goes on, so that the others are paired with outcomes near their own; at the end the
waiting ones are, the greatest expected gain first, for as long as all of them together add to the
front. It needs the optimiser's `revise` and nothing else of hwsearch that does not ship.
"""

from typing import Any

import numpy as np
from fidelity_cases import Bench

from hwsearch.accuracy.racing import paired_estimate, race_order
from hwsearch.objectives import Estimate, FloatArray, hypervolume, to_losses
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.history import N_FIRST, beyond_worst
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.optimizer.posterior import Posterior, believed
from hwsearch.prediction.threads import one_blas_thread
from hwsearch.space import Architectures

FIRST_LOOK = 0.1  # share of the images
COMPLETED = 0.1  # share of the candidates that are completed while the search goes on
LEAST_ADDED = 0.001  # of the hypervolume, by all that are still waiting
_AT_ONCE = 8
_N_DRAWS = 16


class Waiting:
    """Scores a search's candidates by that rule.

    Every round looks at other images: errors that all candidates share would be taken for gains
    of what they have in common.

    Args:
        bench: Knows the outcomes.
        optimizer: Told by the caller, and revised here.

    Attributes:
        images: Scored so far.
    """

    def __init__(self, bench: Bench, optimizer: Optimizer) -> None:
        self.images = 0
        self._bench, self._optimizer = bench, optimizer
        self._order = race_order(bench.targets, seed=0)
        self._total = len(self._order)
        self._first_look = round(FIRST_LOOK * self._total)
        self._whole: dict[str, FloatArray] = {}  # outcomes of the completed, in that order
        self._waiting: list[str] = []

    def scores(self, archs: Architectures) -> list[dict[str, Any]]:
        """Score a round's candidates, the first few of a search on all images."""
        told = len(self._optimizer.history.told)
        if self._waiting and len(self._whole) < N_FIRST + COMPLETED * (told - N_FIRST):
            self._complete(self._worth(1))
        values: list[dict[str, Any]] = []
        begin = self._optimizer.rounds * self._first_look
        part = np.arange(begin, begin + self._first_look) % self._total
        for key, row in zip(archs.ids, self._bench.outcomes(archs), strict=True):
            outcomes = row[self._order]
            if len(self._whole) < N_FIRST:
                self._whole[key] = outcomes
                self.images += self._total
                values.append({"top1": outcomes.mean() * 100})
                continue
            members = np.array(list(self._whole.values())).T
            seen = outcomes[part], members[part], members.mean(axis=0)
            found = paired_estimate(*seen, self._total)
            values.append({"top1": Estimate(found.value * 100, found.deviation * 100)})
            self._waiting.append(key)
            self.images += self._first_look
        return values

    def finish(self) -> None:
        """Complete what is worth it."""
        while self._waiting and (keys := self._worth(_AT_ONCE)):
            self._complete(keys)

    def _complete(self, keys: list[str]) -> None:
        if not keys:
            return
        archs = self._told(keys)
        outcomes = self._bench.outcomes(archs)
        self._optimizer.revise(archs, [{"top1": row.mean() * 100} for row in outcomes])
        for key, row in zip(keys, outcomes, strict=True):
            self._whole[key] = row[self._order]
            self._waiting.remove(key)
            self.images += self._total - self._first_look

    def _worth(self, n: int) -> list[str]:
        """Up to n of the waiting, greedily by what they are expected to add."""
        history, archs = self._optimizer.history, self._told(self._waiting)
        with one_blas_thread():
            posterior = Posterior(history)
            forecast, known = posterior.forecast(archs), believed(history, posterior)
        losses = to_losses(forecast.mean, history.objectives)
        reference = beyond_worst(to_losses(known, history.objectives)[history.succeeded])
        front = history.losses[history.front]
        rng = np.random.default_rng((self._optimizer.seed, len(self._waiting)))
        draws = losses + forecast.deviation * rng.standard_normal((_N_DRAWS, *losses.shape))
        chosen: list[int] = []
        left = list(range(len(losses)))
        while left and len(chosen) < n:
            everything = hypervolume(np.concatenate([front, losses[left]]), reference)
            if 1 - hypervolume(front, reference) / everything < LEAST_ADDED:
                break
            flat = draws[:, left].reshape(-1, losses.shape[1])
            gains = hypervolume_gain(flat, front, reference).reshape(_N_DRAWS, -1).mean(axis=0)
            best = left[int(np.argmax(gains))]
            left.remove(best)
            chosen.append(best)
            front = np.concatenate([front, losses[[best]]])
        return [self._waiting[position] for position in chosen]

    def _told(self, keys: list[str]) -> Architectures:
        told = self._optimizer.history.told
        place = {key: row for row, key in enumerate(told.ids)}
        return told[np.array([place[key] for key in keys], dtype=np.int64)]
