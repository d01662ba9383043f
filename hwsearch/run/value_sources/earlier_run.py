"""An earlier run as a value source.

A measurement is reused if its context is that of the search: the same weights, calibration,
samples and precision for an accuracy, the same device for a latency.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import REUSED
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import digest_of_text
from hwsearch.run.config import TRIALS, read_config
from hwsearch.run.outcome import CANDIDATES, read_members
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.base import WARM_START, ValueSource, part_of
from hwsearch.space import Architectures, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, Trial


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
    contexts = {
        (metric, "search"): here.search_context(metric),
        (metric, "report"): here.score_context(setup.task.report),
        (LATENCY, "search"): here.latency_context,
    }
    holding = [m for m in measured if contexts.get((m.quantity, m.purpose)) == m.context]
    values = {m.key: m.value for m in holding if (m.quantity, m.purpose) == (metric, "search")}
    if config.data == NO_DATA:
        known = _candidates(where, folder)
    else:
        _check_measured(where, folder, measured, metric, contexts[metric, "search"])
        known = set(values)
    archs, outside = part_of(setup.net.space, [arch for arch in full if arch.key in known], where)
    reused = set(archs.ids)
    there = {m.key: m for m in measured if (m.quantity, m.purpose) == (LATENCY, "search")}
    kept = [_with_origin(m, folder, there.get(m.key)) for m in holding if m.key in reused]
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


def _with_origin(m: Measurement, folder: Path, latency: Measurement | None) -> Measurement:
    """Add the earlier run and its latency of the architecture to the details of a measurement."""
    origin: dict[str, Any] = {"run": str(folder)}
    if latency is not None:
        origin |= {"latency_ms": latency.value, "device": latency.details.get("device", "")}
    return replace(m, details={**m.details, REUSED: origin})


def _candidates(where: str, folder: Path) -> set[str]:
    """Return the keys of the candidates of a search without data."""
    path = folder / CANDIDATES
    if not path.is_file():
        raise InputError(
            f"{where} is not finished, and a search without data is reused for its candidates; "
            f"finish it by 'hwsearch resume {folder}'"
        )
    return set(read_members(path, ())["key"])
