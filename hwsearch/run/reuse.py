"""What an earlier run measured, as far as it holds for a search: not done again.

A measurement holds where its context is that of the search: an accuracy needs the same weights,
calibration, samples and precision, a latency the same device.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hwsearch.accuracy.task import NO_DATA
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import REUSED
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.files import digest_of_text
from hwsearch.run.config import TRIALS, read_config
from hwsearch.run.evidence import architectures_of, lies_in
from hwsearch.run.outcome import CANDIDATES
from hwsearch.run.setup import Setup
from hwsearch.space import Architectures, SearchSpace
from hwsearch.trials import Measurement, MemoryStore
from hwsearch.trials_sqlite import SqliteStore

_STAGED = ".reused"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reused:
    """Architectures of an earlier run, with every measurement of them that holds here.

    Attributes:
        path: The run's folder, as it was given.
        metric: What accuracy is called.
        archs: n of the space that is searched, distinct.
        measurements: With where they come from among their details.
        left_out: How many architectures of the run lie outside of what is searched.
    """

    path: str
    metric: str
    archs: Architectures
    measurements: tuple[Measurement, ...]
    left_out: int = 0

    @property
    def recorded(self) -> dict[str, str | int]:
        """What ``config.toml`` says of it."""
        lines = [f"{m.identity} {m.value!r}" for m in self.measurements]
        digest = digest_of_text("\n".join([*self.archs.ids, *lines]))
        return {"path": self.path, "digest": digest, REUSED: len(self.archs)}

    @property
    def n_scored(self) -> int:
        """How many of the architectures have an accuracy."""
        return sum(m.quantity == self.metric and m.purpose == "search" for m in self.measurements)

    @property
    def note(self) -> str:
        """What whoever watches should know, in one sentence."""
        n = self.n_scored or len(self.archs)
        what = "accuracies" if self.n_scored else "candidates without data,"
        text = f"{what} of {n} architectures reused from {self.path}"
        outside = f" ({self.left_out} more lie outside of what is searched)"
        return text + (outside if self.left_out else "")

    def keep(self, folder: Path) -> None:
        """Write the run's store, all of it or nothing."""
        staged = folder / _STAGED
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        with SqliteStore(staged / TRIALS) as store:
            store.propose(self.archs, round=0, origin=REUSED)
            store.add_all(self.measurements)
        os.replace(staged / TRIALS, folder / TRIALS)
        staged.rmdir()


def read_reused(folder: Path, setup: Setup) -> Reused:
    """Read what an earlier run knows.

    A search without data has measured no accuracy: its candidates are what is reused of it.

    Raises:
        InputError: The folder is no run, or one of another space (the text names the first
            difference), or its accuracies have another context; or nothing of it is searched.
    """
    config, recorded = read_config(folder)
    where = f"warm start {str(folder)!r}"
    if not (folder / TRIALS).is_file():
        raise InputError(f"{where} has no {TRIALS}: nothing was evaluated there; leave it out")
    _check_space(where, recorded, setup.net.full_space)
    with SqliteStore.snapshot(folder / TRIALS) as store:
        trials, measured = store.trials(), store.measurements()
    full = architectures_of(setup.net.full_space, [trial.choices for trial in trials], where)
    contexts = _contexts(setup)
    holding = [m for m in measured if contexts.get((m.quantity, m.purpose)) == m.context]
    if config.data == NO_DATA:
        known = _candidates(where, folder)
    else:
        _check_scored(where, folder, measured, setup, contexts)
        known = {m.key for m in holding if m.quantity == setup.task.metric.name}
    inside = [
        arch.mapping
        for arch in full
        if arch.key in known and lies_in(setup.net.space, arch.mapping)
    ]
    if not inside:
        raise InputError(
            f"{where} knows {len(known)} architectures, none of them in the part of the space "
            "that is searched; change --freeze and --only, or leave it out"
        )
    archs = setup.net.space.architectures(inside)
    keys, there = set(archs.ids), _latencies(measured)
    return Reused(
        path=str(folder),
        metric=setup.task.metric.name,
        archs=archs,
        measurements=tuple(
            _with_origin(m, folder, there.get(m.key)) for m in holding if m.key in keys
        ),
        left_out=len(known) - len(archs),
    )


