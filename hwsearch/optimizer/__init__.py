"""Multi-objective search over architectures by asking and telling, independent of networks."""

from hwsearch.optimizer.optimize import Result, SearchProgress, optimize
from hwsearch.optimizer.optimizer import Optimizer
from hwsearch.optimizer.tactics import Tactic, load_tactic, tactic_names

__all__ = [
    "Optimizer",
    "Result",
    "SearchProgress",
    "Tactic",
    "load_tactic",
    "optimize",
    "tactic_names",
]
