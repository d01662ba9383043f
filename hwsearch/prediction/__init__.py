"""Regression with uncertainty on encoded architectures, without networks and devices."""

from hwsearch.prediction.base import Surrogate
from hwsearch.prediction.gaussian_process import GaussianProcess, TransformedGaussianProcess
from hwsearch.prediction.predictor import Predictor

__all__ = ["GaussianProcess", "Predictor", "TransformedGaussianProcess", "Surrogate"]
