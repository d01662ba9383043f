"""Comparison of runs: their fronts, and one run's best subnets on another run's device."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations, permutations
from typing import Any, Final

import numpy as np

from hwsearch.evaluation.measurements import LATENCY, paired_scores
from hwsearch.objectives import hypervolume, to_losses
from hwsearch.report.figures import Figure, hover, interval, label, layout_of, plain, trace
from hwsearch.report.run_data import RunData, stated

_ROLES: Final = ("front", "largest", "uniform", "second", "knee")
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A member of one run on the device of another run; latencies in ms.

    ``elsewhere`` is its latency there, confirmed or only measured by the search. ``instead`` is
    the other front's best at no more latency, ``points`` its advantage in score, with its 95%
    interval paired over images. ``times`` is ``elsewhere`` relative to the least latency at which
    the other front has its score. None stands for no such member.
    """

    key: str
    latency: float
    elsewhere: float
    confirmed: bool
    instead: str | None
    points: float | None
    low: float | None
    high: float | None
    times: float | None


def compared(runs: Sequence[RunData]) -> dict[str, Any]:
    """Return the page's section on several runs, as plain JSON values."""
    timed = [data for data in runs if data.members is not None and LATENCY in data.members]
    return {
        "lead": "Members as each run states them, on its own device, with 95% intervals.",
        "notes": _notes(runs),
        "figure": fronts_figure(runs),
        "transfers": [_told(a, b) for a, b in permutations(timed, 2)],
    }


def fronts_figure(runs: Sequence[RunData]) -> Figure:
    """Draw the fronts of several runs in one plot."""
    traces = []
    for place, data in enumerate(drawable(runs)):
        across = data.across
        assert data.members is not None
        assert across is not None
        rows = data.members.sort_values(across.name).to_dict("records")
        x, y = ([stated(row, o.name) for row in rows] for o in (across, data.up))
        marks = ", ".join(f"{name} predicted" for name in sorted(data.predicted))
        name = f"{data.run.folder.name}: {data.what} on {data.run.config.device}"
        role, symbol = (each[place % len(each)] for each in (_ROLES, _SYMBOLS))
        traces.append(
            trace(
                role,
                escape(f"{name}{marks and ', '}{marks}"),
                [value for value, _, _ in x],
                [value for value, _, _ in y],
                mode="lines+markers",
                marker={"size": 8, "symbol": symbol},
                line={"width": 1.5},
                error_x=interval(x),
                error_y=interval(y),
                hovertemplate=hover(data, across),
            )
        )
    first = runs[0]
    across = first.across
    layout = layout_of(label(first, across) if across else "", label(first, first.up), "closest")
    return {"data": traces, "layout": layout}


def drawable(runs: Sequence[RunData]) -> list[RunData]:
    """Return the runs that have members and the objectives of the first of them."""
    known = [
        (data, (data.up.name, data.across.name))
        for data in runs
        if data.members is not None and data.across is not None
    ]
    return [data for data, axes in known if axes == known[0][1]]


def transfers(a: RunData, b: RunData) -> list[Transfer]:
    """Return the members of run ``a`` that were measured on the device of run ``b``."""
    assert a.members is not None
    assert b.members is not None
    metric = a.up
    own = b.members_by_key
    theirs = b.members[[metric.name, LATENCY]].to_numpy(float)
    losses = to_losses(theirs[:, :1], [metric])[:, 0]
    searched, scores = b.of_search(LATENCY), b.shipped_scores(metric.name)
    found = []
    for row in a.members.sort_values(LATENCY).to_dict("records"):
        key = str(row["key"])
        if key not in own and key not in searched:
            continue
        elsewhere = float(own[key][LATENCY]) if key in own else searched[key].value
        loss = to_losses([[float(row[metric.name])]], [metric])[0, 0]
        affordable = np.flatnonzero(theirs[:, 1] <= elsewhere)
        as_good = np.flatnonzero(losses <= loss)
        best = int(affordable[np.argmin(losses[affordable])]) if len(affordable) else None
        instead = None if best is None else str(b.members["key"].iloc[best])
        if key in own and best is not None and losses[best] >= loss:
            instead = key  # nothing is better there, though something may be as good
        low = high = None
        if instead is not None and {key, instead} <= set(scores):
            _, low, high = paired_scores(scores[instead], scores[key])
        found.append(
            Transfer(
                key=key,
                latency=float(row[LATENCY]),
                elsewhere=elsewhere,
                confirmed=key in own,
                instead=instead,
                points=None if best is None else float(theirs[best, 0] - row[metric.name]),
                low=low,
                high=high,
                times=elsewhere / float(theirs[as_good, 1].min()) if len(as_good) else None,
            )
        )
    return found


