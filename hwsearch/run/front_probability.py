"""Probabilities that an architecture is on the front, and that it satisfies a constraint."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwsearch.constraints import Constraint, satisfied
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY, RATIO
from hwsearch.objectives import FloatArray
from hwsearch.quantities import exact_quantities
from hwsearch.run.bootstrap import front_membership, interval_draws, latency_draws, score_draws
from hwsearch.run.setup import Setup
from hwsearch.trials import Measurement

if TYPE_CHECKING:
    import pandas as pd


def front_probabilities(
    setup: Setup,
    evaluator: Evaluator,
    keys: Sequence[str],
    values: Mapping[str, FloatArray],
    confirmed: Mapping[str, Measurement | None],
) -> dict[str, float]:
    """Return the probability of each of n contenders to be on the front of the true values.

    The front is that of the contenders, which were timed together. They were selected by the same
    images, so that the probabilities of the best are slightly too high. ``confirmed`` has None
    if latency is no objective.
    """
    store, seed, samples = evaluator.store, setup.config.seed, setup.task.search
    draws = {}
    for objective in setup.objectives:
        name = objective.name
        if name == LATENCY:
            timed = [found for key in keys if (found := confirmed[key]) is not None]
            ratios = {m.key: store.find(m.key, RATIO, m.context, "confirm") for m in timed}
            kept = {key: ratio for key, ratio in ratios.items() if ratio is not None}
            draws[name] = latency_draws(timed, kept, seed)
        elif objective.computed is not None:
            draws[name] = values[name][np.newaxis]
        else:
            context = evaluator.score_context(samples)
            scores = [store.find(key, name, context, "search") for key in keys]
            draws[name] = score_draws([score for score in scores if score is not None], seed)
    rates = front_membership(draws, setup.objectives, setup.constraints)
    return {key: float(rate) for key, rate in zip(keys, rates, strict=True)}


def constraint_probabilities(
    constraint: Constraint, members: "pd.DataFrame", measured: Sequence[Measurement], seed: int
) -> FloatArray:
    """Return the probability ``(n,)`` that the true value of each member satisfies a constraint.

    It is the one-sided share of the bootstrap draws of `front_probabilities`. A predicted value is
    drawn from its interval; an exact one has probability 0 or 1.

    Raises:
        InputError: Values of the constrained column have no interval.
    """
    name, keys = constraint.objective, [str(key) for key in members["key"]]
    exact = {*exact_quantities(), *members.columns[members.columns.get_loc("subnet") + 1 :]}
    quantity, purpose = (
        (name.removesuffix("_report"), "report") if name.endswith("_report") else (name, "search")
    )
    scores = {m.key: m for m in measured if (m.quantity, m.purpose) == (quantity, purpose)}
    if f"{name}_source" in members:
        intervals = members[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        draws = np.column_stack([interval_draws(v, low, high, seed) for v, low, high in intervals])
    elif name in exact:
        draws = members[name].to_numpy(float)[np.newaxis]
    elif name == LATENCY:
        timed = _timed_together(members, measured)
        context, order = timed[0].context, [m.key for m in timed]
        ratios = {m.key: m for m in measured if (m.quantity, m.context) == (RATIO, context)}
        columns = [order.index(key) for key in keys]
        draws = latency_draws(timed, ratios, seed)[:, columns]
    elif f"{name}_low" in members and scores:
        draws = score_draws([scores[key] for key in keys], seed)
    else:
        known = [column.removesuffix("_low") for column in members if column.endswith("_low")]
        raise InputError(
            f"{name} has no interval, so that nothing is known of how surely '{constraint}' "
            f"holds; it is known of {', '.join([*known, *exact_quantities()])} and of the choices"
        )
    kept = satisfied({name: draws.ravel()}, [constraint]).reshape(draws.shape)
    shares: FloatArray = kept.mean(axis=0)
    return shares


def _timed_together(members: "pd.DataFrame", measured: Sequence[Measurement]) -> list[Measurement]:
    """Return the confirmed latencies of the timing job that gave the members' values."""
    contexts: dict[str, list[Measurement]] = {}
    for each in measured:
        if (each.quantity, each.purpose) == (LATENCY, "confirm"):
            contexts.setdefault(each.context, []).append(each)
    for timed in reversed(contexts.values()):
        values = {each.key: each.value for each in timed}
        stated = zip(members["key"], members[LATENCY], strict=True)
        if all(math.isclose(values.get(key, math.nan), value) for key, value in stated):
            return timed
    raise InputError("the run's store does not hold the latencies that its front states")
