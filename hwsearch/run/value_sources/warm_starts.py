"""Warm starts as value sources: an earlier run, or a CSV of accuracies.

A measurement of an earlier run is reused if its context is that of the search: the same weights,
calibration, samples and precision for an accuracy, the same device for a latency. The values of a
CSV, measured in an unknown context, guide the search as long as its own measurements agree, and
are not on its front.
"""

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.task import NO_DATA
from hwsearch.choices import Choice, Option
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import REUSED
from hwsearch.evaluation.measurements import LATENCY, THROUGHPUT
from hwsearch.evaluation.timing_jobs import JOB_PURPOSES, device_context
from hwsearch.evaluation.timings import Timings
from hwsearch.files import DIGITS, decoded, digest_of_text
from hwsearch.objectives import FloatArray
from hwsearch.optimizer.approximations import ScaledApproximation
from hwsearch.prediction.predictor import Predictor
from hwsearch.quantities import SCORES
from hwsearch.run.config import TRIALS, read_config
from hwsearch.run.outcome import CANDIDATES, read_members
from hwsearch.run.setup import FORMER_COLUMN, Setup, table_columns
from hwsearch.run.value_sources.base import WARM_START, ValueSource
from hwsearch.space import Architecture, Architectures, SearchSpace
from hwsearch.threads import one_blas_thread
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, Trial

_HOW: Final = (
    "it needs a column for every choice and one for the metric, as 'Run.trials' writes them"
)
_FEWEST: Final = 8  # values; from fewer a surrogate predicts hardly more than their mean


