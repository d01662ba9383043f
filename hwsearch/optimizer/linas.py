"""Tactic `linas`, for comparison: predictors refitted each round, NSGA-II on their predictions.

Cummings, Sarah, Sridhar, Szankin, Munoz and Sundaresan, "A Hardware-Aware Framework for
Accelerating Neural Architecture Search Across Modalities", 2022, algorithm 1, with the settings of
its implementation DyNAS-T 1.6 for OFA-MobileNetV3. The differences favour it: exact objectives are
computed instead of predicted, inactive choices are not encoded, no architecture is evaluated
twice, and the inner search knows the constraints.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from hwsearch.encoding import onehot
from hwsearch.objectives import FloatArray
from hwsearch.optimizer.history import History
from hwsearch.optimizer.tactics import Tactic, propose_random
from hwsearch.space import Architectures

POPULATION: Final = 50
GENERATIONS: Final = 400  # of 50: 20,000 predictions

_FOLDS: Final = 5
_RIDGE: Final = {"alpha": np.arange(0.1, 10.1, 0.1)}
_SVR: Final = {"C": np.arange(1.0, 101.0)}


def propose_by_linas(
    history: History, n: int, seed: int, rng: np.random.Generator
) -> Architectures:
    """Propose 50 random architectures, then the last populations of inner searches.

    A round is as published for n = 50; for fewer, it draws from the population.
    """
    missing = POPULATION - len(history.asked)
    if missing > 0:
        return propose_random(history, min(n, missing), seed, rng)
    if history.succeeded.sum() < _FOLDS:
        return propose_random(history, n, seed, rng)
    found = _inner_search(history, rng).unique(history.asked)
    return found[rng.permutation(len(found))[:n]]


def _inner_search(history: History, rng: np.random.Generator) -> Architectures:
    from hwsearch.optimizer.nsga2 import nsga2

    space, known = history.space, history.succeeded
    rows = onehot(history.told[known])
    predictors = {
        column: _fitted(rows, history.values[known, column])
        for column, objective in enumerate(history.objectives)
        if objective.computed is None
    }

    def evaluate(archs: Architectures) -> tuple[FloatArray, FloatArray | None]:
        values = history.exact(archs)
        encoded = onehot(archs)
        for column, predict in predictors.items():
            values[:, column] = predict(encoded)
        return history.judged(values)

    start = space.sample_distinct(POPULATION, rng)
    return nsga2(evaluate, start, rng, population=POPULATION, generations=GENERATIONS)


def _fitted(rows: FloatArray, values: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return the better of ridge and support vector regression, each after a grid search.

    Both are scored by the mean absolute percentage error of five-fold cross-validation, on targets
    scaled to between 10 and 100.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVR

    largest = np.abs(values).max()
    unit = 10.0 ** (np.floor(np.log10(largest)) - 1.0) if largest > 0 else 1.0
    scoring = "neg_mean_absolute_percentage_error"
    searches = [
        GridSearchCV(Ridge(), _RIDGE, cv=_FOLDS, scoring=scoring),
        GridSearchCV(SVR(gamma="auto", epsilon=0.0), _SVR, cv=_FOLDS, scoring=scoring),
    ]
    state = np.random.get_state()  # noqa: NPY002  # libsvm draws from it
    for search in searches:
        search.fit(rows, values / unit)
    np.random.set_state(state)  # noqa: NPY002
    best = max(searches, key=lambda search: search.best_score_).best_estimator_
    return lambda encoded: best.predict(encoded) * unit


TACTIC: Final = Tactic(propose=propose_by_linas, batch=POPULATION)
