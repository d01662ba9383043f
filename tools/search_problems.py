"""Problems that searches are measured on: recorded results, other spaces, known fronts."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np

import hwsearch
from hwsearch.objectives import FloatArray, Objective, hypervolume, to_losses
from hwsearch.optimizer.nsga2 import nsga2
from hwsearch.space import Architectures, Choice, SearchSpace

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "bench"
LISTED = 200_000  # a space up to this size is evaluated as a whole
Values = Callable[[Architectures], FloatArray]


class Recorded:
    """Top-1 and MACs of ofa-mbv3-w1.0, the way a user has them.

    Top-1 is that of a regression, fitted to published ImageNet evaluations of its subnets; MACs
    are those of ``net.exact``.

    Args:
        folder: Holds ``run_dynast.py`` and the table that it reads.
    """

    def __init__(self, folder: Path = RECORDED) -> None:
        script = folder / "run_dynast.py"
        if not script.is_file():
            raise SystemExit(f"{folder} holds no run_dynast.py: the recorded results are needed")
        self.net = hwsearch.load_supernet("ofa-mbv3-w1.0", checkpoint="random:0")
        self.space = self.net.space
        self.objectives = (
            Objective("top1", "max"),
            Objective("macs", "min", exact=lambda archs: self.net.exact("macs", archs)),
        )
        self._regression = load_module(script).CsvSurrogate()
        self._columns = [
            (self.space.names.index(f"stage{stage}.block{block}.{what}"), option)
            for stage in range(1, 6)
            for block in range(1, 5)
            for what in ("kernel", "expand")
            for option in range(3)
        ] + [
            (self.space.names.index(f"stage{stage}.depth"), option)
            for stage in range(1, 6)
            for option in range(3)
        ]

    def top1(self, archs: Architectures) -> FloatArray:
        """Top-1 in percent, ``(n,)``."""
        choice, option = np.array(self._columns).T
        chosen = np.where(archs.active, archs.indices, -1)[:, choice] == option
        regression = self._regression
        top1: FloatArray = regression.m.predict(chosen * 1.0) * regression.sd + regression.mu
        return top1

    def evaluate(self, archs: Architectures) -> list[dict[str, float]]:
        """What `hwsearch.optimize` asks for."""
        return [{"top1": float(top1)} for top1 in self.top1(archs)]


def load_module(path: Path) -> ModuleType:
    """Import a Python file from where it lies."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Problem:
    """Objectives over a space, all of them cheap to compute.

    Attributes:
        name: What is special about it.
        space: The search space.
        objectives: Those with ``exact`` are known to a search, the others told.
        values: Architectures to ``(n, n_objectives)`` in their units.
    """

    name: str
    space: SearchSpace
    objectives: tuple[Objective, ...]
    values: Values

    def losses(self, archs: Architectures) -> FloatArray:
        """``(n, n_objectives)``, minimised."""
        return to_losses(self.values(archs), self.objectives)

    @cached_property
    def reference(self) -> FloatArray:
        """Losses a tenth of the range beyond the worst of 2,000 random architectures."""
        losses = self.losses(self.space.sample(2000, 0))
        worst: FloatArray = losses.max(axis=0) + 0.1 * np.ptp(losses, axis=0)
        return worst

    @cached_property
    def ceiling(self) -> float:
        """Hypervolume of everything, or of the front after 150,000 direct evaluations."""
        if self.space.size <= LISTED:
            return hypervolume(self.losses(self.space.enumerate(LISTED)), self.reference)
        found = nsga2(
            lambda archs: (self.losses(archs), None),
            self.space.sample_distinct(500, 0),
            np.random.default_rng(0),
            population=500,
            generations=300,
        )
        return hypervolume(self.losses(found), self.reference)

    def evaluate(self, archs: Architectures) -> list[dict[str, float]]:
        """What `hwsearch.optimize` asks for."""
        names = [objective.name for objective in self.objectives]
        return [dict(zip(names, row, strict=True)) for row in self.values(archs).tolist()]

    def volume(self, archs: Architectures) -> float:
        """Hypervolume of some architectures."""
        return hypervolume(self.losses(archs), self.reference)

    def share_closed(self, archs: Architectures, seed: int) -> float:
        """How much of the gap that as many random ones leave (median of 25 sets) these close."""
        sets = [self.space.sample_distinct(len(archs), (seed, 9, i)) for i in range(25)]
        chance = float(np.median([self.volume(each) for each in sets]))
        return (self.volume(archs) - chance) / (self.ceiling - chance)


def problems() -> list[Problem]:
    """All of them; the same in every run."""
    return [
        _known_front(),
        _operators(6, 5),
        _operators(22, 7),
        _jagged(),
        _flat("5 choices", 5, 5),
        _flat("60 choices, 3 objectives", 60, 3, third=True),
        _unrelated(),
    ]


def _known_front() -> Problem:
    """Separable gains and costs, small enough to list: the front is known exactly."""
    return _flat("known front, 10 choices", 10, 3)


