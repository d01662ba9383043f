"""What the page of one run is given, as plain JSON values; the page draws and writes nothing else."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsearch.evaluate.task import NO_DATA
from hwsearch.report.facts import Facts, state_of, stated
from hwsearch.report.figures import (
    drift_figure,
    forecast_figure,
    importance_figure,
    progress_figure,
    score_figure,
)
from hwsearch.report.findings import (
    by_cost,
    keeps,
    picks,
    scores_on_both,
    shared,
    timings,
    warned,
)
from hwsearch.report.front_figure import front_figure
from hwsearch.report.importance import LEAST_TRIALS, importances
from hwsearch.report.layout import place_of
from hwsearch.report.plotting import Figure, plain
from hwsearch.run.account import HORIZON
from hwsearch.run.outcome import SUBNETS
from hwsearch.supernets.base import EXACT

FIGURES_OF_LATENCY: Final = ("p90_ms", "p99_ms", "rounds")


def run_contents(facts: Facts) -> dict[str, Any]:
    """Return all that the page shows of one run."""
    run = facts.run
    return {
        "name": run.folder.name or str(run.folder),
        "folder": str(run.folder),
        "kind": facts.kind,
        "what": facts.what,
        "header": _header(facts),
        "notes": [*run.recorded.get("warnings", ()), *_state_notes(facts), *facts.lacking],
        "objectives": [
            {
                "name": o.name,
                "unit": o.unit,
                "direction": o.direction,
                "source": facts.sources[o.name],
                "predicted": o.name in facts.predicted,
            }
            for o in facts.objectives
        ],
        "constraints": [str(constraint) for constraint in facts.constraints],
        "choices": _choices(facts),
        "trials": _trials(facts),
        "members": _members(facts),
        "order": [facts.place[key] for key in by_cost(facts)],
        "picks": _picks(facts),
        "shared": _shared(facts),
        "account": _account(facts),
        "importance": _importance(facts),
        "forecasts": _forecasts(facts),
        "scores": _scores(facts),
        "measuring": _measuring(facts),
        "fronts": {o.name: front_figure(facts, o) for o in facts.objectives[1:]}
        or {"trial": front_figure(facts)},
        "across": facts.across.name if facts.across else "trial",
    }


def _header(facts: Facts) -> dict[str, Any]:
    config, recorded = facts.run.config, facts.run.recorded
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
        "date": facts.written,
        "space": f"{facts.space.size:.3g} architectures",
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


def _state_notes(facts: Facts) -> list[str]:
    if facts.kind == "unfinished":
        return [
            "this run is not finished: what is best so far is as the search measured it, neither "
            f"confirmed nor exported; finish it by: hwsearch resume {facts.run.folder}"
        ]
    if facts.kind == "front":
        return []
    names = " and ".join(sorted(facts.predicted))
    if facts.run.config.data == NO_DATA:
        return [
            f"these are candidates, not a front: {names} is predicted; with images: {facts.run.with_images}"
        ]
    return [
        f"these are candidates, not a front: {names} is predicted; run {facts.run.folder}/kit.pyz "
        f"on the device, then: hwsearch confirm {facts.run.folder} timings.json"
    ]


def _choices(facts: Facts) -> list[dict[str, Any]]:
    places = [place_of(choice.name) for choice in facts.space.choices]
    return [
        {
            "name": choice.name,
            "stage": place.stage,
            "block": place.block,
            "attribute": place.attribute,
            "options": [str(option) for option in choice.options],
            "ordered": choice.ordered,
        }
        for choice, place in zip(facts.space.choices, places, strict=True)
    ]


def _trials(facts: Facts) -> dict[str, Any]:
    """Columns, one value per trial; inactive choices are -1."""
    trials = facts.trials
    return {
        "key": [trial.key for trial in trials],
        "round": [trial.round for trial in trials],
        "origin": [trial.origin for trial in trials],
        "state": [state_of(facts, trial) for trial in trials],
        "reason": {number: t.reason for number, t in enumerate(trials) if t.reason},
        "keeps": keeps(facts),
        "values": {name: plain(values) for name, values in facts.values.items()},
        "estimates": {facts.place[key]: plain([e.value])[0] for key, e in facts.estimates.items()},
        "indices": np.where(facts.archs.active, facts.archs.indices, -1).tolist(),
        "forecast": {
            number: {name: plain(pair) for name, pair in trial.forecast.items()}
            for number, trial in enumerate(trials)
            if trial.forecast
        },
    }


def _members(facts: Facts) -> dict[int, Any]:
    """Number of the trial -> what the card of a member shows."""
    if facts.members is None:
        return {}
    found = {}
    for row in facts.members.to_dict("records"):
        key = str(row["key"])
        folder = facts.run.folder / SUBNETS / key
        found[facts.place[key]] = {
            "numbers": list(_numbers(facts, row)),
            "probability": plain([row["probability"]])[0] if "probability" in row else None,
            "path": str(folder),
            "files": [
                name
                for name in ("model.onnx", "card.json", "weights.safetensors", "infer.py")
                if (folder / name).is_file()
            ],
            "python": _python(facts, key),
            "shell": f"python {folder / 'infer.py'} IMAGE",
        }
    return found


def _numbers(facts: Facts, row: dict[str, Any]) -> Any:
    units = {o.name: o.unit for o in facts.objectives}
    metric = facts.metric
    names = [o.name for o in facts.objectives]
    names += [name for name in EXACT if name not in names]
    for name in names:
        if name not in row:
            continue
        value, low, high = stated(row, name)
        how = "predicted" if f"{name}_source" in row else "exact" if name in EXACT else "measured"
        if how == "measured" and name == metric:
            how = "measured on search images"
        yield [name, *plain([value, low, high]), units.get(name, EXACT.get(name, "")), how]
        if f"{name}_report" in row:
            yield [
                name,
                *plain(stated(row, f"{name}_report")),
                units.get(name, ""),
                "measured on report images",
            ]
    for name in FIGURES_OF_LATENCY:
        if name in row and row[name] == row[name]:
            unit = "ms" if name.endswith("_ms") else ""
            yield [name.removesuffix("_ms"), *plain([row[name], None, None]), unit, "measured"]


def _python(facts: Facts, key: str) -> str:
    folder = Path(facts.run.folder)
    if facts.run.config.data == NO_DATA:
        return f"import hwsearch\n\nmembers = hwsearch.Run({str(folder)!r}).members"
    model = folder / SUBNETS / key / "model.onnx"
    return (
        "import hwsearch\n\n"
        f"run = hwsearch.Run({str(folder)!r})\n"
        f"network = run.subnet({key!r})  # a torch.nn.Module\n\n"
        "import onnxruntime\n\n"
        f"session = onnxruntime.InferenceSession({str(model)!r})"
    )


def _picks(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "wish": pick.wish,
            "number": facts.place[pick.key],
            "sure": pick.sure,
            "versus": None
            if (v := pick.versus) is None
            else {
                "cost": v.cost,
                "times": plain([v.times])[0],
                "points": plain([v.points, v.low, v.high]),
            },
        }
        for pick in picks(facts)
    ]


def _shared(facts: Facts) -> dict[str, Any] | None:
    found = shared(facts)
    if found is None:
        return None
    same = [[name, option, n] for name, (option, n) in found.same.items()]
    return {"same": same, "rising": list(found.rising), "n": found.n, "along": found.along}


def _account(facts: Facts) -> dict[str, Any] | None:
    account = facts.account
    if account is None:
        return None
    reached = account.hypervolumes[-1]
    others = list(account.objectives)[1:]
    return {
        "figure": progress_figure(account),
        "evaluated": account.evaluated,
        "failed": account.failed,
        "reused": account.reused,
        "members": account.members,
        "share": plain([account.share])[0],
        "hypervolume": plain([reached])[0],
        "units": " x ".join(unit or name for name, unit in account.objectives.items()),
        "horizon": HORIZON,
        "gain": plain([account.gain / reached if account.gain is not None and reached else None])[
            0
        ],
        "random": plain(
            [account.random / reached if account.random is not None and reached else None]
        )[0],
        "uniform": plain(
            [
                account.uniform_hypervolume / reached
                if account.uniform_hypervolume is not None and reached
                else None
            ]
        )[0],
        "at_knee": None
        if account.uniform_at_knee is None
        else {
            "first": list(account.objectives)[0],
            "second": others[0],
            "knee": plain([account.knee[list(account.objectives)[0]]])[0],
            "uniform": plain([account.uniform_at_knee])[0],
        },
    }


def _importance(facts: Facts) -> dict[str, Any]:
    found = importances(facts)
    return {
        "least": LEAST_TRIALS,
        "objectives": [
            {
                "name": each.objective,
                "trials": each.trials,
                "tau": plain([each.tau])[0],
                "figure": importance_figure(facts, each),
            }
            for each in found
        ],
    }


def _forecasts(facts: Facts) -> list[dict[str, Any]]:
    """One per measured objective of which anything was predicted before it was measured."""
    fits = {fit.objective: fit for fit in facts.account.fits} if facts.account else {}
    found = []
    for objective in facts.objectives:
        figure = forecast_figure(facts, objective)
        if figure["data"][1]["x"]:
            fit = fits.get(objective.name)
            told = None if fit is None else {"n": fit.n, "tau": fit.tau, "covered": fit.covered}
            found.append({"name": objective.name, "fit": told, "figure": figure})
    return found


def _scores(facts: Facts) -> dict[str, Any] | None:
    scores = scores_on_both(facts)
    if not scores:
        return None
    gaps = [each["report"][0] - each["search"][0] for each in scores]
    inside = sum(each["report"][1] <= each["search"][0] <= each["report"][2] for each in scores)
    return {
        "figure": score_figure(facts, scores),
        "mean": plain([np.mean(gaps)])[0],
        "inside": int(inside),
        "n": len(scores),
        "unit": facts.up.unit,
    }


def _measuring(facts: Facts) -> dict[str, Any] | None:
    told = [m for m in timings(facts) if "anchor_ms" in m.details]
    if not told:
        return None
    anchor = [100 * (m.details["anchor_ms"] / m.details["baseline_ms"] - 1) for m in told]
    spread = [None if m.details.get("cv") is None else 100 * m.details["cv"] for m in told]
    half = {
        purpose: [
            (m.high - m.low) / 2 / m.value
            for m in told
            if m.purpose == purpose and m.low is not None and m.high is not None
        ]
        for purpose in ("search", "confirm")
    }
    figure: Figure = drift_figure(anchor, spread)
    return {
        "figure": figure,
        "n": len(told),
        "half": {name: plain([np.median(widths)])[0] for name, widths in half.items() if widths},
        "anchor": plain([np.median(anchor)])[0],
        "warnings": [[count, text] for count, text in warned(facts)],
        "minutes": plain([sum(m.cost_s for m in told) / 60])[0],
    }
