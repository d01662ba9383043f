"""Gradient-boosted trees, for targets that are not additive."""

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import InputError
from hwsearch.prediction.base import (
    FloatArray,
    IntArray,
    check_features,
    check_fitted,
    check_rows,
    mean_and_scale,
    take_array,
)

_SETTINGS: Final = {
    "objective": "reg:squarederror",
    "base_score": 0.0,
    "max_depth": 4,
    "eta": 0.2,
    "subsample": 0.8,
    "colsample_bynode": 0.5,
    "lambda": 1.0,
    "tree_method": "hist",
    "max_bin": 16,
    "seed": 0,
    "nthread": 1,
    "verbosity": 0,
}
_ROUNDS: Final = 100
_FOLDS: Final = 4


class TreeModel:
    """Gradient-boosted regression trees (Chen and Guestrin, XGBoost, KDD 2016).

    The deviation is the same everywhere: the root mean squared error of 4-fold cross-validation,
    less the known noise. Deterministic.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit n rows; see `Surrogate.fit`."""
        rows, values, known = check_rows(X, y, noise)
        self.mean_, self.spread_ = mean_and_scale(values)
        targets, noises = (values - self.mean_) / self.spread_, known / self.spread_
        off = np.ones(len(values))
        if len(values) > _FOLDS:
            off = targets - _left_out(rows, targets, noises, np.arange(len(values)) % _FOLDS)
        variance = float((off**2).mean() - (noises**2).mean())
        self.deviation_ = self.spread_ * float(np.sqrt(max(variance, 1e-6)))
        self.n_features_ = rows.shape[1]
        self._trees = _train(rows, targets, noises)
        return self

    def cross_validate(
        self, rows: FloatArray, values: FloatArray, noise: FloatArray, fold: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Predict left-out rows; a fold's deviation is the RMSE on the other folds."""
        center, spread = mean_and_scale(values)
        mean = center + spread * _left_out(rows, (values - center) / spread, noise / spread, fold)
        squares = np.maximum((values - mean) ** 2, (1e-3 * spread) ** 2)
        n, total = np.bincount(fold), np.bincount(fold, squares)
        others = (total.sum() - total) / np.maximum(n.sum() - n, 1)
        return mean, np.sqrt(others)[fold]

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation; see `Surrogate.predict`."""
        check_fitted(self, "deviation_")
        rows = check_features(X, self.n_features_)
        mean = self.mean_ + self.spread_ * _predict(self._trees, rows)
        return mean, np.full(len(rows), self.deviation_)

    def widen(self, factor: float) -> None:
        """Multiply the deviation by a factor above 0, until the next fit."""
        check_fitted(self, "deviation_")
        self.deviation_ *= factor

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all parameters; the trees are the bytes of XGBoost's JSON."""
        check_fitted(self, "deviation_")
        text = bytes(self._trees.save_raw("json"))
        return {
            "trees": np.frombuffer(text, dtype=np.uint8),
            "numbers": np.array([self.mean_, self.spread_, self.deviation_, self.n_features_]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model of a state; see `Parametric.from_state`."""
        xgboost = _xgboost()
        numbers = take_array(state, "numbers", 1)
        text = take_array(state, "trees", 1).astype(np.uint8).tobytes()
        if numbers.shape != (4,) or (numbers[1:3] <= 0).any() or numbers[3] % 1:
            raise InputError(f"'numbers' are {numbers.tolist()}; mean, spread, deviation, columns")
        model = cls()
        model.mean_, model.spread_, model.deviation_ = map(float, numbers[:3])
        model.n_features_ = int(numbers[3])
        try:
            json.loads(text)
            model._trees = xgboost.Booster(_SETTINGS, model_file=bytearray(text))
        except (ValueError, RecursionError) as error:  # XGBoost's own error is a ValueError
            raise InputError(f"'trees' are no trees: {str(error)[:200]}") from error
        if model._trees.num_features() != model.n_features_:
            raise InputError(
                f"'trees' take {model._trees.num_features()} columns, not {model.n_features_}"
            )
        return model


def _xgboost() -> Any:
    try:
        return import_module("xgboost")
    except ImportError as error:
        raise InputError(
            "surrogate 'trees' needs XGBoost; install it by pip install 'hwsearch[trees]'"
        ) from error


def _train(rows: FloatArray, targets: FloatArray, noise: FloatArray) -> Any:
    xgboost = _xgboost()
    # A precise row counts once; one whose noise is as large as the spread of all counts half.
    data = xgboost.DMatrix(rows, targets, weight=1.0 / (1.0 + noise**2))
    return xgboost.train(_SETTINGS, data, _ROUNDS)


def _left_out(
    rows: FloatArray, targets: FloatArray, noise: FloatArray, fold: IntArray
) -> FloatArray:
    """Predict every target by trees that were trained on the other folds."""
    mean = np.empty(len(targets))
    for number in np.unique(fold):
        out = fold == number
        mean[out] = _predict(_train(rows[~out], targets[~out], noise[~out]), rows[out])
    return mean


def _predict(trees: Any, rows: FloatArray) -> FloatArray:
    predicted: FloatArray = trees.inplace_predict(rows.astype(np.float32)).astype(np.float64)
    return predicted
