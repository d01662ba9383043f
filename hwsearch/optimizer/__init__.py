"""Space-agnostic optimisation: it sees a space, objectives and told results, and no network."""

from hwsearch.optimizer.optimize import Progress, Result, optimize
from hwsearch.optimizer.optimizer import Optimizer
from hwsearch.optimizer.tactics import Tactic, load_tactic, tactic_names

__all__ = [
    "Optimizer",
    "Progress",
    "Result",
    "Tactic",
    "load_tactic",
    "optimize",
    "tactic_names",
]
