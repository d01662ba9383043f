"""`optimize`: search over a function, from the first proposal to the front."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsearch.constraints import Constraint
from hwsearch.errors import EvaluationError, InfeasibleError, InputError
from hwsearch.objectives import Objective, hypervolume, to_losses
from hwsearch.optimizer.optimizer import Optimizer, reference_losses
from hwsearch.optimizer.stopping import Stopping
from hwsearch.space import Architectures, SearchSpace

if TYPE_CHECKING:
    import pandas as pd

Outcome = Mapping[str, float] | None
Evaluate = Callable[[Architectures], Sequence[Outcome]]

_OWN_COLUMNS = ("key", "round", "state", "reason", "feasible")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress:
    """Figures of a search after a round.

    Attributes:
        evaluated: Number of trials, failed ones included.
        budget: Largest number of trials.
        front: Number of trials on the front.
        hypervolume: Of the front, against the optimiser's own reference point.
    """

    evaluated: int
    failed: int
    budget: int
    front: int
    hypervolume: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of a search.

    Attributes:
        trials: One row per evaluated architecture, in order: ``key``, ``round``, one column per
            choice (absent where inactive), one per objective (NaN where the trial failed),
            ``state`` (``done`` or ``failed``), ``reason`` (of a failure), ``feasible``.
        front: The feasible, non-dominated rows of it, best first objective first.
        exhausted: Whether every architecture of the space was evaluated, so that the front is
            the true one of all that did not fail.
        ended: Reason why the search ended before its budget was spent; else empty.
    """

    trials: pd.DataFrame
    front: pd.DataFrame
    objectives: tuple[Objective, ...]
    exhausted: bool
    ended: str = ""

    def hypervolume(self, reference: Mapping[str, float]) -> float:
        """Return the front's hypervolume up to a point with a value for every objective.

        Raises:
            InputError: The point misses an objective, names another, or is not finite.
        """
        values = self.front[[objective.name for objective in self.objectives]].to_numpy(float)
        losses = to_losses(values, self.objectives)
        return hypervolume(losses, reference_losses(reference, self.objectives))

    def __str__(self) -> str:
        n_failed = int((self.trials["state"] == "failed").sum())
        failed = f", {n_failed} of them failed" if n_failed else ""
        whole = "; the space is exhausted: there are no others" if self.exhausted else ""
        ended = f"; {self.ended}" if self.ended and not self.exhausted else ""
        return f"{len(self.front)} on the front of {len(self.trials)} trials{failed}{whole}{ended}"


def optimize(
    space: SearchSpace,
    evaluate: Evaluate,
    objectives: Iterable[Objective],
    *,
    budget: int,
    seed: int = 0,
    constraints: Iterable[str | Constraint] = (),
    tactic: str = "hwsearch",
    batch: int | None = None,
    start: Architectures | Sequence[Architectures] | None = None,
    minutes: float | None = None,
    stop_gain: float | None = None,
    progress: Callable[[SearchProgress], None] | None = None,
) -> Result:
    """Search for the Pareto-optimal architectures of any function over a space.

    Args:
        space: The search space.
        evaluate: Takes `Architectures` and returns for each a mapping with the measured
            objectives. ``None``, a value that is not finite, or an exception is a failed trial;
            where a batch raises, its architectures are tried again one at a time.
        objectives: 1 to 4; one with ``exact`` is computed instead of evaluated.
        budget: Number of evaluations; fewer where the space has no more.
        seed: The same seed and the same values give the same trials.
        constraints: Such as ``"macs <= 400e6"``, on objectives.
        tactic: A registered name, such as ``"hwsearch"`` or ``"random"``; see `Optimizer`.
        batch: Largest number of architectures per call of ``evaluate``; by default the tactic's.
        start: Architectures worth evaluating first; see `Optimizer`.
        minutes: Wall time after which no further round begins.
        stop_gain: Percent: the search ends when the next 50 evaluations are expected to add less
            than this share of the hypervolume (`Optimizer.expected_gain`).
        progress: Called after every round.

    Raises:
        InputError: An invalid argument, or a result without a measured objective.
        InfeasibleError: Nothing evaluated satisfies the constraints; the text names the closest.
        EvaluationError: Every trial failed; the text has the reason of the first.
    """
    optimizer = Optimizer(
        space,
        objectives,
        seed=seed,
        constraints=constraints,
        tactic=tactic,
        batch=batch,
        start=start,
    )
    stopping = Stopping(budget=budget, minutes=minutes, stop_gain=stop_gain)
    _check_columns(optimizer)
    rows: list[dict[str, Any]] = []
    ended, began = "", time.monotonic()
    while len(rows) < budget and not ended:
        archs = optimizer.ask(min(optimizer.batch, budget - len(rows)))
        if not len(archs):
            ended = f"the search space is exhausted after {len(rows)} architectures"
            break
        values, reasons = _evaluated(evaluate, archs)
        optimizer.tell(archs, values)
        rows.extend(
            {"key": key, "round": optimizer.rounds - 1, "reason": reason}
            for key, reason in zip(archs.ids, reasons, strict=True)
        )
        if progress is not None:
            progress(_progress(optimizer, budget))
        if len(rows) < budget:
            ended = stopping.reason(optimizer, time.monotonic() - began)
    return _result(optimizer, rows, ended)


