"""Accuracy as a fitted predictor knows it: the prior of a search, or all there is without data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.intervals import Z95
from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.prediction.installed import find_predictor, load_predictor
from hwsearch.run.basis import Basis
from hwsearch.run.setup import Setup
from hwsearch.space import Architectures
from hwsearch.supernets.base import Supernet


class PredictedAccuracy:
    """Predicts the accuracy of architectures that are not evaluated.

    Args:
        predictor: Of the supernet.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def __call__(self, archs: Architectures) -> NDArray[np.float64]:
        """Predict n accuracies: (n,) in the metric's unit."""
        return self._predictor.predict_mean(archs)

    def interval(self, archs: Architectures) -> tuple[NDArray[np.float64], ...]:
        """Predict n accuracies with their 95% intervals: value, low and high, (n,) each."""
        mean, deviation = self._predictor.predict(archs)
        return mean, mean - Z95 * deviation, mean + Z95 * deviation


def _paths(setup: Setup) -> Sequence[Path]:
    metric = setup.task.metric.name
    unwanted = setup.config.prior == "off" and setup.task.scores
    if unwanted or metric not in [objective.name for objective in setup.objectives]:
        return []
    found = find_predictor(setup.net.family, metric)
    return [] if found is None else [found]


def _applied(setup: Setup, path: Path) -> tuple[Setup, str]:
    metric = setup.task.metric.name
    predictor = load_predictor(path, setup.net.space)
    name, of = f"{path.parent.name}/{path.name}", _weights(setup.net, predictor)
    objective = setup.objective(metric)
    if setup.task.scores:
        text = f"{metric} is predicted by {name} to choose, and then measured{of}"
        changed = replace(objective, approximation=predictor.predict_mean)
    else:
        text = f"candidates are chosen by what {name} predicts{of}"
        changed = replace(objective, exact=PredictedAccuracy(predictor), predicted=True)
    return setup.with_objective(changed), text


def _weights(net: Supernet, predictor: Predictor) -> str:
    """Say where the predictor was fitted to other weights than these."""
    fitted = str(predictor.facts.get("weights", ""))
    if fitted and net.digest.startswith(fitted):
        return ""
    of = predictor.facts.get("checkpoint") or fitted or "a checkpoint that its card does not name"
    return f"; it was fitted to {of}, and the weights here are {net.weights}"


PREDICTOR = Basis(
    recorded="predictor",
    what="accuracy predictor",
    paths=_paths,
    applied=_applied,
    without="accuracy is predicted from measured values alone",
)


def with_predictor(setup: Setup) -> Setup:
    """Let a new search predict accuracy: to choose what it measures, or, without data, instead.

    Raises:
        InputError: There are no data, and no predictor that can be used.
    """
    if setup.task.scores:
        return PREDICTOR.offered(setup)
    metric, paths = setup.task.metric.name, _paths(setup)
    if not paths:
        raise InputError(
            f"data {NO_DATA!r} needs a predictor of {metric} for {setup.net.family!r}, and there "
            f"is none; fit one to a CSV of evaluated architectures by tools/fit_predictor.py, or "
            "give images by --data imagefolder:PATH"
        )
    return PREDICTOR.used(setup, paths[0])
