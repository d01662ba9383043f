"""A CSV of accuracies, measured in an unknown context, as a value source.

The values guide the search as long as its own measurements agree, and are not on its front.
"""

import csv
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from hwsearch.choices import Choice, Option
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import digest_of_text
from hwsearch.objectives import FloatArray
from hwsearch.optimizer.approximations import ScaledApproximation
from hwsearch.prediction.predictor import Predictor
from hwsearch.prediction.threads import one_blas_thread
from hwsearch.run.setup import FORMER_COLUMN, Setup, table_columns
from hwsearch.run.value_sources.base import WARM_START, ValueSource, part_of
from hwsearch.space import Architecture, Architectures, SearchSpace

_HOW: Final = (
    "it needs a column for every choice and one for the metric, as 'Run.trials' writes them"
)
_FEWEST: Final = 8  # values; from fewer a surrogate predicts hardly more than their mean


def read_csv(setup: Setup, path: Path) -> ValueSource:
    """Read a CSV with a column per choice and one of the metric.

    Values of one architecture are averaged; rows without a value and columns of a run's tables are
    ignored. Where the metric has an approximation, the model of the source is a multiple of it.
    """
    metric, full = setup.task.metric.name, setup.net.full_space
    where = f"warm start {str(path)!r}"
    listed: dict[str, tuple[Architecture, list[float]]] = {}
    for number, row in enumerate(_rows(where, path, full, metric), start=1):
        if row[metric]:
            at = f"{where}, row {number}"
            arch = _architecture(at, row, full)
            value = _number(row[metric])
            if not math.isfinite(value):
                raise InputError(
                    f"{at}: {metric} is {row[metric]!r}; give a finite number, or leave it empty"
                )
            listed.setdefault(arch.key, (arch, []))[1].append(value)
    archs, outside = part_of(setup.net.space, [arch for arch, _ in listed.values()], where)
    values = np.array([np.mean(listed[key][1]) for key in archs.ids])
    text = _written(archs, metric, values)
    return ValueSource(
        kind=WARM_START,
        quantity=metric,
        recorded={"path": str(path), "digest": digest_of_text(text), "evidence": len(archs)},
        note=(
            f"{metric} of {len(archs)} architectures from {path} is evidence: it is predicted "
            f"from to choose, and then measured{outside}"
        ),
        model=_fitted(setup, metric, archs, values),
        archs=archs,
        values=values,
        evidence=text,
    )


def _fitted(
    setup: Setup, metric: str, archs: Architectures, values: FloatArray
) -> ScaledApproximation | Predictor | None:
    approximations = [o.approximation for o in setup.objectives if o.name == metric]
    if len(archs) < _FEWEST or not approximations:
        return None
    with one_blas_thread():
        if approximations[0] is not None:
            with suppress(InputError):  # a value is not positive, so that no ratio exists
                return ScaledApproximation(approximations[0], archs, values)
        return Predictor(setup.net.space).fit(archs, values)


def _written(archs: Architectures, metric: str, values: FloatArray) -> str:
    import pandas as pd

    pairs = zip(archs, values.tolist(), strict=True)
    rows = [{**arch.mapping, metric: value} for arch, value in pairs]
    table = pd.DataFrame(rows, columns=[*archs.space.names, metric], dtype=object)
    return str(table.to_csv(index=False, lineterminator="\n"))


def _rows(where: str, path: Path, space: SearchSpace, metric: str) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True, restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{where} cannot be read: {error}") from error
    if not rows:
        raise InputError(f"{where} holds no rows; {_HOW}")
    columns = list(map(str, rows[0]))
    if metric not in columns:
        raise InputError(
            f"{where} has no column {metric!r}, which this search measures; it has "
            f"{', '.join(columns)}; {_HOW}"
        )
    # Row numbers, as pandas writes them, have no name.
    known = {"", FORMER_COLUMN, *space.names, *table_columns(metric)}
    for column in columns:
        if column not in known and not column.startswith((f"{metric}_", f"{LATENCY}_")):
            raise InputError(
                f"{where} is of another search space: {column!r} is no choice of this one "
                f"({', '.join(space.names)}) and no column of a run's tables; remove that column "
                "if it says nothing of the architecture"
            )
    return rows


def _architecture(where: str, row: Mapping[str, str], space: SearchSpace) -> Architecture:
    try:
        named = [choice for choice in space.choices if row.get(choice.name)]
        return space.architectures({c.name: _option(c, row[c.name]) for c in named})[0]
    except InputError as error:
        raise InputError(f"{where} is of another search space: {error}") from error


def _option(choice: Choice, text: str) -> Option:
    """Return the option that a cell names; tables with gaps write 2 as 2.0."""
    number = _number(text)
    for option in choice.options:
        same_number = not isinstance(option, bool) and option == number
        if text in (str(option), repr(option)) or same_number:
            return option
    raise InputError(
        f"choice {choice.name!r} is {text!r} there, and has the options "
        f"{', '.join(map(repr, choice.options))} here"
    )


def _number(text: str) -> float:
    """Parse a number; return NaN for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan
