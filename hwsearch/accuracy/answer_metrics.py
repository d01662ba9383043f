"""Metrics without labels: outputs compared with those of the original model, sample by sample."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.metric import Answers, Metric
from hwsearch.accuracy.output_kinds import OF_CLASSES, OutputKind, kind_of
from hwsearch.errors import InputError
from hwsearch.quantities import AGREEMENT, FIDELITY, KL, Quantity

AT_A_TIME = 1 << 22  # numbers of an output that are in memory as float64
LEAST = 1e-8  # probability: float32 rounds 1 by more
NO_DIVERGENCE = 1e-10  # nats: what rounding of float32 scores comes to, negative ones too
ROUNDING = 1e-10  # of a squared mean: what float32 adds to a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """An output of the original model that others are compared with.

    Attributes:
        kind: What it holds.
        variance: Mean squared distance from the mean of all samples, summed over the numbers of
            an output; or from the mean of all tokens, over the numbers of a token.
    """

    kind: OutputKind
    variance: float = 1.0


# Maps (outputs (n, ...), the original's, how they are compared) to (n, ...) outcomes.
Outcomes = Callable[[NDArray[Any], NDArray[Any], Compared], NDArray[Any]]


def agreement(output: NDArray[Any], original: NDArray[Any], how: Compared) -> NDArray[Any]:
    """Return where both give the same answer: class, label or integer."""
    kind = how.kind
    if kind.kind == "integers":
        return np.asarray(output == original)
    if kind.kind == "multilabel":
        return np.asarray((output > 0.5) == (original > 0.5))
    return np.asarray(output.argmax(axis=kind.axis) == original.argmax(axis=kind.axis))


def kl(output: NDArray[Any], original: NDArray[Any], how: Compared) -> NDArray[Any]:
    """Return the divergence of class probabilities from the original's, in nats.

    It is sum(p log(p / q)) with the original's p (Kullback and Leibler, Annals of Mathematical
    Statistics 22, 1951); of several labels, the sum of each label's.
    """
    kind = how.kind
    q, p = output.astype(np.float64), original.astype(np.float64)
    if kind.kind == "multilabel":
        q, p = np.clip(q, LEAST, 1 - LEAST), np.clip(p, LEAST, 1 - LEAST)
        terms = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        return np.asarray(terms.sum(axis=kind.axis))
    log_q, log_p = (_log_probabilities(each, kind) for each in (q, p))
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=kind.axis)
    return np.where(divergence < NO_DIVERGENCE, 0.0, divergence)


def _log_probabilities(array: NDArray[Any], kind: OutputKind) -> NDArray[Any]:
    if kind.kind == "probabilities":
        array = np.log(np.clip(array, LEAST, None))
    array = array - array.max(axis=kind.axis, keepdims=True)
    return np.asarray(array - np.log(np.exp(array).sum(axis=kind.axis, keepdims=True)))


def mean_divergence(output: NDArray[Any], original: NDArray[Any]) -> float:
    """Return the mean of `kl` over samples, in nats.

    (n, classes) scores are logits, or probabilities where those of the original are none below 0
    and add up to 1.
    """
    given = (original >= 0).all() and np.allclose(original.sum(axis=1), 1, atol=1e-3)
    kind = OutputKind(kind="probabilities" if given else "scores", axis=1)
    return float(kl(output, original, Compared(kind=kind)).mean())


def fidelity(output: NDArray[Any], original: NDArray[Any], how: Compared) -> NDArray[Any]:
    """Return the cosine of vectors with the original's; of other numbers the explained variance.

    The latter is 1 - |a - b|^2 / variance of the original's outputs; 0 is the score of their mean.
    """
    axis, a, b = how.kind.axis, output.astype(np.float64), original.astype(np.float64)
    if how.kind.kind == "vectors":
        norms = np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis)
        return np.asarray((a * b).sum(axis=axis) / np.maximum(norms, np.finfo(np.float32).tiny))
    over = _numbers(a, how.kind)
    return np.asarray(1 - np.square(a - b).sum(axis=over) / how.variance)


def _numbers(array: NDArray[Any], kind: OutputKind) -> tuple[int, ...]:
    """Return the axes of the numbers of an output, or of a token's."""
    return tuple(range(2 if kind.per_token else 1, array.ndim))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A function for `Metric.per_sample`: the mean over the compared outputs.

    Attributes:
        outcomes: Compares one output. A sample's outcome is the mean, padding left out.
        compared: Output name -> how it is compared; other outputs are left out.
    """

    outcomes: Outcomes
    compared: Mapping[str, Compared]

    def __call__(self, outputs: list[NDArray[Any]], answers: Answers) -> NDArray[Any]:
        """Return (n,) outcomes; raise ValueError where an output has another shape."""
        found: list[NDArray[Any]] = []
        for (name, original), output in zip(answers.outputs.items(), outputs, strict=True):
            if name not in self.compared:
                continue
            if output.shape != original.shape:
                raise ValueError(
                    f"output {name!r} is of shape {output.shape}, the original's of shape "
                    f"{original.shape}"
                )
            how = self.compared[name]
            mask = answers.mask if how.kind.per_token else None
            found.append(
                np.concatenate(
                    [
                        _mean(
                            self.outcomes(output[part], original[part], how),
                            None if mask is None else mask[part],
                        )
                        for part in _parts(output)
                    ]
                )
            )
        return found[0] if len(found) == 1 else np.mean(found, axis=0)


def _parts(array: NDArray[Any]) -> Iterator[slice]:
    step = max(1, AT_A_TIME // max(1, array[:1].size))
    return (slice(start, start + step) for start in range(0, len(array), step))


def _mean(outcomes: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
    """Return the mean outcome of each sample, (n,); of a sample with nothing but padding, 0."""
    rows = outcomes.reshape(*outcomes.shape[: 1 if mask is None else 2], -1).astype(np.float64)
    mean: NDArray[Any] = rows.mean(axis=-1)
    if mask is None:
        return mean
    weights = mask.astype(np.float64)
    return np.asarray((mean * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))


def variance_of(original: NDArray[Any], mask: NDArray[Any] | None, kind: OutputKind) -> float:
    """Return `Compared.variance` of the original's outputs on n samples; 0 if only by rounding."""

    def rows() -> Iterator[NDArray[Any]]:
        for part in _parts(original):
            some = original[part].astype(np.float64)
            yield some[mask[part] > 0] if kind.per_token and mask is not None else some

    n = max(1, sum(map(len, rows())))
    centre = sum(some.sum(axis=0) for some in rows()) / n
    variance = sum(float(np.square(some - centre).sum()) for some in rows()) / n
    return variance if variance > ROUNDING * float(np.square(centre).sum()) else 0.0


