"""A CSV of accuracies, measured in an unknown context, as a value source.

The values guide the search as long as its own measurements agree, and are not on its front.
"""

import csv
import io
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
from hwsearch.quantities import exact_quantities
from hwsearch.run.setup import FORMER_COLUMN, FRONT_COLUMNS, TRIAL_COLUMNS, Setup
from hwsearch.run.value_sources.base import (
    EVIDENCE,
    WARM_START,
    ValueModel,
    ValueSource,
    left_out,
    part_of,
)
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
    rows = _rows(where, path)
    _check_columns(where, list(rows[0]), full, metric)
    listed: dict[str, tuple[Architecture, list[float]]] = {}
    for number, row in enumerate(rows, start=1):
        if row[metric]:
            at = f"{where}, row {number}"
            arch = _architecture(at, row, full)
            listed.setdefault(arch.key, (arch, []))[1].append(_number(at, metric, row[metric]))
    archs = part_of(setup.net.space, (arch for arch, _ in listed.values()))
    if not len(archs):
        raise InputError(
            f"{where} has {metric} of {len(listed)} architectures, none of them in the part of "
            "the space that is searched; change --freeze and --only, or leave it out"
        )
    values = np.array([np.mean(listed[key][1]) for key in archs.ids])
    text = _written(archs, metric, values)
    return ValueSource(
        kind=WARM_START,
        quantity=metric,
        recorded={"path": str(path), "digest": digest_of_text(text), "evidence": len(archs)},
        note=(
            f"{metric} of {len(archs)} architectures from {path} is evidence: it is predicted "
            f"from to choose, and then measured{left_out(len(listed) - len(archs))}"
        ),
        model=_fitted(setup, metric, archs, values),
        archs=archs,
        values=values,
        files={EVIDENCE: text},
    )


def _fitted(
    setup: Setup, metric: str, archs: Architectures, values: FloatArray
) -> ValueModel | None:
    approximations = [o.approximation for o in setup.objectives if o.name == metric]
    if len(archs) < _FEWEST or not approximations:
        return None
    with one_blas_thread():
        if approximations[0] is not None:
            with suppress(InputError):  # a value is not positive, so that no ratio exists
                return ScaledApproximation(approximations[0], archs, values)
        return Predictor(setup.net.space).fit(archs, values)


def _written(archs: Architectures, metric: str, values: FloatArray) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*archs.space.names, metric], restval="", lineterminator="\n")
    writer.writeheader()
    for arch, value in zip(archs, values.tolist(), strict=True):
        writer.writerow({**arch.mapping, metric: repr(value)})
    return text.getvalue()


def _rows(where: str, path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True, restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{where} cannot be read: {error}") from error
    if not rows:
        raise InputError(f"{where} holds no rows; {_HOW}")
    return rows


def _check_columns(where: str, columns: list[str], space: SearchSpace, metric: str) -> None:
    if metric not in columns:
        raise InputError(
            f"{where} has no column {metric!r}, which this search measures; it has "
            f"{', '.join(map(str, columns))}; {_HOW}"
        )
    # Row numbers, as pandas writes them, have no name.
    known = {
        "",
        metric,
        LATENCY,
        *space.names,
        *TRIAL_COLUMNS,
        *FRONT_COLUMNS,
        *exact_quantities(),
        FORMER_COLUMN,
    }
    for column in columns:
        if column not in known and not str(column).startswith((f"{metric}_", f"{LATENCY}_")):
            raise InputError(
                f"{where} is of another search space: {column!r} is no choice of this one "
                f"({', '.join(space.names)}) and no column of a run's tables; remove that column "
                "if it says nothing of the architecture"
            )


def _architecture(where: str, row: Mapping[str, str], space: SearchSpace) -> Architecture:
    mapping = {
        choice.name: _option(where, choice, row[choice.name])
        for choice in space.choices
        if row.get(choice.name)
    }
    try:
        return space.architectures(mapping)[0]
    except InputError as error:
        raise InputError(f"{where} is of another search space: {error}") from error


def _option(where: str, choice: Choice, text: str) -> Option:
    """Return the option that a cell names; tables with gaps write 2 as 2.0."""
    for option in choice.options:
        if text in (str(option), repr(option)):
            return option
    for option in choice.options:
        if isinstance(option, int | float) and not isinstance(option, bool):
            try:
                if float(text) == option:
                    return option
            except ValueError:
                break
    raise InputError(
        f"{where} is of another search space: choice {choice.name!r} is {text!r} there, and has "
        f"the options {', '.join(map(repr, choice.options))} here"
    )


def _number(where: str, metric: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: {metric} is {text!r}; give a finite number, or leave it empty")
    return number
