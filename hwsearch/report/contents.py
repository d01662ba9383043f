"""What the page of one run is given, as plain JSON values: it draws them, and nothing else."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.task import NO_DATA
from hwsearch.models.artifact import CARD, INFER, MODEL, WEIGHTS
from hwsearch.quantities import comparative_of, exact_quantities, unit_of
from hwsearch.report.facts import Facts, stated
from hwsearch.report.findings import by_cost, keeps
from hwsearch.report.front_figure import front_figure
from hwsearch.report.plotting import plain
from hwsearch.report.sections import (
    forecast_section,
    importance_section,
    measuring_section,
    picks_section,
    score_section,
    shared_section,
    summary_section,
)
from hwsearch.run.outcome import KIT, SUBNETS
from hwsearch.stages import parse_name

_SPREAD: Final = ("p90_ms", "p99_ms", "rounds")  # of a latency, besides its interval


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
                "comparative": comparative_of(o.name),
            }
            for o in facts.objectives
        ],
        "constraints": [str(constraint) for constraint in facts.constraints],
        "choices": _choices(facts),
        "trials": _trials(facts),
        "members": _members(facts),
        "order": [facts.place[key] for key in by_cost(facts)],
        "picks": picks_section(facts),
        "shared": shared_section(facts),
        "summary": summary_section(facts),
        "importance": importance_section(facts),
        "forecasts": forecast_section(facts),
        "scores": score_section(facts),
        "measuring": measuring_section(facts),
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
        "space": float(facts.space.size),
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
            f"these are candidates, not a front: {names} is predicted; with images: "
            f"{facts.run.with_images}"
        ]
    return [
        f"these are candidates, not a front: {names} is predicted; run {facts.run.folder}/{KIT} "
        f"on the device, then: hwsearch confirm {facts.run.folder} timings.json"
    ]


def _choices(facts: Facts) -> list[dict[str, Any]]:
    places = [parse_name(choice.name) for choice in facts.space.choices]
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
        "state": [str(trial.state) for trial in trials],
        "reason": {number: t.reason for number, t in enumerate(trials) if t.reason},
        "keeps": keeps(facts),
        "values": {name: plain(values) for name, values in facts.values.items()},
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
            "files": [name for name in (MODEL, CARD, WEIGHTS, INFER) if (folder / name).is_file()],
            "load": _load(facts, folder),
        }
    return found


def _numbers(facts: Facts, row: dict[str, Any]) -> Iterator[list[Any]]:
    units = {o.name: o.unit for o in facts.objectives}
    metric = facts.metric
    names = [o.name for o in facts.objectives]
    exact = exact_quantities()
    names += [name for name in exact if name not in names]
    for name in names:
        if name not in row:
            continue
        value, low, high = stated(row, name)
        how = "predicted" if f"{name}_source" in row else "exact" if name in exact else "measured"
        if how == "measured" and name == metric:
            how = "measured on search images"
        yield [name, *plain([value, low, high]), units.get(name) or unit_of(name), how]
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


def _load(facts: Facts, folder: Path) -> list[list[str]]:
    """What loads a member, as (title, lines): in Python, by ONNX Runtime and from a shell."""
    run = repr(str(facts.run.folder))
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
