"""Data of the page of one run, as plain JSON values."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.task import NO_DATA
from hwsearch.models.artifact import CARD, INFER, MODEL, WEIGHTS
from hwsearch.quantities import comparative_of, exact_quantities, quantity_of
from hwsearch.report.analysis import (
    by_cost,
    keeps,
    picks,
    scores_on_both,
    shared,
    timings,
    warned,
)
from hwsearch.report.figures import (
    drift_figure,
    forecast_figure,
    importance_figure,
    progress_figure,
    score_figure,
)
from hwsearch.report.front_figure import front_figure
from hwsearch.report.importance import LEAST_TRIALS, importances
from hwsearch.report.plotly_figures import plain, short
from hwsearch.report.run_data import RunData, stated
from hwsearch.run.outcome import KIT, SUBNETS
from hwsearch.run.search_summary import HORIZON, Comparison
from hwsearch.stages import parse_name

_SPREAD: Final = ("p90_ms", "p99_ms", "rounds")  # of a latency, besides its interval


def page_data(data: RunData) -> dict[str, Any]:
    """Return the page's data of one run."""
    run = data.run
    return {
        "name": run.folder.name or str(run.folder),
        "folder": str(run.folder),
        "kind": data.kind,
        "what": data.what,
        "header": _header(data),
        "notes": [*run.recorded.get("warnings", ()), *_state_notes(data), *data.lacking],
        "objectives": [
            {
                "name": o.name,
                "unit": o.unit,
                "direction": o.direction,
                "source": data.sources[o.name],
                "predicted": o.name in data.predicted,
                "comparative": comparative_of(o.name),
            }
            for o in data.objectives
        ],
        "constraints": [str(constraint) for constraint in data.constraints],
        "choices": _choices(data),
        "trials": _trials(data),
        "members": _members(data),
        "order": [data.place[key] for key in by_cost(data)],
        "picks": picks_section(data),
        "shared": shared_section(data),
        "summary": summary_section(data),
        "importance": importance_section(data),
        "forecasts": forecast_section(data),
        "scores": score_section(data),
        "measuring": measuring_section(data),
        "fronts": {o.name: front_figure(data, o) for o in data.objectives[1:]}
        or {"trial": front_figure(data)},
        "across": data.across.name if data.across else "trial",
    }


def _header(data: RunData) -> dict[str, Any]:
    config, recorded = data.run.config, data.run.recorded
    device = recorded.get("device", {})
    hardware = [str(device[name]) for name in ("cpu", "gpu") if name in device]
    runtime = [str(device["runtime"])] if "runtime" in device else []
    images = {name: str(each).partition("@")[0] for name, each in recorded.get("data", {}).items()}
    counted = ", ".join(f"{n} {name}" for name, n in images.items())
    return {
        "supernet": config.supernet,
        "weights": config.checkpoint or "",
        "device": config.device,
        "hardware": ", ".join([*hardware, *runtime]),
        "data": config.data,
        "images": f"{counted} images" if counted else "",
        "date": data.written,
        "space": float(data.space.size),
        "settings": [
            ["tactic", config.tactic],
            ["budget", str(config.budget)],
            ["seed", str(config.seed)],
            *([["constraints", ", ".join(config.constraints)]] if config.constraints else []),
            *(
                [["restricted by", ", ".join([*config.freeze, *config.only])]]
                if config.freeze or config.only
                else []
            ),
            *([["warm start", config.warm_start]] if config.warm_start else []),
            *[[name, str(version)] for name, version in recorded.get("versions", {}).items()],
        ],
    }


def _state_notes(data: RunData) -> list[str]:
    if data.kind == "unfinished":
        return [
            "this run is not finished: what is best so far is as the search measured it, neither "
            f"confirmed nor exported; finish it by: hwsearch resume {data.run.folder}"
        ]
    if data.kind == "front":
        return []
    names = " and ".join(sorted(data.predicted))
    if data.run.config.data == NO_DATA:
        return [
            f"these are candidates, not a front: {names} is predicted; with images: "
            f"{data.run.with_images}"
        ]
    return [
        f"these are candidates, not a front: {names} is predicted; run {data.run.folder}/{KIT} "
        f"on the device, then: hwsearch confirm {data.run.folder} timings.json"
    ]