def _check_columns(optimizer: Optimizer) -> None:
    taken = {*optimizer.space.names, *_OWN_COLUMNS}
    for objective in optimizer.objectives:
        if objective.name in taken:
            raise InputError(
                f"objective {objective.name!r} has the name of a choice, or of a column of the "
                "result; give it another name"
            )


def _evaluated(evaluate: Evaluate, archs: Architectures) -> tuple[list[Outcome], list[str | None]]:
    """Return results in order, and the reason of every failure."""
    try:
        values = list(evaluate(archs))
    except Exception as error:  # noqa: BLE001  # any error of the function fails the trial
        if len(archs) == 1:
            return [None], [f"{type(error).__name__}: {error}"]
        parts = [_evaluated(evaluate, archs[[place]]) for place in range(len(archs))]
        return [part[0][0] for part in parts], [part[1][0] for part in parts]
    if len(values) != len(archs):
        raise InputError(
            f"evaluate returned {len(values)} results for {len(archs)} architectures; "
            "it must return one for each"
        )
    return values, [_reason(entry) for entry in values]


def _reason(entry: Outcome) -> str | None:
    if entry is None:
        return "evaluate returned None"
    wrong = [name for name, value in entry.items() if not _is_finite(value)]
    return ", ".join(f"{name} is {entry[name]}" for name in wrong) or None


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _progress(optimizer: Optimizer, budget: int) -> SearchProgress:
    succeeded = optimizer.history.succeeded
    return SearchProgress(
        evaluated=len(succeeded),
        failed=int((~succeeded).sum()),
        budget=budget,
        front=len(optimizer.front()),
        hypervolume=optimizer.hypervolume(),
    )


def _result(optimizer: Optimizer, rows: list[dict[str, Any]], ended: str) -> Result:
    history = optimizer.history
    if not history.succeeded.any():
        raise EvaluationError(f"all {len(rows)} trials failed; the first: {rows[0]['reason']}")
    if not history.front.any():
        raise InfeasibleError(optimizer.closest_to_feasible())
    trials = _frame(optimizer, rows)
    first = optimizer.objectives[0]
    front = trials[history.front].drop(columns=["state", "reason", "feasible"])
    front = front.sort_values(first.name, ascending=first.direction == "min", kind="stable")
    return Result(
        trials=trials,
        front=front.reset_index(drop=True),
        objectives=optimizer.objectives,
        exhausted=optimizer.exhausted,
        ended=ended,
    )


def _frame(optimizer: Optimizer, rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    history = optimizer.history
    done, archs = history.succeeded, [arch.mapping for arch in history.told]
    return pd.DataFrame(
        {
            "key": [row["key"] for row in rows],
            "round": [row["round"] for row in rows],
            **{name: [arch.get(name) for arch in archs] for name in optimizer.space.names},
            **{o.name: history.values[:, j] for j, o in enumerate(optimizer.objectives)},
            "state": np.where(done, "done", "failed"),
            "reason": [None if ok else row["reason"] for ok, row in zip(done, rows, strict=True)],
            "feasible": history.feasible(history.values),
        }
    )
