"""Search problems with everything known about them."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from hwsearch.encoding import onehot
from hwsearch.objectives import Objective, hypervolume, is_non_dominated, to_losses
from hwsearch.space import Architectures, Choice, SearchSpace


def elastic_space(n_stages: int, n_widths: int = 3) -> SearchSpace:
    """Stages of depth 1 to 3; the second and third block exist from that depth on."""
    choices = []
    for stage in range(n_stages):
        depth = f"s{stage}.depth"
        choices.append(Choice(depth, (1, 2, 3)))
        for block in range(3):
            active = (depth, tuple(range(block + 1, 4))) if block else None
            choices.append(Choice(f"s{stage}.b{block}.width", (16, 24, 32, 48)[:n_widths], active))
    return SearchSpace(choices)


def flat_space(n_choices: int, n_options: int = 3) -> SearchSpace:
    return SearchSpace([Choice(f"c{i}", tuple(range(n_options))) for i in range(n_choices)])


def operator_space(n_choices: int) -> SearchSpace:
    """Unordered choices only: nothing is smaller or larger."""
    operators = ("conv", "pool", "attention", "identity")
    return SearchSpace([Choice(f"op{i}", operators) for i in range(n_choices)])


@dataclass(frozen=True)
class Tabular:
    """Values of any architecture from per-option gains, saturating, with interactions.

    ``quality`` rises to a ceiling, ``cost`` and ``memory`` grow with other weights.
    """

    space: SearchSpace
    seed: int = 0

    def values(self, archs: Architectures) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        options = onehot(archs)
        steps = np.concatenate([np.arange(1, len(c.options) + 1) for c in self.space.choices])
        ordered = np.concatenate([np.full(len(c.options), c.ordered) for c in self.space.choices])
        sizes = np.where(ordered, steps, rng.integers(1, 6, len(steps)))
        gains = sizes * rng.uniform(0.4, 1.6, len(steps))
        pairs = rng.integers(0, options.shape[1], (len(self.space.choices), 2))
        together = (options[:, pairs[:, 0]] * options[:, pairs[:, 1]]).sum(axis=1)
        total = options @ gains + 0.5 * together
        scale = sum(len(c.options) for c in self.space.choices)
        return {
            "quality": 80.0 - 30.0 * np.exp(-2.0 * total / scale),
            "cost": options @ np.round(sizes * rng.uniform(1.0, 4.0, len(steps))),
            "memory": options @ (sizes * rng.uniform(0.5, 2.0, len(steps))),
        }

    def exact(self, name: str):
        return lambda archs: self.values(archs)[name]

    def evaluate(self, archs: Architectures) -> list[dict[str, float]]:
        values = self.values(archs)
        return [
            {name: float(column[i]) for name, column in values.items()} for i in range(len(archs))
        ]

    def objectives(self, *, measured_cost: bool = False) -> list[Objective]:
        cost = None if measured_cost else self.exact("cost")
        return [Objective("quality", "max"), Objective("cost", "min", exact=cost)]

    def losses(self, objectives: list[Objective]) -> tuple[Architectures, np.ndarray]:
        """All architectures and their losses."""
        everything = self.space.enumerate(200_000)
        values = self.values(everything)
        columns = np.column_stack([values[objective.name] for objective in objectives])
        return everything, to_losses(columns, objectives)

    def front(self, objectives: list[Objective]) -> set[str]:
        return set(_known(self, tuple(o.name for o in objectives)).keys)

    def share(self, found: np.ndarray, objectives: list[Objective]) -> float:
        """Hypervolume of rows of values, as a share of what the whole space holds."""
        known = _known(self, tuple(o.name for o in objectives))
        return hypervolume(to_losses(found, objectives), known.reference) / known.best


@dataclass(frozen=True)
class _Known:
    keys: list[str]
    reference: np.ndarray
    best: float


@cache
def _known(table: Tabular, names: tuple[str, ...]) -> _Known:
    directions = {"quality": "max"}
    objectives = [Objective(name, directions.get(name, "min")) for name in names]
    everything, losses = table.losses(objectives)
    front = np.flatnonzero(is_non_dominated(losses))
    reference = losses.max(axis=0) + 0.1 * np.ptp(losses, axis=0)
    return _Known(everything[front].ids, reference, hypervolume(losses[front], reference))
