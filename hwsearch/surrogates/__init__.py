"""Regression with uncertainty on encoded architectures; knows no network and no device."""

from hwsearch.surrogates.base import Surrogate
from hwsearch.surrogates.gaussian_process import GaussianProcess
from hwsearch.surrogates.predictor import Predictor
from hwsearch.surrogates.saturating import SaturatingProcess

__all__ = ["GaussianProcess", "Predictor", "SaturatingProcess", "Surrogate"]
