"""Kinds of outputs: what the numbers of a model's output mean, by its values and its name."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwsearch.models.input_spec import holds_scores, holds_values, holds_vectors

Kind = Literal["scores", "probabilities", "multilabel", "integers", "vectors", "values"]
OF_CLASSES = ("scores", "probabilities", "multilabel")

CHECKED, CHECKED_NUMBERS = 512, 1 << 22  # samples whose values are looked at, and their numbers
FEWEST = 4  # numbers in a vector whose direction counts
TOLERANCE = 2e-3  # of sums and lengths that are 1, in float32 or float16


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputKind:
    """What an output holds for each sample.

    Attributes:
        kind: ``scores`` of classes before a softmax, their ``probabilities``, or ``multilabel``: a
            probability for each of several labels; ``integers``, such as chosen classes;
            ``vectors``, whose direction counts, such as embeddings; or other ``values``.
        axis: Axis of the classes, or of a vector's numbers.
        per_token: Whether the second axis is that of the inputs' mask.
    """

    kind: Kind
    axis: int = -1
    per_token: bool = False


def kind_of(
    name: str,
    output: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    channels_last: bool = False,
    as_classes: bool = False,
) -> OutputKind:
    """Return the kind of an output of the original model, (n, ...) finite numbers.

    Probabilities and vectors of length 1 are recognised by their values, which come first. Then
    the name decides. Where it tells nothing, (n, classes) are scores, numbers of each token are
    vectors, and all others are values.

    Args:
        name: The output's name.
        output: The outputs for some samples.
        mask: (n, length) mask of the inputs' tokens.
        channels_last: Whether images are (height, width, channels).
        as_classes: Whether numbers are scores of classes where their values do not tell.
    """
    few = output[: max(1, min(CHECKED, CHECKED_NUMBERS // max(1, output[:1].size)))]
    on_mask = mask is not None and few.ndim > 1 and few.shape[1] == mask.shape[1]
    if few.dtype.kind != "f":
        return OutputKind(kind="integers", per_token=on_mask)
    # Axis 1, but of tokens (n, length, classes) and of images with channels last.
    axis = few.ndim - 1 if few.ndim == 3 or channels_last else min(1, few.ndim - 1)
    per_token = on_mask and few.ndim > 2
    return OutputKind(
        kind=_kind(name, few.astype(np.float64), axis, per_token, as_classes),
        axis=axis,
        per_token=per_token,
    )


def _kind(name: str, few: NDArray[Any], axis: int, per_token: bool, as_classes: bool) -> Kind:
    width = few.shape[axis] if few.ndim > 1 else 1
    shares = few.size > 0 and few.min() >= -TOLERANCE and few.max() <= 1 + TOLERANCE
    if shares and width > 1 and np.abs(few.sum(axis=axis) - 1).max() < TOLERANCE:
        return "probabilities"
    if holds_values(name) and not as_classes:
        return "values"
    if shares and few.ndim == 2 and not holds_vectors(name) and "logit" not in name.lower():
        return "multilabel"
    if width == 1:
        return "values"
    if as_classes or holds_scores(name):
        return "scores"
    if width >= FEWEST and few.ndim < 4:
        unit = np.abs(np.linalg.norm(few, axis=axis) - 1).max() < TOLERANCE
        if unit or per_token or holds_vectors(name):
            return "vectors"
    return "scores" if few.ndim == 2 and not holds_vectors(name) else "values"