def kept_hypervolume(
    b: RunData, found: Sequence[Transfer], scores: Sequence[float]
) -> float | None:
    """Return the share of ``b``'s hypervolume that another run's members reach on its device.

    Return None if ``b`` has no summary, or objectives other than score and latency.
    """
    names = [objective.name for objective in b.objectives]
    if b.summary is None or names != [b.up.name, LATENCY] or not found:
        return None
    assert b.members is not None
    reference = to_losses([[b.summary.reference[name] for name in names]], b.objectives)[0]
    reached = to_losses(
        np.column_stack([scores, [each.elsewhere for each in found]]), b.objectives
    )
    whole = hypervolume(to_losses(b.members[names].to_numpy(float), b.objectives), reference)
    return hypervolume(reached, reference) / whole if whole else None


def _told(a: RunData, b: RunData) -> dict[str, Any]:
    assert a.members is not None
    names = [each.run.folder.name for each in (a, b)]
    title = f"What the best of {names[0]} costs on {b.run.config.device}"
    why = _incomparable(a, b)
    found = [] if why else transfers(a, b)
    if not found:
        way = f"hwsearch search --device {b.run.config.device} --warm-start {a.run.folder}"
        none = f"{names[1]} has measured none of the {len(a.members)} subnets: {way} does"
        return {"title": title, "head": [], "rows": [], "lines": [why or none]}
    points = "points" if a.up.unit == "%" else a.up.unit or f"of {a.up.name}"
    scores = a.members.set_index("key")[a.up.name]
    lines = [
        f"{len(found)} of the {len(a.members)} were measured there. Taking them in place of what "
        f"{names[1]} found for its own device:"
    ]
    lost = [each.points for each in found if each.points is not None]
    times = [each.times for each in found if each.times is not None]
    if lost:
        lines.append(
            f"at the same latency they lose {np.mean(lost):.2g} {points} on average, "
            f"{max(lost):.2g} at worst"
        )
    if times:
        lines.append(
            f"for the same {a.up.name} they take {np.mean(times):.2f} times the latency on "
            f"average, {max(times):.2f} at worst"
        )
    share = kept_hypervolume(b, found, [float(scores[each.key]) for each in found])
    if share is not None:
        lines.append(f"together they reach {share:.1%} of the hypervolume of the front there")
    head = [
        f"subnet of {names[0]}",
        f"on {a.run.config.device} (ms)",
        f"on {b.run.config.device} (ms)",
        "measured by",
        f"better there at that latency ({a.up.unit or a.up.name})",
        f"times the latency for that {a.up.name}",
    ]
    rows = [_row(each) for each in found]
    return {"title": title, "head": head, "rows": rows, "lines": lines}


def _row(each: Transfer) -> list[Any]:
    points = "nothing" if each.points is None else f"{each.points:+.2g}"
    if each.low is not None and each.high is not None and each.instead != each.key:
        points += f" ({each.low:+.2g} to {each.high:+.2g})"
    if each.instead == each.key:
        points = "it is on the front"
    how = "confirmed" if each.confirmed else "the search"
    times = None if each.times is None else f"{each.times:.2f}"
    return [each.key, *plain([each.latency, each.elsewhere]), how, points, times]


def _incomparable(a: RunData, b: RunData) -> str | None:
    """Return why the scores of two runs do not compare; None if they do."""
    one, two = (data.run.recorded for data in (a, b))
    if a.up.name != b.up.name:
        return f"their first objectives differ ({a.up.name}, {b.up.name})"
    for part, what in (("weights", "weights"), ("data", "images")):
        if one.get(part) != two.get(part):
            return f"their {what} differ, so that their {a.up.name} does not compare"
    return None


def _notes(runs: Sequence[RunData]) -> list[str]:
    notes, drawn = [], drawable(runs)
    for data in runs:
        name = data.run.folder.name
        if data.members is None:
            notes.append(f"{name} is not finished: it has no front to compare")
            continue
        if data.predicted:
            predicted = ", ".join(sorted(data.predicted))
            notes.append(f"{name} has candidates: {predicted} is predicted")
        if data not in drawn:
            notes.append(f"{name} is not in the plot: its objectives differ")
    for a, b in combinations(runs, 2):
        if (why := _incomparable(a, b)) is not None:
            notes.append(f"{a.run.folder.name} and {b.run.folder.name}: {why}")
    return notes
