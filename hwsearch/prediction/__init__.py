"""Regression with uncertainty on encoded architectures, without networks and devices."""

from hwsearch.prediction.base import Surrogate
from hwsearch.prediction.gaussian_process import GaussianProcess
from hwsearch.prediction.predictor import Predictor
from hwsearch.prediction.target_transform import TransformedGaussianProcess

__all__ = ["GaussianProcess", "Predictor", "TransformedGaussianProcess", "Surrogate"]
