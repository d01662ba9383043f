"""Data of a run for its report, read once from the run's folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsearch.constraints import Constraint
from hwsearch.errors import HwsearchError, InputError
from hwsearch.evaluation.measurements import shipped_scores
from hwsearch.evaluation.timings import with_corrected_timings
from hwsearch.objectives import FloatArray, Objective
from hwsearch.quantities import main_cost, quantity_of
from hwsearch.restriction import restricted
from hwsearch.run.config import TRIALS
from hwsearch.run.front import front_rows
from hwsearch.run.outcome import CANDIDATES, FRONT
from hwsearch.run.search_summary import SearchSummary
from hwsearch.space import Architectures, SearchSpace
from hwsearch.trials import Measurement, Trial, TrialState

if TYPE_CHECKING:
    import pandas as pd

    from hwsearch.run.folder import RunFolder
    from hwsearch.run.setup import Setup

Kind = Literal["front", "candidates", "unfinished"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunData:
    """Data of a run (``front``, ``candidates`` or ``unfinished``); nothing is measured anew.

    ``sources`` maps objectives to ``exact``, ``measured`` or ``predicted``, ``values`` to one
    value per trial, NaN if unknown. ``members`` is None for an unfinished run. ``lacking`` says
    in sentences what the page cannot show.
    """

    run: "RunFolder"
    kind: Kind
    space: SearchSpace
    objectives: tuple[Objective, ...]
    sources: Mapping[str, str]
    constraints: tuple[Constraint, ...]
    trials: tuple[Trial, ...]
    archs: Architectures
    values: Mapping[str, FloatArray]
    measurements: tuple[Measurement, ...]
    members: "pd.DataFrame | None"
    summary: SearchSummary | None
    lacking: tuple[str, ...]

    @property
    def up(self) -> Objective:
        """Return the first objective: the vertical axis."""
        return self.objectives[0]

    @property
    def across(self) -> Objective | None:
        """Return the objective on the horizontal axis: one the device measures, or the second."""
        others = self.objectives[1:]
        if not others:
            return None
        name = main_cost([o.name for o in others])
        return next(o for o in others if o.name == name)

    @property
    def metric(self) -> str | None:
        """Return the name of the score, where accuracies were measured or predicted."""
        known = (o.name for o in self.objectives if self.sources[o.name] != "exact")
        return next((name for name in known if quantity_of(name).source == "task"), None)

    @property
    def samples(self) -> str:
        """Return what the data are, in the plural."""
        return "samples" if self.run.config.data.startswith(("npz:", "text:")) else "images"

    @property
    def elastic(self) -> str | None:
        """Return the trained model that an elastic model was made of; None for a supernet."""
        recorded = self.run.recorded.get("elastic")
        return None if recorded is None else str(recorded["source"]).partition(", SHA-256")[0]

    @property
    def predicted(self) -> frozenset[str]:
        """Return the objectives whose values are predicted in the members' table."""
        if self.members is None:
            return frozenset(n for n, source in self.sources.items() if source == "predicted")
        names = (o.name for o in self.objectives)
        return frozenset(name for name in names if f"{name}_source" in self.members)

    @property
    def what(self) -> str:
        """Return the name of the best subnets: ``front``, ``candidates`` or ``best so far``."""
        return {"front": "front", "candidates": "candidates"}.get(self.kind, "best so far")

    @property
    def written(self) -> str:
        """Return the date (UTC) of the run's outcome, or else of its last trial."""
        names = (FRONT, CANDIDATES, TRIALS)
        path = next(p for name in names if (p := self.run.folder / name).exists())
        return f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%d %B %Y}".lstrip("0")

    @cached_property
    def place(self) -> dict[str, int]:
        """Return key -> number of the trial."""
        return {trial.key: number for number, trial in enumerate(self.trials)}

    @cached_property
    def members_by_key(self) -> dict[str, dict[str, Any]]:
        """Return key -> row of the members' table; empty for an unfinished run."""
        rows = [] if self.members is None else self.members.to_dict("records")
        return {str(row["key"]): row for row in rows}

    @cached_property
    def best(self) -> list[str]:
        """Return the keys of the members, or of the non-dominated trials so far."""
        if self.members is not None:
            return list(self.members_by_key)
        if not self.finished:
            return []
        known = {o.name: self.values[o.name][self.finished] for o in self.objectives}
        rows = front_rows(known, self.objectives, self.constraints)
        return [self.trials[self.finished[row]].key for row in rows]

    @cached_property
    def finished(self) -> list[int]:
        """Return the numbers of the finished trials whose every objective is known."""
        table = np.column_stack([self.values[o.name] for o in self.objectives])
        whole = np.flatnonzero(~np.isnan(table).any(axis=1)).tolist()
        return [n for n in whole if self.trials[n].state is TrialState.DONE]

    def of_search(self, quantity: str) -> dict[str, Measurement]:
        """Return the measurements of a quantity by the search, by key."""
        wanted = (quantity, "search")
        return {m.key: m for m in self.measurements if (m.quantity, m.purpose) == wanted}

    def shipped_scores(self, metric: str) -> dict[str, Measurement]:
        """Return the scores on search samples of the models that ship, by key."""
        stated = {objective.name: objective.direction for objective in self.objectives}
        direction = stated.get(metric) or quantity_of(metric).direction
        return shipped_scores(self.measurements, metric, direction)


