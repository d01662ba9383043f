"""The interface of value sources: values with standard deviations, identified by a digest."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hwsearch.accuracy.metric import Z95
from hwsearch.evaluation.evaluator import REUSED
from hwsearch.files import write_atomic
from hwsearch.objectives import FloatArray
from hwsearch.run.config import TRIALS
from hwsearch.space import Architectures
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

if TYPE_CHECKING:
    from hwsearch.optimizer.approximations import ScaledApproximation
    from hwsearch.prediction.latency import LatencyPredictor
    from hwsearch.prediction.predictor import Predictor

KINDS: Final = ("latency_table", "predictor", "warm_start")
LATENCY_TABLE, PREDICTOR, WARM_START = KINDS
EVIDENCE: Final = "evidence.csv"  # the copy of a CSV in a run's folder
_STAGED = ".reused"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValueSource:
    """Values of one quantity that a search has before it measures anything.

    A source with a ``model`` guides the search and adds nothing to the front. An earlier run was
    measured in the context of this one: its architectures become trials of the run, and its
    measurements are not repeated.

    Attributes:
        kind: Table of ``config.toml`` that records the source, one of `KINDS`.
        recorded: Content of that table. ``digest`` is 16 hex digits of the source's content.
        model: Predicts the quantity; None for an earlier run, and for too few values.
        archs: n architectures of the source; None for a source that is only a model.
        values: (n,) values of the quantity; NaN where the source has none.
        measurements: Those of an earlier run; None for other sources.
        evidence: Content of a CSV, of which the run's folder keeps a copy.
    """

    kind: str
    quantity: str
    recorded: Mapping[str, str | int]
    note: str
    model: "LatencyPredictor | Predictor | ScaledApproximation | None" = None
    of: Callable[[Architectures], Architectures] = field(default=lambda archs: archs)
    archs: Architectures | None = None
    values: FloatArray = field(default_factory=lambda: np.empty(0))
    measurements: Sequence[Measurement] | None = None
    evidence: bytes = b""

    def __call__(self, archs: Architectures) -> FloatArray:
        """Predict the quantity of n architectures: (n,)."""
        assert self.model is not None
        return self.model.predict_mean(self.of(archs))

    def interval(self, archs: Architectures) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Predict values, low and high ends of their 95% intervals, (n,) each."""
        assert self.model is not None
        mean, deviation = self.model.predict(self.of(archs))
        return mean, mean - Z95 * deviation, mean + Z95 * deviation

    @property
    def n_reused(self) -> int:
        """Number of values that are not measured again."""
        return 0 if self.measurements is None else int((~np.isnan(self.values)).sum())

    def copy_to(self, folder: Path) -> None:
        """Write the copy of the source that a resumed run reads, all or nothing."""
        if self.evidence:
            write_atomic(folder / EVIDENCE, self.evidence)
        if self.measurements is not None and self.archs is not None:
            staged = folder / _STAGED
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            with Store(staged / TRIALS) as store:
                store.propose(self.archs, round=0, origin=REUSED)
                store.add_all(self.measurements)
            os.replace(staged / TRIALS, folder / TRIALS)
            staged.rmdir()
