"""Space-agnostic optimisation: it sees a space, objectives and told results, and no network."""

from hwsearch.optimizer.optimize import Progress, Result, optimize
from hwsearch.optimizer.optimizer import Optimizer
from hwsearch.optimizer.tactics import TACTICS

__all__ = ["Optimizer", "Progress", "Result", "TACTICS", "optimize"]
