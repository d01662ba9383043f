"""Sections of the page besides the front, as plain JSON values."""

from typing import Any

import numpy as np

from hwsearch.report.analysis import picks, scores_on_both, shared, timings, warned
from hwsearch.report.figures import (
    drift_figure,
    forecast_figure,
    importance_figure,
    progress_figure,
    score_figure,
)
from hwsearch.report.importance import LEAST_TRIALS, importances
from hwsearch.report.plotly_figures import plain, short
from hwsearch.report.run_data import RunData
from hwsearch.run.search_summary import HORIZON, Comparison


def picks_section(data: RunData) -> list[dict[str, Any]]:
    """Return the recommended members, each compared with the largest subnet."""
    return [
        {
            "wish": pick.wish,
            "number": data.place[pick.key],
            "sure": pick.sure,
            "versus": _versus(pick.versus),
        }
        for pick in picks(data)
    ]


def _versus(versus: Comparison | None) -> dict[str, Any] | None:
    if versus is None:
        return None
    points = plain([versus.points, versus.low, versus.high])
    return {"cost": versus.cost, "times": short(versus.times), "points": points}


def shared_section(data: RunData) -> dict[str, Any] | None:
    """Return the choices that members have in common; None for fewer than two members."""
    found = shared(data)
    if found is None:
        return None
    same = [[name, option, n] for name, (option, n) in found.same.items()]
    return {"same": same, "rising": list(found.rising), "n": found.n, "along": found.along}


def summary_section(data: RunData) -> dict[str, Any] | None:
    """Return the search summary; None without one."""
    summary = data.summary
    if summary is None:
        return None
    reached = summary.hypervolumes[-1]
    shares = {
        "gain": summary.gain,
        "random": summary.random,
        "uniform": summary.uniform_hypervolume,
    }
    first, *others = summary.objectives
    at_knee = None
    if summary.uniform_at_knee is not None:
        knee, uniform = plain([summary.knee[first], summary.uniform_at_knee])
        at_knee = {"first": first, "second": others[0], "knee": knee, "uniform": uniform}
    return {
        "figure": progress_figure(summary),
        "evaluated": summary.evaluated,
        "failed": summary.failed,
        "reused": summary.reused,
        "members": summary.members,
        "share": short(summary.share),
        "hypervolume": short(reached),
        "units": " x ".join(unit or name for name, unit in summary.objectives.items()),
        "horizon": HORIZON,
        **{
            name: short(value / reached) if value is not None and reached else None
            for name, value in shares.items()
        },
        "at_knee": at_knee,
    }


def importance_section(data: RunData) -> dict[str, Any]:
    """Return the importance of each choice for each objective."""
    found = importances(data)
    return {
        "least": LEAST_TRIALS,
        "objectives": [
            {
                "name": each.objective,
                "trials": each.trials,
                "tau": short(each.tau),
                "figure": importance_figure(data, each),
            }
            for each in found
        ],
    }


def forecast_section(data: RunData) -> list[dict[str, Any]]:
    """Return one entry per measured objective that was predicted before it was measured."""
    fits = {fit.objective: fit for fit in data.summary.fits} if data.summary else {}
    found = []
    for objective in data.objectives:
        figure = forecast_figure(data, objective)
        if figure["data"][1]["x"]:
            fit = fits.get(objective.name)
            told = None if fit is None else {"n": fit.n, "tau": fit.tau, "covered": fit.covered}
            found.append({"name": objective.name, "fit": told, "figure": figure})
    return found


def score_section(data: RunData) -> dict[str, Any] | None:
    """Return the scores on search and report images; None without report images."""
    scores = scores_on_both(data)
    if not scores:
        return None
    gaps = [each["report"][0] - each["search"][0] for each in scores]
    inside = sum(each["report"][1] <= each["search"][0] <= each["report"][2] for each in scores)
    return {
        "figure": score_figure(data, scores),
        "mean": short(np.mean(gaps)),
        "inside": int(inside),
        "n": len(scores),
        "unit": data.up.unit,
    }


def measuring_section(data: RunData) -> dict[str, Any] | None:
    """Return statistics of the timings; None if nothing was timed against an anchor."""
    told = [m for m in timings(data) if "anchor_ms" in m.details]
    if not told:
        return None
    anchor = [100 * (m.details["anchor_ms"] / m.details["baseline_ms"] - 1) for m in told]
    spread = [None if m.details.get("cv") is None else 100 * m.details["cv"] for m in told]
    half: dict[str, list[float]] = {}
    for m in told:
        if m.low is not None and m.high is not None:
            half.setdefault(m.purpose, []).append((m.high - m.low) / 2 / m.value)
    return {
        "figure": drift_figure(anchor, spread),
        "n": len(told),
        "half": {name: short(np.median(widths)) for name, widths in half.items()},
        "anchor": short(np.median(anchor)),
        "warnings": [[count, text] for count, text in warned(data)],
        "minutes": short(sum(m.cost_s for m in told) / 60),
    }