def read_run_data(run: "RunFolder", setup: "Setup | None" = None) -> RunData:
    """Read a run, finished or not.

    Exact objectives need the supernet: it is taken from ``setup``, or else loaded if anything has
    to be computed; if that fails, ``lacking`` says so. Raises InputError for unreadable files.
    """
    full_space = run.recorded.get("full_space")
    if not isinstance(full_space, str):
        raise InputError(
            f"run {str(run.folder)!r} records no search space: it is damaged, or of the first "
            "version; reuse it by 'hwsearch search --warm-start'"
        )
    space = restricted(SearchSpace.from_json(full_space), run.config.freeze, run.config.only)
    with run.store() as store:
        trials, measurements = store.trials(), with_corrected_timings(store.measurements())
    objectives = tuple(run.objectives)
    # The first version recorded no source: it measured all that was not counted.
    sources = {o["name"]: str(o.get("source", "measured")) for o in run.recorded["objectives"]}
    archs = space.architectures([trial.choices for trial in trials])
    place = {trial.key: number for number, trial in enumerate(trials)}
    values = {o.name: np.full(len(trials), np.nan) for o in objectives}
    for each in measurements:
        if each.purpose == "search" and each.quantity in values:
            values[each.quantity][place[each.key]] = each.value
    members = run.members if run.finished else None
    unknown = set() if members is None else set(members["key"]) - set(place)
    if unknown:
        raise InputError(
            f"run {str(run.folder)!r} is damaged: its table has {min(unknown)}, which is no trial"
        )
    computed, lacking = _computed(run, setup, archs, sources)
    return RunData(
        run=run,
        kind=("front" if run.confirmed else "candidates") if members is not None else "unfinished",
        space=space,
        objectives=objectives,
        sources=sources,
        constraints=tuple(Constraint.parse(text) for text in run.config.constraints),
        trials=tuple(trials),
        archs=archs,
        values=values | computed,
        measurements=tuple(measurements),
        members=members,
        summary=run.summary,
        lacking=lacking,
    )


def _computed(
    run: "RunFolder", setup: "Setup | None", archs: Architectures, sources: Mapping[str, str]
) -> tuple[dict[str, FloatArray], tuple[str, ...]]:
    """Return exact objectives' values, and sentences on those that cannot be computed here."""
    wanted = [name for name, source in sources.items() if source != "measured"]
    if not wanted or not len(archs):
        return {}, ()
    try:
        if setup is None:
            from hwsearch.run.value_sources.registry import with_recorded_predictor

            setup = with_recorded_predictor(run.setup(), run.folder, run.recorded)
        objectives = setup.objectives
    except (HwsearchError, ImportError, OSError) as error:
        missing = " and ".join(wanted)
        return {}, (f"{missing} of the trials is computed, which is not possible here: {error}",)
    found = {o.name: np.asarray(o.computed(archs), np.float64) for o in objectives if o.computed}
    return found, ()


def stated(row: Mapping[str, Any], name: str) -> tuple[float, float | None, float | None]:
    """Return value and 95% interval of a column of the members' table; None without interval."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None or low != low or high != high:
        return float(row[name]), None, None
    return float(row[name]), float(low), float(high)
