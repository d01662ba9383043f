"""What a search was worth: how it went, how good its predictions were, and whether it paid."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from hwsearch.errors import InputError
from hwsearch.files import parsed_json
from hwsearch.optimizer.stopping import AHEAD

HORIZON: Final = AHEAD  # evaluations that more is expected of
Point = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionQuality:
    """How predictions of one objective have fared, up to one round.

    Attributes:
        objective: Its name.
        evaluated: Trials up to the end of that round.
        n: How many predictions the two figures are of: the last 16.
        tau: Kendall's rank correlation of predicted and measured values (tau-b); None of fewer
            than four, or of values that are all alike.
        covered: Share of the measured values inside their predicted 95% intervals, which take in
            the noise of measuring.
    """

    objective: str
    evaluated: int
    n: int
    tau: float | None
    covered: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One member of the front beside the largest subnet.

    Attributes:
        member: ``"knee"``, or the ``"best"`` by the first objective.
        key: Of the member.
        cost: What is saved: the latency, else the first objective that is minimised.
        times: By what factor the largest subnet's is that of the member.
        points: The member's score less that of the largest, on the same search images; None where
            either was not scored.
        low: Low end of the 95% interval of that difference, paired over images.
        high: High end.
    """

    member: str
    key: str
    cost: str
    times: float
    points: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """What a search was worth. Hypervolumes are of values as the search measured them.

    Attributes:
        objectives: Name -> unit, in order.
        predicted: Names of objectives that are predicted throughout.
        metric: Name of the score that `Comparison` compares.
        evaluated: Trials that are finished, failed ones among them.
        failed: How many of them failed.
        reused: How many of them an earlier run had scored; they come first.
        members: How many of them the front holds.
        reference: The point that hypervolumes are measured from, by objective.
        hypervolumes: ``(evaluated,)``: after each trial, in order.
        gain: Hypervolume that the next 50 evaluations are expected to add, by the surrogates;
            None without any.
        fits: Of every round with predictions and every measured objective.
        random: Median hypervolume of random sets of as many architectures as were measured, by
            the final surrogates' predictions; None without any.
        uniform: Values of the near-balanced architectures of a first sample, every choice scaled
            about alike, as far as they were measured; ordered by the last objective. Empty where
            they are fewer than three, as by tactics that begin otherwise.
        uniform_hypervolume: Of these; None where there are none.
        uniform_at_knee: The first of two objectives that uniform scaling has where its second
            equals the knee's, interpolated between neighbours; None beyond them, and for other
            numbers of objectives.
        knee: Values of the knee of the front.
        largest: Values of the largest architecture; None where it was not measured.
        versus: The knee, and the best member where that is another, beside it; without a member
            that is the largest itself.
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
        """Share of the budget that ended on the front."""
        return self.members / self.evaluated

    def to_json(self) -> str:
        """Return it as text; floats come back exactly."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "SearchSummary":
        """Read what `to_json` wrote.

        Raises:
            InputError: It is something else, or of another version.
        """
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