def _contexts(setup: Setup) -> dict[tuple[str, str], str]:
    """Quantity and purpose of what is measured once and for all -> its context here."""
    here, task = setup.evaluator(MemoryStore()), setup.task
    return {
        (task.metric.name, "search"): here.score_context(task.search),
        (task.metric.name, "report"): here.score_context(task.report),
        (LATENCY, "search"): here.latency_context,
    }


def _latencies(measured: Sequence[Measurement]) -> dict[str, Measurement]:
    """Key -> its latency in the run's search, on whatever device that was."""
    return {m.key: m for m in measured if m.quantity == LATENCY and m.purpose == "search"}


def _with_origin(m: Measurement, folder: Path, latency: Measurement | None) -> Measurement:
    """Say of a measurement where it comes from, and how fast the architecture was there."""
    origin: dict[str, Any] = {"run": str(folder)}
    if latency is not None:
        origin |= {"latency_ms": latency.value, "device": latency.details.get("device", "")}
    return replace(m, details={**m.details, REUSED: origin})


def first_difference(there: SearchSpace, here: SearchSpace) -> str:
    """Say where two spaces first differ; empty where they have the same architectures."""
    own = {choice.name: choice for choice in here.choices}
    for choice in there.choices:
        mine = own.get(choice.name)
        if mine is None:
            return f"it has a choice {choice.name!r}, which is none here"
        if repr(mine.options) != repr(choice.options):
            return (
                f"choice {choice.name!r} has the options {_listed(choice.options)} there, and "
                f"{_listed(mine.options)} here"
            )
        if mine.active != choice.active:
            return (
                f"choice {choice.name!r} is active there: {choice.condition}, and here: "
                f"{mine.condition}"
            )
    missing = [name for name in here.names if name not in there.names]
    return f"it has no choice {missing[0]!r}" if missing else ""


def _check_space(where: str, recorded: Mapping[str, Any], here: SearchSpace) -> None:
    text = recorded.get("full_space")
    difference = first_difference(SearchSpace.from_json(str(text)), here) if text else ""
    if difference:
        raise InputError(
            f"{where} is of another search space: {difference}. Give a run of the same supernet"
        )


def _check_scored(
    where: str,
    folder: Path,
    measured: Sequence[Measurement],
    setup: Setup,
    contexts: Mapping[tuple[str, str], str],
) -> None:
    """Refuse accuracies that do not hold here, of whatever else the run may be."""
    metric = setup.task.metric.name
    searched = [m for m in measured if m.purpose == "search"]
    scores = [m for m in searched if m.quantity == metric]
    if not scores:
        quantities = ", ".join(dict.fromkeys(m.quantity for m in searched)) or "nothing"
        raise InputError(
            f"{where} measured {quantities}, and no {metric}, which this search needs; give a "
            f"run that has {metric} among its objectives"
        )
    context = contexts[metric, "search"]
    if not any(m.context == context for m in scores):
        raise InputError(
            f"{where} measured {metric} in another context, so that its numbers do not compare: "
            f"{_changes(scores[-1].context, context)}. As evidence, which chooses and is no "
            f"number of the front, give its table: hwsearch.Run({str(folder)!r}).trials.to_csv"
            "('known.csv'), then --warm-start known.csv"
        )


def _changes(there: str, here: str) -> str:
    """Say which words of two contexts differ."""
    pairs = zip_longest(there.split(), here.split(), fillvalue="nothing")
    return ", ".join(f"{was} there is {now} here" for was, now in pairs if was != now)


def _candidates(where: str, folder: Path) -> set[str]:
    """Keys that a search without data ended with."""
    import pandas as pd

    path = folder / CANDIDATES
    if not path.is_file():
        raise InputError(
            f"{where} is not finished, and a search without data is reused for its candidates; "
            f"finish it by 'hwsearch resume {folder}'"
        )
    return set(pd.read_csv(path, dtype={"key": str})["key"])


def _listed(options: Sequence[object]) -> str:
    return ", ".join(map(repr, options))
