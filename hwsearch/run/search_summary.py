"""Summary of a search: progress, quality of predictions, comparisons; as ``search.json``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hwsearch.errors import InputError
from hwsearch.files import parsed_json
from hwsearch.objectives import Objective
from hwsearch.quantities import main_cost, quantity_of

Point = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionQuality:
    """Agreement of predictions of one objective with measurements, up to one round.

    Attributes:
        evaluated: Number of trials up to the end of the round.
        n: Number of predictions compared, the last 16 at most.
        tau: Kendall's tau-b of predicted and measured values; None for fewer than four values or
            constant ones.
        covered: Share of measured values inside their predicted 95% intervals, which include the
            noise of the measurement.
    """

    objective: str
    evaluated: int
    n: int
    tau: float | None
    covered: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A member of the front compared with the largest subnet.

    Attributes:
        member: ``"knee"``, or ``"best"`` by the first objective.
        cost: Name of what is compared; see `compared_cost`.
        times: How many times better than the largest subnet the member is; see `times_better`.
        points: Score of the member minus that of the largest subnet, on the same search images;
            None if either was not scored.
        low: Low end of the 95% interval of that difference, paired over images; ``high`` likewise.
    """

    member: str
    key: str
    cost: str
    times: float
    points: float | None
    low: float | None
    high: float | None


def compared_cost(objectives: Sequence[Objective]) -> str | None:
    """Return the first objective that the device measures, else the first minimised number."""
    sources = {objective.name: quantity_of(objective.name).source for objective in objectives}
    names = [
        objective.name
        for objective in objectives
        if sources[objective.name] == "device"
        or (objective.direction == "min" and sources[objective.name] != "task")
    ]
    return main_cost(names) if names else None


def times_better(cost: str, value: float, other: float) -> float:
    """Return how many times less than another value a cost is; more, if it is maximised."""
    return other / value if quantity_of(cost).direction == "min" else value / other


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """Summary of a search. Hypervolumes are of values that the search measured.

    Attributes:
        objectives: Name -> unit, in order.
        predicted: Names of objectives that are predicted and never measured.
        metric: Name of the score of `Comparison`.
        evaluated: Number of finished trials, failed ones included.
        reused: Number of trials that an earlier run had scored; they come first.
        reference: Reference point of the hypervolumes, by objective.
        hypervolumes: ``(evaluated,)`` after each trial, in order.
        gain: Expected hypervolume that the next 50 evaluations add; None without surrogates.
        fits: One for every round with predictions and every measured objective.
        random: Median hypervolume of random sets of as many architectures as were measured,
            predicted by the final surrogates; None without surrogates.
        uniform: Measured values of uniformly scaled architectures (all choices at about the same
            fraction of their options), ordered by the last objective; empty if fewer than three
            were measured, as by tactics without a graded initial design.
        uniform_hypervolume: Hypervolume of ``uniform``; None if it is empty.
        uniform_at_knee: Of two objectives, the first one of uniform scaling where the second
            equals that of the knee, interpolated; None outside of the measured range.
        largest: Values of the largest architecture; None if it was not measured.
        versus: Comparisons of the knee and the best member with the largest subnet, if they are
            not the largest subnet.
    """

    objectives: dict[str, str]
    predicted: tuple[str, ...]
    metric: str
    evaluated: int
    failed: int
    reused: int
    members: int
    reference: Point
    hypervolumes: tuple[float, ...]
    gain: float | None
    fits: tuple[PredictionQuality, ...]
    random: float | None
    uniform: tuple[Point, ...]
    uniform_hypervolume: float | None
    uniform_at_knee: float | None
    knee: Point
    largest: Point | None
    versus: tuple[Comparison, ...]

    @property
    def share(self) -> float:
        """Share of the evaluated architectures that are on the front."""
        return self.members / self.evaluated

    def to_json(self) -> str:
        """Return the summary as JSON that preserves floats exactly."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "SearchSummary":
        """Read the text of `to_json`; raise InputError if it is damaged or of another version."""
        try:
            read: dict[str, Any] = parsed_json(text, finite=False)
            read["fits"] = tuple(PredictionQuality(**each) for each in read["fits"])
            read["versus"] = tuple(Comparison(**each) for each in read["versus"])
            for name in ("predicted", "hypervolumes", "uniform"):
                read[name] = tuple(read[name])
            return cls(**read)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{where} is damaged or of another version ({error}); it is written again when "
                "the run goes on with a larger budget, and may be deleted"
            ) from error