def read_warm_start(setup: Setup) -> ValueSource:
    """Read the earlier run or the CSV that the settings name; raise InputError if unusable."""
    path = Path(str(setup.config.warm_start))
    if setup.config.data == NO_DATA:
        raise InputError(
            f"warm start {str(path)!r} serves no search without data: it measures no accuracy. "
            "Give --data, or leave it out"
        )
    if path.is_dir():
        return read_earlier_run(setup, path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return read_csv(setup, path)
    raise InputError(
        f"warm start {str(path)!r} is no run and no CSV file; give the folder of a run, or "
        "FILE.csv with a column for every choice and one for the metric"
    )


def read_earlier_run(setup: Setup, folder: Path) -> ValueSource:
    """Read the measurements of an earlier run, or the candidates of one without data."""
    config, recorded = read_config(folder)
    where, metric = f"warm start {str(folder)!r}", setup.task.metric.name
    if not (folder / TRIALS).is_file():
        raise InputError(f"{where} has no {TRIALS}: nothing was evaluated there; leave it out")
    with Store.snapshot(folder / TRIALS) as store:
        trials, measured = store.trials(), store.measurements()
    full = _architectures(where, recorded, trials, setup.net.full_space)
    with Store() as nothing:
        here = setup.evaluator(nothing)
    context = here.search_context(metric)
    held = {
        (metric, "search", context),
        (metric, "report", here.score_context(setup.task.report)),
    }
    if THROUGHPUT in setup.measured:
        held.add((THROUGHPUT, "search", here.search_context(THROUGHPUT)))
    timers = here.timers({LATENCY, *setup.measured})
    held |= {(t.quantity, purpose, t.context) for t in timers for purpose in JOB_PURPOSES}
    holding = [m for m in measured if (m.quantity, m.purpose, device_context(m)) in held]
    values = {m.key: m.value for m in holding if (m.quantity, m.purpose) == (metric, "search")}
    if config.data == NO_DATA:
        if not (folder / CANDIDATES).is_file():
            raise InputError(
                f"{where} is not finished, and a search without data is reused for its "
                f"candidates; finish it by 'hwsearch resume {folder}'"
            )
        known = set(read_members(folder / CANDIDATES, ())["key"])
    else:
        _check_measured(where, folder, measured, metric, context)
        known = set(values)
    archs, outside = _part_of(setup.net.space, [arch for arch in full if arch.key in known], where)
    reused = set(archs.ids)
    # A latency of the earlier run is a proxy of that on this device.
    there = {
        key: {"latency_ms": latency.value, "device": latency.details.get("device", "")}
        for key, latency in Timings(measured).corrected(LATENCY).items()
    }
    kept = [
        replace(m, details={**m.details, REUSED: {"run": str(folder), **there.get(m.key, {})}})
        for m in holding
        if m.key in reused
    ]
    identity = "\n".join([*archs.ids, *(f"{m.identity} {m.value!r}" for m in kept)])
    n = len(reused & set(values))
    what = f"accuracies of {n}" if n else f"candidates without data, of {len(archs)}"
    return ValueSource(
        kind=WARM_START,
        quantity=metric,
        recorded={"path": str(folder), "digest": digest_of_text(identity), REUSED: len(archs)},
        note=f"{what} architectures reused from {folder}{outside}",
        archs=archs,
        values=np.array([values.get(key, np.nan) for key in archs.ids]),
        measurements=kept,
    )


def first_difference(there: SearchSpace, here: SearchSpace) -> str:
    """Return the first difference of two spaces; empty if both have the same architectures."""
    own = {choice.name: choice for choice in here.choices}
    for choice in there.choices:
        mine = own.pop(choice.name, None)
        if mine is None:
            return f"it has a choice {choice.name!r}, which is none here"
        theirs, ours = (", ".join(map(repr, each.options)) for each in (choice, mine))
        if theirs != ours:
            return f"choice {choice.name!r} has the options {theirs} there, and {ours} here"
        if mine.active != choice.active:
            return (
                f"choice {choice.name!r} is active there: {choice.condition}, and here: "
                f"{mine.condition}"
            )
    return f"it has no choice {next(iter(own))!r}" if own else ""


def _architectures(
    where: str, recorded: Mapping[str, Any], trials: Sequence[Trial], space: SearchSpace
) -> Architectures:
    """Return the architectures of trials; raise InputError if they are of another space."""
    text = recorded.get("full_space")
    problem = first_difference(SearchSpace.from_json(str(text)), space) if text else ""
    if not problem:
        try:
            return space.architectures([trial.choices for trial in trials])
        except InputError as error:
            problem = str(error)
    raise InputError(
        f"{where} is of another search space: {problem}. Give a run of the same supernet"
    )


def _check_measured(
    where: str, folder: Path, measured: Sequence[Measurement], metric: str, context: str
) -> None:
    searched = [m for m in measured if m.purpose == "search"]
    scores = [m for m in searched if m.quantity == metric]
    if not scores:
        quantities = ", ".join(dict.fromkeys(m.quantity for m in searched)) or "nothing"
        raise InputError(
            f"{where} measured {quantities}, and no {metric}, which this search needs; give a "
            f"run that has {metric} among its objectives"
        )
    if not any(m.context == context for m in scores):
        words = zip_longest(scores[-1].context.split(), context.split(), fillvalue="nothing")
        changes = ", ".join(f"{was} there is {now} here" for was, now in words if was != now)
        raise InputError(
            f"{where} measured {metric} in another context, so that its numbers do not compare: "
            f"{changes}. As evidence, which chooses and is no number of the front, give its "
            f"table: hwsearch.Run({str(folder)!r}).trials.to_csv('known.csv'), then "
            "--warm-start known.csv"
        )


def read_csv(setup: Setup, path: Path) -> ValueSource:
    """Read a CSV with a column per choice and one of the metric.

    Values of one architecture are averaged; rows without a value and columns of a run's tables are
    ignored. Where the metric has an approximation, the model of the source is a multiple of it.
    """
    metric, full = setup.task.metric.name, setup.net.full_space
    where = f"warm start {str(path)!r}"
    try:
        content = path.read_bytes()
        file = io.StringIO(decoded(content), newline="")
        rows = list(csv.DictReader(file, strict=True, restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{where} cannot be read: {error}") from error
    _check_columns(where, rows, full, metric)
    listed: dict[str, tuple[Architecture, list[float]]] = {}
    for number, row in enumerate(rows, start=1):
        if not row[metric]:
            continue
        at = f"{where}, row {number}"
        try:
            named = {c.name: _option(c, row[c.name]) for c in full.choices if row.get(c.name)}
            (arch,) = full.architectures([named])
        except InputError as error:
            raise InputError(f"{at} is of another search space: {error}") from error
        value = _number(row[metric])
        if not math.isfinite(value):
            raise InputError(
                f"{at}: {metric} is {row[metric]!r}; give a finite number, or leave it empty"
            )
        listed.setdefault(arch.key, (arch, []))[1].append(value)
    archs, outside = _part_of(setup.net.space, [arch for arch, _ in listed.values()], where)
    values = np.array([np.mean(listed[key][1]) for key in archs.ids])
    digest = hashlib.sha256(content).hexdigest()[:DIGITS]
    return ValueSource(
        kind=WARM_START,
        quantity=metric,
        recorded={"path": str(path), "digest": digest, "evidence": len(archs)},
        note=(
            f"{metric} of {len(archs)} architectures from {path} is evidence: it is predicted "
            f"from to choose, and then measured{outside}"
        ),
        model=_fitted(setup, metric, archs, values),
        archs=archs,
        values=values,
        evidence=content,
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


def _check_columns(
    where: str, rows: Sequence[Mapping[str, str]], space: SearchSpace, metric: str
) -> None:
    if not rows:
        raise InputError(f"{where} holds no rows; {_HOW}")
    columns = list(map(str, rows[0]))
    if metric not in columns:
        raise InputError(
            f"{where} has no column {metric!r}, which this search measures; it has "
            f"{', '.join(columns)}; {_HOW}"
        )
    # Row numbers, as pandas writes them, have no name.
    known = {"", FORMER_COLUMN, *space.names, *table_columns(metric, *(q.name for q in SCORES))}
    for column in columns:
        if column not in known and not column.startswith(
            (f"{metric}_", f"{LATENCY}_", f"{THROUGHPUT}_")
        ):
            raise InputError(
                f"{where} is of another search space: {column!r} is no choice of this one "
                f"({', '.join(space.names)}) and no column of a run's tables; remove that column "
                "if it says nothing of the architecture"
            )


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


def _part_of(
    space: SearchSpace, archs: Sequence[Architecture], where: str
) -> tuple[Architectures, str]:
    """Return the architectures in a restricted space, and the part of a note on the others.

    Raise InputError if all lie outside of it; ``where`` names the source in the text.
    """
    choices = {choice.name: choice.options for choice in space.choices}
    inside = space.architectures(
        arch.mapping
        for arch in archs
        if all(option in choices.get(name, ()) for name, option in arch.mapping.items())
    )
    if not len(inside):
        raise InputError(
            f"{where} knows {len(archs)} architectures, none of them in the part of the space "
            "that is searched; change --freeze and --only, or leave it out"
        )
    n = len(archs) - len(inside)
    return inside, f" ({n} more lie outside of what is searched)" if n else ""