_MEASURES: dict[str, tuple[Quantity, Outcomes]] = {
    AGREEMENT.name: (AGREEMENT, agreement),
    KL.name: (KL, kl),
    FIDELITY.name: (FIDELITY, fidelity),
}
ANSWER_METRICS = tuple(_MEASURES)


def default_metrics(answers: Answers, *, channels_last: bool = False) -> tuple[str, ...]:
    """Return the metrics for a model's outputs, the one of the objective first.

    Of scores of classes it is ``kl``: it tells subnets apart that answer alike on thousands of
    samples, and ``agreement``, which is easier to read, is reported beside it.
    """
    kinds = {kind.kind for kind in _kinds(answers, channels_last=channels_last).values()}
    if not kinds.isdisjoint(OF_CLASSES):
        return KL.name, AGREEMENT.name
    return (AGREEMENT.name,) if kinds == {"integers"} else (FIDELITY.name,)


def answer_metric(name: str, answers: Answers, *, channels_last: bool = False) -> Metric:
    """Return a metric of this name for outputs such as the original's answers.

    Raises:
        InputError: It does not suit the outputs.
    """
    quantity, outcomes = _MEASURES[name]
    suited = {AGREEMENT.name: (*OF_CLASSES, "integers"), KL.name: OF_CLASSES}.get(name)
    compared: dict[str, Compared] = {}
    for as_classes in (False,) if suited is None else (False, True):
        kinds = _kinds(answers, channels_last=channels_last, as_classes=as_classes)
        if suited is None:
            compared = _with_variances(answers, kinds)
        else:
            compared = {n: Compared(kind=k) for n, k in kinds.items() if k.kind in suited}
        if compared:
            break
    if not compared:
        held = (f"{n} {each.dtype} {each.shape[1:]}" for n, each in answers.outputs.items())
        raise InputError(
            f"objective {name} {_NEEDS[name]}, and the original's outputs for a sample are "
            f"{', '.join(held)}; take objective {_INSTEAD[name]}"
        )
    return Metric(
        name=name,
        per_sample=Comparison(outcomes, compared),
        direction=quantity.direction,
        unit=quantity.unit,
        scale=100.0 if quantity.unit == "%" else 1.0,
        of_answers=True,
    )


_NEEDS = {
    AGREEMENT.name: "needs scores of classes or integers",
    KL.name: "needs scores of classes",
    FIDELITY.name: "needs outputs of floating-point numbers that differ between samples",
}
_INSTEAD = {AGREEMENT.name: FIDELITY.name, KL.name: FIDELITY.name, FIDELITY.name: AGREEMENT.name}


def _kinds(
    answers: Answers, *, channels_last: bool, as_classes: bool = False
) -> dict[str, OutputKind]:
    return {
        name: kind_of(
            name, array, answers.mask, channels_last=channels_last, as_classes=as_classes
        )
        for name, array in answers.outputs.items()
    }


def _with_variances(answers: Answers, kinds: Mapping[str, OutputKind]) -> dict[str, Compared]:
    """Return the outputs of numbers that vary from sample to sample."""
    found = {}
    for name, kind in kinds.items():
        if kind.kind != "integers":
            variance = variance_of(answers.outputs[name], answers.mask, kind)
            if variance > 0:
                found[name] = Compared(kind=kind, variance=variance)
    return found