def _flat(name: str, n_choices: int, n_options: int, *, third: bool = False) -> Problem:
    """Ordered choices of two kinds; gains differ by choice, saturate, and interact a little."""
    space = SearchSpace(
        [
            Choice(f"stage{i // 4}.{'kernel' if i % 2 else 'width'}{i}", tuple(range(n_options)))
            for i in range(n_choices)
        ]
    )
    rng = np.random.default_rng(n_choices)
    gains = rng.gamma(2.0, 0.5, (n_choices, n_options - 1)) * np.linspace(1.0, 0.5, n_options - 1)
    costs = rng.gamma(3.0, 0.4, (n_choices, n_options - 1)) + 0.1
    sizes = rng.gamma(3.0, 0.4, (n_choices, n_options - 1)) + 0.1
    pairs = rng.integers(n_choices, size=(n_choices, 2))

    def total(archs: Architectures, table: FloatArray) -> FloatArray:
        sums = np.concatenate([np.zeros((n_choices, 1)), np.cumsum(table, axis=1)], axis=1)
        found: FloatArray = sums[np.arange(n_choices), archs.indices].sum(axis=1)
        return found

    def values(archs: Architectures) -> FloatArray:
        level = archs.indices / (n_options - 1)
        together = (level[:, pairs[:, 0]] * level[:, pairs[:, 1]]).sum(axis=1)
        quality = total(archs, gains) + 0.3 * together
        top1 = 80.0 - 25.0 * np.exp(-2.5 * quality / gains.sum())
        columns = [top1, total(archs, costs), total(archs, sizes)]
        return np.column_stack(columns[: 3 if third else 2])

    objectives = [Objective("top1", "max"), Objective("cost", "min", exact=_column(values, 1))]
    if third:
        objectives.append(Objective("size", "min", exact=_column(values, 2)))
    return Problem(name, space, tuple(objectives), values)


def _operators(n_edges: int, n_operators: int) -> Problem:
    """Unordered operators on the edges of a cell; both objectives are measured."""
    names = ("none", "skip", "conv1", "conv3", "pool", "conv5", "dilated")[:n_operators]
    space = SearchSpace([Choice(f"edge{i}", names) for i in range(n_edges)])
    rng = np.random.default_rng(n_edges)
    good = np.array([-1.5, 0.3, 0.6, 1.0, 0.0, 1.1, 0.8])[:n_operators]
    dear = np.array([0.0, 0.05, 0.5, 1.6, 0.3, 2.6, 1.2])[:n_operators]
    weight = rng.uniform(0.4, 1.6, n_edges)
    off = rng.normal(0.0, 0.25, (n_edges, n_operators))
    pair = rng.normal(0.0, 0.25, (n_edges, n_operators, n_operators))

    def values(archs: Architectures) -> FloatArray:
        place, chosen = np.arange(n_edges), archs.indices
        quality = (weight * good[chosen] + off[place, chosen]).sum(axis=1)
        after = np.roll(chosen, -1, axis=1)
        quality = (quality + pair[place, chosen, after].sum(axis=1)) / n_edges
        dead = (chosen == 0).mean(axis=1)
        top1 = 94.0 - 12.0 * np.exp(-1.2 * quality) - 30.0 * np.maximum(dead - 0.5, 0.0)
        cost = 1.0 + (dear[chosen] * (0.5 + weight)).sum(axis=1)
        return np.column_stack([top1, cost])

    name = f"unordered, {n_edges} edges of {n_operators}"
    return Problem(name, space, (Objective("top1", "max"), Objective("latency", "min")), values)


def _jagged() -> Problem:
    """Widths whose measured latency climbs in tiles, with ties and a cliff; depths hide blocks."""
    choices = []
    for stage in range(4):
        depth = f"stage{stage}.depth"
        choices.append(Choice(depth, (1, 2, 3)))
        for block in range(3):
            deep = tuple(range(block + 1, 4))
            active = (depth, deep) if block else None
            choices.append(
                Choice(f"stage{stage}.block{block}.width", (16, 24, 32, 40, 48), active)
            )
    space = SearchSpace(choices)
    rng = np.random.default_rng(4)
    worth = rng.uniform(0.5, 1.5, len(choices))
    is_width = np.array([choice.name.endswith("width") for choice in choices])
    channels = np.array([16, 24, 32, 40, 48])

    def values(archs: Architectures) -> FloatArray:
        width = np.where(archs.active & is_width, channels[archs.indices], 0)
        quality = (worth * np.log1p(width / 8.0)).sum(axis=1)
        top1 = 78.0 - 20.0 * np.exp(-quality / 9.0)
        tiles = np.ceil(width / 16.0) + (width == 40)  # an odd width falls off the fast path
        latency = 1.0 + 0.2 * tiles.sum(axis=1) + 0.1 * archs.active[:, is_width].sum(axis=1)
        return np.column_stack([top1, np.round(latency, 1)])

    objectives = (Objective("top1", "max"), Objective("latency", "min"))
    return Problem("jagged and tied latency", space, objectives, values)


def _unrelated() -> Problem:
    """Names, order and options are uninformative: every choice is a kind of its own."""
    plain = _flat("unrelated names, 24 choices", 24, 4)
    order = np.random.default_rng(5).permutation(24)
    letters = "abcdefghijklmnopqrstuvwx"
    space = SearchSpace([Choice(letters[i], (1, 2, 3, 4 + i)) for i in order])

    def values(archs: Architectures) -> FloatArray:
        shuffled = np.empty_like(archs.indices)
        shuffled[:, order] = archs.indices
        return plain.values(plain.space.from_indices(shuffled))

    objectives = (Objective("top1", "max"), Objective("cost", "min", exact=_column(values, 1)))
    return Problem(plain.name, space, objectives, values)


def _column(values: Values, column: int) -> Callable[[Architectures], FloatArray]:
    def of(archs: Architectures) -> FloatArray:
        found: FloatArray = values(archs)[:, column]
        return found

    return of
