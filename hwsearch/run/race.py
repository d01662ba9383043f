"""Races: candidates are scored on more and more images until they cannot reach the front."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.racing import (
    Look,
    chance_if_better,
    find_rival,
    next_look,
    paired_estimate,
    race_order,
    schedule,
)
from hwsearch.accuracy.scoring import Outcomes
from hwsearch.accuracy.task import SplitSamples, Takeable
from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import REUSED, Evaluator, Prepared
from hwsearch.evaluation.measurements import LATENCY, noisy_low, score_measurement
from hwsearch.objectives import Estimate, FloatArray, satisfied, to_losses
from hwsearch.optimizer.history import History
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Predicting, Setup
from hwsearch.space import Architecture
from hwsearch.trials import Measurement, Purpose

DOMINATED, OUT_OF_BOUNDS = "dominated", "out of bounds"


@dataclass(slots=True, kw_only=True)
class Entrant:
    """A candidate in a race.

    Attributes:
        arch: The architecture.
        model: Its file.
        cost_s: Seconds spent on it that no measurement has recorded yet.
        calibrated: Calibration samples run for it that none has recorded yet.
        rival: Mean outcome, maximised, of the member of the front that may dominate it; None
            where none can, and it breaks a constraint whatever its score.
        look: The next one; None for the end.
        seen: Outcomes so far, in the order of the race.
    """

    arch: Architecture
    model: Path
    cost_s: float
    calibrated: float
    rival: float | None
    look: Look | None
    seen: NDArray[Any] = field(default_factory=lambda: np.empty(0))


class Race:
    """Scores candidates as far as it takes to know that they will not be on the front.

    What was scored on all images, on the front or not, tells what a candidate's outcomes on some
    of them say about the others. What is dropped is remembered for the purpose ``race`` only: its
    estimate teaches the search, and it can enter no front.

    Args:
        evaluator: Scores and remembers.
        history: Of the search; its front is what candidates have to reach.
        samples: What the search scores by, in any order.
    """

    def __init__(self, evaluator: Evaluator, history: History, samples: Takeable) -> None:
        self.evaluator, self.history = evaluator, history
        self.metric = evaluator.task.metric
        self.column = [o.name for o in history.objectives].index(self.metric.name)
        self.total = len(self._search)
        self.order = race_order(self._search.targets, evaluator.seed)
        self.looks = schedule(self.total)
        # Outcomes times this are maximised.
        larger_is_better = (self.metric.direction == "max") == (self.metric.scale > 0)
        self.sign = 1.0 if larger_is_better else -1.0
        self._samples, self._parts = samples, dict[tuple[int, int], SplitSamples]()

    def scores(
        self, ready: Mapping[Architecture, Prepared]
    ) -> dict[Architecture, EvaluationError]:
        """Score candidates, some on all images, and remember it.

        Args:
            ready: Models of what has neither a score nor been dropped. Latencies, where they are
                an objective, are known.

        Returns:
            Why others have no score.
        """
        outcomes = [m.samples for m in self.compared_with() if m.samples is not None]
        entrants = list(self._entrants(ready)) if outcomes else []
        racing = {entrant.arch for entrant in entrants}
        alone = {arch: begun for arch, begun in ready.items() if arch not in racing}
        failed = self.evaluator.search_scores(alone)
        if entrants:
            members = np.array(outcomes, np.float64).T[self.order] * self.sign
            while entrants:
                entrants = self._advance(entrants, members, failed)
        return failed

    def compared_with(self) -> list[Measurement]:
        """Return the scores, with their outcomes, of all that was scored on all images."""
        keys = self.history.told[self.history.measured].ids
        found = [self.evaluator.remembered(key, self.metric.name) for key in keys]
        return [measurement for measurement in found if measurement is not None]

    def dropped(self, key: str) -> Estimate | None:
        """Return the estimate of what a candidate would have scored, if it was dropped."""
        found = self.evaluator.store.measurements(key, self.metric.name, "race")
        return dropped(found).get(key)

    @property
    def saved(self) -> str | None:
        """What it has saved so far, in a sentence; None where it dropped nothing."""
        measured = self.evaluator.store.measurements(quantity=self.metric.name)
        n_dropped = len(dropped(measured))
        if not n_dropped:
            return None
        here = [m for m in measured if REUSED not in m.details]
        scored = [m for m in here if m.purpose in ("race", "search")]
        images = sum(m.details.get("images", m.count) for m in scored)
        n_trials = len({m.key for m in scored})
        share = images / (n_trials * self.total)
        return (
            f"{n_dropped} of {n_trials} candidates were dropped before all {self.total} images "
            f"had been seen, so that {share:.0%} of the images were scored"
        )

    @property
    def _search(self) -> SplitSamples:
        return self.evaluator.task.search

    def _entrants(self, ready: Mapping[Architecture, Prepared]) -> Iterator[Entrant]:
        """Those of the candidates that something may drop."""
        front = self.history.losses[self.history.front]
        hopeful = self._hopeful(list(ready))
        losses = to_losses(hopeful, self.history.objectives)
        able = self._within_bounds(hopeful)
        for row, (arch, begun) in enumerate(ready.items()):
            rival = find_rival(losses[row], front, self.column)
            if able[row] and rival is None:
                continue
            # Losses are scaled means, turned to minimisation.
            best = front[rival, self.column] if able[row] and rival is not None else None
            yield Entrant(
                arch=arch,
                model=begun.path,
                cost_s=begun.cost_s,
                calibrated=begun.calibrated,
                rival=None if best is None else -float(best) / abs(self.metric.scale),
                look=self.looks[0],
            )

    def _hopeful(self, archs: Sequence[Architecture]) -> FloatArray:
        """Values ``(n, n_objectives)``, noisy ones at the good end; NaN in the raced column."""
        batch = self.history.space.architectures(archs)
        values = self.history.exact(batch)
        for column, objective in enumerate(self.history.objectives):
            if isinstance(objective.exact, Predicting):
                values[:, column] = objective.exact.interval(batch)[1]
            elif objective.name == LATENCY and objective.exact is None:
                found = [self.evaluator.remembered(arch.key, LATENCY) for arch in archs]
                values[:, column] = [noisy_low(measurement) for measurement in found]
        return values

    def _within_bounds(self, hopeful: FloatArray) -> NDArray[np.bool_]:
        """Which rows keep all constraints but those on the score."""
        names = [objective.name for objective in self.history.objectives]
        others = [c for c in self.history.constraints if c.objective != self.metric.name]
        if not others:
            return np.ones(len(hopeful), dtype=np.bool_)
        return satisfied(dict(zip(names, hopeful.T, strict=True)), others)

    def _advance(
        self,
        entrants: Sequence[Entrant],
        members: FloatArray,
        failed: dict[Architecture, EvaluationError],
    ) -> list[Entrant]:
        """Take every candidate to its next look; those that go on come back.

        Args:
            entrants: The candidates.
            members: ``(total, n_members)`` outcomes of what was scored on all images, maximised,
                in this order.
            failed: Receives those that cannot be scored.
        """
        known = {entrant.arch: self._known(entrant) for entrant in entrants}
        new = self._score([entrant for entrant in entrants if known[entrant.arch] is None])
        going_on = []
        for entrant in entrants:
            scored = known[entrant.arch] or new[entrant.arch]
            if isinstance(scored, EvaluationError):
                failed[entrant.arch] = scored
                continue
            samples = _samples(scored)
            entrant.seen = np.concatenate([entrant.seen, samples]).astype(samples.dtype)
            entrant.cost_s += scored.cost_s if isinstance(scored, Outcomes) else 0.0
            if entrant.look is None:
                self._finish(entrant, {"images": len(samples)})
                continue
            verdict = self._verdict(entrant, members, entrant.look)
            if isinstance(scored, Outcomes):
                details = {"images": len(samples), **verdict}
                self._remember(entrant, "race", self._context(entrant.look), samples, details)
            if not verdict:
                entrant.look = self._next(entrant, members)
                going_on.append(entrant)
        return going_on

    def _score(
        self, entrants: Sequence[Entrant]
    ) -> dict[Architecture, Outcomes | EvaluationError]:
        """Score candidates on the images up to their next looks, same images together."""
        models = defaultdict[tuple[int, int], dict[Architecture, Path]](dict)
        for entrant in entrants:
            end = self.total if entrant.look is None else entrant.look.count
            models[len(entrant.seen), end][entrant.arch] = entrant.model
        found: dict[Architecture, Outcomes | EvaluationError] = {}
        for (begin, end), together in models.items():
            found |= self.evaluator.outcomes(together, self._part(begin, end))
        return found

    def _part(self, begin: int, end: int) -> SplitSamples:
        if (begin, end) not in self._parts:
            self._parts[begin, end] = self._samples.take(self.order[begin:end])
        return self._parts[begin, end]

    def _known(self, entrant: Entrant) -> Measurement | None:
        """What an interrupted race remembered of a candidate's next look."""
        if entrant.look is None:
            return None
        key, context = entrant.arch.key, self._context(entrant.look)
        return self.evaluator.store.find(key, self.metric.name, context, "race")

    def _context(self, look: Look) -> str:
        whole = self.evaluator.score_context(self._search)
        return f"{whole} order={self.evaluator.seed} seen={look.count}"

    def _verdict(self, entrant: Entrant, members: FloatArray, look: Look) -> dict[str, Any]:
        """Why a candidate is dropped, and what its score is estimated to be; or nothing."""
        paired = self._paired(entrant, members)
        if entrant.rival is None:
            why = OUT_OF_BOUNDS
        elif chance_if_better(*paired, entrant.rival, self.total) <= look.level:
            why = DOMINATED
        else:
            return {}
        found = paired_estimate(*paired, self.total)
        return {
            "dropped": why,
            "estimate": found.value * self.sign * self.metric.scale,
            "deviation": found.deviation * abs(self.metric.scale),
        }

    def _next(self, entrant: Entrant, members: FloatArray) -> Look | None:
        assert entrant.rival is not None
        found = paired_estimate(*self._paired(entrant, members), self.total)
        return next_look(self.looks, len(entrant.seen), found, entrant.rival, self.total)

    def _paired(
        self, entrant: Entrant, members: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        seen = entrant.seen.astype(np.float64) * self.sign
        return seen, members[: len(seen)], members.mean(axis=0)

    def _finish(self, entrant: Entrant, details: Mapping[str, Any]) -> None:
        """Remember a candidate's score, its outcomes in the order of the samples."""
        whole = np.empty_like(entrant.seen)
        whole[self.order] = entrant.seen
        context = self.evaluator.score_context(self._search)
        self._remember(entrant, "search", context, whole, details)

    def _remember(
        self,
        entrant: Entrant,
        purpose: Purpose,
        context: str,
        samples: NDArray[Any],
        details: Mapping[str, Any],
    ) -> None:
        measurement = score_measurement(
            entrant.arch.key,
            entrant.seen,
            self.metric,
            context,
            purpose,
            entrant.cost_s,
            **details,
            calibrated=entrant.calibrated,
        )
        self.evaluator.store.add(replace(measurement, samples=samples))
        entrant.cost_s = entrant.calibrated = 0.0


def _samples(scored: Outcomes | Measurement) -> NDArray[Any]:
    return scored.outcomes if isinstance(scored, Outcomes) else np.asarray(scored.samples)


def find_race(
    setup: Setup, evaluator: Evaluator, history: History, progress: Progress
) -> Race | None:
    """Return the race of a run; None where it is off, or its samples are too few or fixed.

    Args:
        setup: The parts of the run.
        evaluator: Scores and remembers.
        history: Of the search.
        progress: Told where the samples cannot be raced on.
    """
    samples = setup.task.search
    scored = setup.task.scores and setup.task.metric.name in setup.measured
    if not (setup.config.race and scored):
        return None
    if not isinstance(samples, Takeable):
        progress.note(
            f"every candidate is scored on all {len(samples)} samples: data "
            f"{setup.config.data!r} cannot be put into another order; give its samples a method "
            "take(rows), as hwsearch.Samples has it"
        )
        return None
    race = Race(evaluator, history, samples)
    return race if race.looks else None


def dropped(measurements: Iterable[Measurement]) -> dict[str, Estimate]:
    """Return what the measurements say of candidates that races dropped: key -> the estimate."""
    return {
        m.key: Estimate(m.details["estimate"], m.details["deviation"])
        for m in measurements
        if m.purpose == "race" and "dropped" in m.details
    }
