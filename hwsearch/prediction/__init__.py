"""Regression with uncertainty on encoded architectures; knows no network and no device."""

from hwsearch.prediction.base import Surrogate
from hwsearch.prediction.gaussian_process import GaussianProcess
from hwsearch.prediction.predictor import Predictor
from hwsearch.prediction.target_transform import SaturatingProcess

__all__ = ["GaussianProcess", "Predictor", "SaturatingProcess", "Surrogate"]
