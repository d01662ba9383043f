"""Metric: an outcome for each sample of a network's outputs; intervals of its mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import EvaluationError

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Outputs of the original model on n samples, beside their labels.

    Attributes:
        labels: (n,) targets; -1 for samples without labels.
        outputs: Output name -> (n, ...) array, in the declared order.
        mask: (n, length): 1 for tokens and 0 for padding; None where inputs have no mask.
    """

    labels: NDArray[Any]
    outputs: Mapping[str, NDArray[Any]]
    mask: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)


Targets = NDArray[Any] | Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A function that gives each sample a number, its outcome.

    Attributes:
        name: The objective that it supplies, such as ``"top1"``.
        per_sample: Maps (outputs, targets) to (n,) numbers. Targets are an (n,) array, with
            ``of_answers`` `Answers`.
        direction: ``"max"`` or ``"min"``.
        unit: Of the scaled mean.
        scale: The reported value is the mean over samples times this.
        output: Name of the only output that ``per_sample`` gets, where a network declares several;
            None for all of them, in the declared order.
        of_answers: Whether it compares with the original model's outputs, not with labels.
    """

    name: str
    per_sample: Callable[[list[NDArray[Any]], Any], NDArray[Any]]
    direction: str = "max"
    unit: str = ""
    scale: float = 1.0
    output: str | None = None
    of_answers: bool = False

    def scored(
        self, outputs: Sequence[NDArray[Any]], declared: Sequence[str]
    ) -> list[NDArray[Any]]:
        """Return the outputs that ``per_sample`` gets, from all outputs in the declared order.

        Raises:
            EvaluationError: There are more or fewer than declared, or none of the name.
        """
        if len(outputs) != len(declared):
            raise EvaluationError(
                f"the model has {len(outputs)} outputs, but {len(declared)} are declared: "
                f"{', '.join(declared)}"
            )
        if self.output is None or len(declared) == 1:
            return list(outputs)
        if self.output not in declared:
            raise EvaluationError(
                f"metric {self.name!r} scores the output {self.output!r}, and declared are "
                f"{', '.join(declared)}; name the one that holds the scores {self.output!r} in "
                "input_spec, or give the metric output=NAME"
            )
        return [outputs[declared.index(self.output)]]

    def outcomes(
        self, outputs: Sequence[NDArray[Any]], targets: Targets, declared: Sequence[str]
    ) -> NDArray[Any]:
        """Return (n,) unscaled outcomes of a batch, from outputs (n, ...) and n targets.

        Raises:
            EvaluationError: ``per_sample`` fails, or the outputs that it gets or the outcomes are
                not finite, or it needs answers and there are none.
        """
        if self.of_answers and not isinstance(targets, Answers):
            raise EvaluationError(
                f"metric {self.name!r} compares with the original model's outputs, and the "
                "samples have none"
            )
        if isinstance(targets, Answers) and not self.of_answers:
            targets = targets.labels
        scored = self.scored(outputs, declared)
        if not all(np.isfinite(output).all() for output in scored):
            raise EvaluationError("the model's outputs hold NaN or infinite numbers")
        try:
            outcomes = np.asarray(self.per_sample(scored, targets))
        except Exception as error:
            # Code of a user may raise any error, which fails this trial only.
            raise EvaluationError(
                f"metric {self.name!r} raised {type(error).__name__}: {error}"
            ) from error
        if outcomes.shape != (len(targets),):
            raise EvaluationError(
                f"metric {self.name!r} gave an array of shape {outcomes.shape} for "
                f"{len(targets)} samples; it must give one outcome for each"
            )
        if not np.isfinite(outcomes.astype(np.float64)).all():
            raise EvaluationError(f"metric {self.name!r} gave NaN or infinite outcomes")
        return outcomes


def _correct(outputs: list[NDArray[Any]], targets: NDArray[Any]) -> NDArray[Any]:
    (scores,) = outputs
    if scores.ndim != 2:
        raise ValueError(f"class scores are (n, classes), not {scores.shape}")
    correct: NDArray[Any] = scores.argmax(axis=1) == targets
    return correct


TOP1 = Metric(name="top1", per_sample=_correct, unit="%", scale=100.0, output="logits")


def _undecided(*_: object) -> NDArray[Any]:
    raise ValueError("it is chosen once the original model's outputs are known")


# Metric of samples without labels, until they are answered by an original model.
UNDECIDED = Metric(name="agreement", per_sample=_undecided, of_answers=True)


def mean_interval(outcomes: NDArray[Any]) -> tuple[float, float, float]:
    """Return the mean of (n,) outcomes and its 95% interval.

    For outcomes of 0 or 1 it is Wilson's score interval (Wilson, JASA 1927), else the normal
    approximation.
    """
    values = outcomes.astype(np.float64)
    n, mean = len(values), float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        centre = (mean + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * np.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n * n))
        return mean, min(float(centre - half), mean), max(float(centre + half), mean)
    half = Z95 * float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else 0.0
    return mean, mean - half, mean + half


def paired_difference(
    a: NDArray[Any], b: NDArray[Any], scale: float = 1.0
) -> tuple[float, float, float]:
    """Return the mean of ``a - b``, times ``scale``, and its 95% interval.

    ``a`` and ``b`` are (n,) outcomes of two subnets on the same samples in the same order. Pairing
    cancels the difficulty of the samples: the interval is much narrower than those of the scores.
    """
    difference = (a.astype(np.float64) - b.astype(np.float64)) * scale
    half = Z95 * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    mean = float(difference.mean())
    return mean, mean - half, mean + half
