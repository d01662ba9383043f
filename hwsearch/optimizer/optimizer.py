"""`Optimizer`: multi-objective search by asking and telling."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hwsearch.constraints import Constraint, check_constraints, closest_to_feasible
from hwsearch.errors import InputError, unknown
from hwsearch.objectives import (
    FloatArray,
    Objective,
    check_objectives,
    from_losses,
    hypervolume,
    to_losses,
)
from hwsearch.optimizer.history import History, Told
from hwsearch.optimizer.tactics import MIN_SUCCESSES, load_tactic
from hwsearch.space import Architectures, SearchSpace
from hwsearch.threads import one_blas_thread

_GAIN_STREAM = 7  # separates random numbers of expected gains from those of proposals


class Optimizer:
    """Multi-objective search over the architectures of a space, by asking and telling.

    Proposals depend only on the seed, the number of rounds so far, the told results in the order
    of telling, and what is pending; so a search is resumed in another process by `ask_recorded`
    and `tell`. No architecture is proposed twice, failed ones included.

    Args:
        space: The search space.
        objectives: 1 to 4; the exact ones are computed, the measured ones told.
        seed: Not negative.
        constraints: Such as ``"latency <= 12"``, on objectives.
        tactic: A registered name (`hwsearch.optimizer.tactic_names`). ``"hwsearch"``: an initial
            design graded by size, then rounds of surrogates, NSGA-II on their predictions, and a
            batch chosen by expected hypervolume gain. ``"additive"``: integer programming on
            additive models. ``"linas"``: NSGA-II on predictions alone, 50 at a time, as
            published. ``"nsga2"``: NSGA-II on the told values. ``"random"``: distinct
            architectures, uniformly.
        batch: Default number of proposals of `ask`; by default that of the tactic, 50 for
            ``"linas"`` and 4 for the others.
        start: Architectures worth evaluating, such as nested ones from the largest to the
            smallest, or several such batches. ``"hwsearch"`` and ``"additive"`` begin with up to
            12 of them, a third of them from the batches behind the first, evenly spaced among
            those that keep the constraints on exact objectives.

    Attributes:
        forecasts: Key -> measured objective -> (mean, standard deviation), in its unit, as
            predicted when `ask` proposed that architecture; absent for those of the initial
            design, and of tactics without surrogates.

    Raises:
        InputError: An invalid argument.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Iterable[Objective],
        *,
        seed: int = 0,
        constraints: Iterable[str | Constraint] = (),
        tactic: str = "hwsearch",
        batch: int | None = None,
        start: Architectures | Sequence[Architectures] | None = None,
    ) -> None:
        self.space = space
        self.objectives = check_objectives(objectives)
        self.constraints = check_constraints(constraints, [o.name for o in self.objectives])
        self.tactic = tactic
        self._tactic = load_tactic(tactic)
        self.seed = check_count("seed", seed, 0)
        self.batch = self._tactic.batch if batch is None else check_count("batch", batch, 1)
        self.rounds = 0
        self.forecasts: dict[str, dict[str, tuple[float, float]]] = {}
        known = self.objectives
        if not self._tactic.approximates:
            known = tuple(replace(objective, approximation=None) for objective in known)
        batches = [start] if isinstance(start, Architectures) else list(start or ())
        for each in batches:
            space.check_own(each)
        self.history = History(
            space, known, self.constraints, tuple(each.unique() for each in batches)
        )

    def ask(self, n: int | None = None) -> Architectures:
        """Propose up to n architectures, distinct and never asked for or told before.

        They are fewer at the end of the initial design, and where fewer are left in the space.

        Raises:
            InputError: ``n`` is below 1.
        """
        wanted = self.batch if n is None else check_count("number of proposals", n, 1)
        rng = np.random.default_rng((self.seed, self.rounds + 1))
        archs = self.history.space.sample(0, 0)
        self.history.latest_forecasts = {}
        if self.history.n_left > wanted:
            with one_blas_thread():
                archs = self._tactic.propose(self.history, wanted, self.seed, rng)
        if not len(archs):
            archs = self.space.sample_distinct(wanted, rng, exclude=self.history.asked)
        if len(archs):
            self.ask_recorded(archs)
        latest = self.history.latest_forecasts
        self.forecasts |= {key: latest[key] for key in archs.ids if key in latest}
        return archs

    def ask_recorded(self, archs: Architectures) -> None:
        """Record the proposals of a round in an earlier process as asked.

        Raises:
            InputError: They are of another space, or one was asked or told before.
        """
        self.history.ask(archs)
        self.rounds += 1

    def tell(self, archs: Architectures, values: Sequence[Told | None]) -> None:
        """Report the results of architectures, in any order and any split.

        Args:
            archs: Architectures, proposed by this search or not; none told before.
            values: For each a mapping with every measured objective, in its unit; other entries
                are ignored. An `Estimate` in place of a number is weighed by its deviation and
                keeps the architecture off the front. ``None``, or a value that is NaN or
                infinite, is a failure: never proposed again and part of no fit.

        Raises:
            InputError: Lengths differ, a measured objective is missing, a value is no number,
                an architecture was told before or is of another space. Then nothing is changed.
        """
        with one_blas_thread():
            self.history.tell(archs, values)

    def revise(self, name: str, values: Mapping[str, float]) -> None:
        """Replace told values of a measured objective, key -> value, by later estimates of them.

        Keys of architectures that were not told, failed, or have an `Estimate` are ignored. The
        selection of surrogates and the checks of approximations depend on the values as they were
        first told, so that the last revision before a proposal is all that it depends on besides.

        Raises:
            InputError: The objective is not a measured one of this search.
        """
        measured = [o.name for o in self.objectives if o.computed is None]
        if name not in measured:
            raise unknown("measured objective", name, measured)
        self.history.revise(name, values)

    @property
    def remarks(self) -> list[str]:
        """Return notes on the surrogates in use, one sentence each."""
        from hwsearch.prediction.registry import GAUSSIAN_PROCESS

        checks = self.history.approximations.values()
        found = [check.given_up for check in checks if check.given_up]
        latest = {column: (n, made) for (column, n), made in self.history.selections.items()}
        for column, (n, selection) in latest.items():
            if selection.name == GAUSSIAN_PROCESS:
                continue
            scores = {score.name: score for score in selection.scores}
            new, usual = scores[selection.name], scores[GAUSSIAN_PROCESS]
            found.append(
                f"{self.objectives[column].name} is predicted by the {new.name} surrogate in "
                f"place of the {usual.name}: cross-validated on {n} values, its tau is "
                f"{new.tau:.2f} instead of {usual.tau:.2f}, and its 95% intervals hold "
                f"{new.coverage:.0%} instead of {usual.coverage:.0%}"
            )
        return found

    def expected_gain(self, n: int) -> float | None:
        """Return the hypervolume that the next n (at least 1) evaluations are expected to add.

        It is against the default reference of `hypervolume`; 0 where nothing is left to propose,
        None where too little was told for surrogates. It takes as long as a round of
        ``"hwsearch"``, and does not change the search; the same history gives the same number.
        """
        check_count("number of evaluations", n, 1)
        history = self.history
        if history.succeeded.sum() < MIN_SUCCESSES or not history.measured.any():
            return None
        if not history.n_left:
            return 0.0
        from hwsearch.optimizer.acquisition import expected_gain

        with one_blas_thread():
            rng = np.random.default_rng((self.seed, len(history.told), _GAIN_STREAM))
            return expected_gain(history, n, rng)

    def front(self) -> Architectures:
        """Return the feasible, non-dominated told architectures, in the order of telling."""
        return self.history.told[self.history.front]

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """Return the hypervolume of the front, in the product of the objectives' units.

        Args:
            reference: A value for every objective, in its unit; by default a tenth of its range
                worse than the worst of the first six results, fixed from then on.

        Raises:
            InputError: The reference misses an objective, names another, or is not finite.
        """
        if reference is None:
            losses = self.history.reference
        else:
            losses = reference_losses(reference, self.objectives)
        if losses is None:
            return 0.0
        return hypervolume(self.history.losses[self.history.front], losses)

    @property
    def reference(self) -> dict[str, float] | None:
        """The default reference point of `hypervolume`; None before the first result."""
        losses = self.history.reference
        if losses is None:
            return None
        values = from_losses(losses[np.newaxis], self.objectives)[0]
        return {o.name: float(v) for o, v in zip(self.objectives, values, strict=True)}

    @property
    def exhausted(self) -> bool:
        """Whether every architecture of the space has been proposed."""
        return self.history.n_left == 0

    def closest_to_feasible(self) -> str:
        """Return a text on the told architecture that is closest to feasible.

        Raises:
            InputError: One is feasible.
        """
        values = self.history.by_name(self.history.values)
        return closest_to_feasible(self.constraints, values, self.history.told.ids)


def reference_losses(
    reference: Mapping[str, float], objectives: Sequence[Objective]
) -> FloatArray:
    """Return a reference point as losses ``(n_objectives,)``; InputError for other names."""
    names = [objective.name for objective in objectives]
    for name in reference:
        if name not in names:
            raise unknown("objective in the reference point", name, names)
    missing = [name for name in names if name not in reference]
    if missing:
        raise InputError(f"the reference point has no value for {', '.join(missing)}")
    return to_losses([[reference[name] for name in names]], objectives).ravel()


def check_count(what: str, given: object, least: int) -> int:
    """Return a whole number that is not below the least one, or raise InputError."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < least:
        raise InputError(f"{what} {given!r} is not usable; give a whole number from {least} up")
    return int(given)