def _choices(data: RunData) -> list[dict[str, Any]]:
    places = [parse_name(choice.name) for choice in data.space.choices]
    return [
        {
            "name": choice.name,
            "stage": place.stage,
            "block": place.block,
            "attribute": place.attribute,
            "options": [str(option) for option in choice.options],
            "ordered": choice.ordered,
        }
        for choice, place in zip(data.space.choices, places, strict=True)
    ]


def _trials(data: RunData) -> dict[str, Any]:
    """Return columns with one value per trial; inactive choices are -1."""
    trials = data.trials
    return {
        "key": [trial.key for trial in trials],
        "round": [trial.round for trial in trials],
        "origin": [trial.origin for trial in trials],
        "state": [str(trial.state) for trial in trials],
        "reason": {number: t.reason for number, t in enumerate(trials) if t.reason},
        "keeps": keeps(data),
        "values": {name: plain(values) for name, values in data.values.items()},
        "indices": np.where(data.archs.active, data.archs.indices, -1).tolist(),
        "forecast": {
            number: {name: plain(pair) for name, pair in trial.forecast.items()}
            for number, trial in enumerate(trials)
            if trial.forecast
        },
    }


def _members(data: RunData) -> dict[int, Any]:
    """Return trial number -> contents of the member's card."""
    if data.members is None:
        return {}
    found = {}
    for row in data.members.to_dict("records"):
        key = str(row["key"])
        folder = data.run.folder / SUBNETS / key
        found[data.place[key]] = {
            "numbers": list(_numbers(data, row)),
            "probability": plain([row["probability"]])[0] if "probability" in row else None,
            "path": str(folder),
            "files": [name for name in (MODEL, CARD, WEIGHTS, INFER) if (folder / name).is_file()],
            "load": _load(data, folder),
        }
    return found


def _numbers(data: RunData, row: dict[str, Any]) -> Iterator[list[Any]]:
    units = {o.name: o.unit for o in data.objectives}
    metric = data.metric
    names = [o.name for o in data.objectives]
    exact = exact_quantities()
    names += [name for name in exact if name not in names]
    for name in names:
        if name not in row:
            continue
        value, low, high = stated(row, name)
        how = "predicted" if f"{name}_source" in row else "exact" if name in exact else "measured"
        if how == "measured" and name == metric:
            how = "measured on search images"
        yield [name, *plain([value, low, high]), units.get(name) or quantity_of(name).unit, how]
        if f"{name}_report" in row:
            yield [
                name,
                *plain(stated(row, f"{name}_report")),
                units.get(name, ""),
                "measured on report images",
            ]
    for name in _SPREAD:
        if name in row and row[name] == row[name]:
            unit = "ms" if name.endswith("_ms") else ""
            how = "measured" if unit else ""
            yield [name.removesuffix("_ms"), *plain([row[name], None, None]), unit, how]


def _load(data: RunData, folder: Path) -> list[list[str]]:
    run = repr(str(data.run.folder))
    if not (folder / MODEL).is_file():
        return [["In Python", f"import hwsearch\n\nmembers = hwsearch.Run({run}).members"]]
    model, key = repr(str(folder / MODEL)), repr(folder.name)
    network = f"run = hwsearch.Run({run})\nnetwork = run.subnet({key})"
    session = f"model = {model}\nsession = onnxruntime.InferenceSession(model)"
    found = [
        ["As a network", f"import hwsearch\n\n{network}"],
        ["In ONNX Runtime", f"import onnxruntime\n\n{session}"],
    ]
    if (folder / INFER).is_file():
        found.append(["On one image", f"python {shlex.quote(str(folder / INFER))} IMAGE"])
    return found


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
