"""Data of the page of one run, as plain JSON values."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.accuracy.task import NO_DATA
from hwsearch.architectures import parse_name
from hwsearch.models.artifact import CARD, INFER, MODEL, WEIGHTS
from hwsearch.optimizer.stopping import LOOKAHEAD
from hwsearch.quantities import exact_quantities, quantity_of
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
    plain,
    progress_figure,
    score_figure,
    short,
)
from hwsearch.report.front_figure import front_figure
from hwsearch.report.importance import LEAST_TRIALS, importances
from hwsearch.report.precisions import block_of
from hwsearch.report.run_data import RunData, stated
from hwsearch.report.stages import Place, places, shares
from hwsearch.run.outcome import KIT, SUBNETS
from hwsearch.trained_model import MODULE


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
                "comparative": quantity_of(o.name).comparative or f"less {o.name}",
            }
            for o in data.objectives
        ],
        "constraints": [str(constraint) for constraint in data.constraints],
        "elastic": data.elastic is not None,
        "choices": _choices(data),
        "trials": _trials(data),
        "members": _members(data),
        "order": [data.place[key] for key in by_cost(data)],
        "picks": [asdict(pick) | {"number": data.place[pick.key]} for pick in picks(data)],
        "shared": shared(data),
        "summary": _summary(data),
        "importance": _importance(data),
        "forecasts": _forecasts(data),
        "scores": _scores(data),
        "measuring": _measuring(data),
        "fronts": {o.name: front_figure(data, o) for o in data.objectives[1:]}
        or {"trial": front_figure(data)},
        "across": data.across.name if data.across else "trial",
    }


def _choices(data: RunData) -> list[dict[str, Any]]:
    """Return one entry per choice; those of elastic models say what is kept of the given one."""
    choices = data.space.choices
    if data.elastic is None:
        located = {choice.name: Place(*parse_name(choice.name)) for choice in choices}
    else:
        located = places([choice for choice in choices if block_of(choice) is None])
    for choice in choices:
        if (block := block_of(choice)) is not None:
            located[choice.name] = Place("precision", block, "")
    return [
        {
            "name": choice.name,
            **asdict(located[choice.name]),
            "options": [str(option) for option in choice.options],
            "ordered": choice.ordered,
            "precision": block_of(choice),
        }
        | ({} if data.elastic is None else {"shares": shares(choice.options)})
        for choice in choices
    ]


def _header(data: RunData) -> dict[str, Any]:
    config, recorded = data.run.config, data.run.recorded
    device = recorded.get("device", {})
    hardware = [str(device[name]) for name in ("cpu", "gpu", "runtime") if name in device]
    splits = recorded.get("data", {}).items()
    counted = ", ".join(f"{str(each).partition('@')[0]} {name}" for name, each in splits)
    settings = {
        "tactic": config.tactic,
        "budget": config.budget,
        "seed": config.seed,
        "constraints": ", ".join(config.constraints),
        "restricted by": ", ".join([*config.freeze, *config.only]),
        "warm start": config.warm_start or "",
        **recorded.get("versions", {}),
    }
    return {
        "supernet": config.supernet,
        "weights": config.checkpoint or data.elastic or "",
        "device": config.device,
        "hardware": ", ".join(hardware),
        "data": config.data,
        "counted": f"{counted} {data.samples}" if counted else "",
        "samples": data.samples,
        "date": data.written,
        "space": float(data.space.size),
        "settings": [[name, str(value)] for name, value in settings.items() if value != ""],
    }


def _state_notes(data: RunData) -> list[str]:
    folder = data.run.folder
    if data.kind == "front":
        return []
    if data.kind == "unfinished":
        return [
            "this run is not finished: what is best so far is as the search measured it, neither "
            f"confirmed nor exported; finish it by: hwsearch resume {folder}"
        ]
    if data.run.config.data == NO_DATA:
        next_step = f"with images: {data.run.with_images}"
    else:
        next_step = (
            f"run {folder}/{KIT} on the device, then: hwsearch confirm {folder} timings.json"
        )
    names = " and ".join(sorted(data.predicted))
    return [f"these are candidates, not a front: {names} is predicted; {next_step}"]


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
    found = {}
    for key, row in data.members_by_key.items():
        folder = data.run.folder / SUBNETS / key
        found[data.place[key]] = {
            "numbers": list(_numbers(data, row)),
            "probability": short(row.get("probability")),
            "path": str(folder),
            "files": [name for name in (MODEL, CARD, WEIGHTS, INFER) if (folder / name).is_file()],
            "load": _load(data, folder),
        }
    return found


def _numbers(data: RunData, row: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield name, value, ends of the interval, unit and source of each number of a member."""
    units, exact = {o.name: o.unit for o in data.objectives}, exact_quantities()
    for name in (name for name in {**units, **exact} if name in row):
        how = "exact" if name in exact else "measured"
        if f"{name}_source" in row:
            how = "predicted"
        elif name == data.metric:
            how = f"measured on search {data.samples}"
        yield [name, *plain(stated(row, name)), units.get(name) or quantity_of(name).unit, how]
        if f"{name}_report" in row:
            report = plain(stated(row, f"{name}_report"))
            yield [name, *report, units.get(name, ""), f"measured on report {data.samples}"]
    # Of a latency or throughput, besides its interval.
    single_runs = [(name, "ms", "measured") for name in ("p50", "p90", "p99")]
    spread = (*single_runs, ("rounds", "", ""), ("best_batch", "", "of the throughput"))
    for name, unit, how in spread:
        value = row.get(f"{name}_{unit}" if unit else name)
        if value is not None and value == value:
            yield [name, short(value), None, None, unit, how]


def _load(data: RunData, folder: Path) -> list[list[str]]:
    run = repr(str(data.run.folder))
    if not (folder / MODEL).is_file():
        return [["In Python", f"import hwsearch\n\nmembers = hwsearch.Run({run}).members"]]
    model = repr(str(folder / MODEL))
    session = f"model = {model}\nsession = onnxruntime.InferenceSession(model)"
    found = [
        _weights(data, folder),
        ["In ONNX Runtime", f"import onnxruntime\n\n{session}"],
    ]
    if (folder / INFER).is_file():
        found.append(["On one image", f"python {shlex.quote(str(folder / INFER))} IMAGE"])
    return found


def _weights(data: RunData, folder: Path) -> list[str]:
    """Return a title, and the lines that give a member's weights in the form that they came in."""
    if data.elastic is None:
        run, key = repr(str(data.run.folder)), repr(folder.name)
        network = f"run = hwsearch.Run({run})\nnetwork = run.subnet({key})"
        return ["As a network", f"import hwsearch\n\n{network}"]
    if data.elastic.startswith(MODULE):
        net, member = repr(data.run.recorded["elastic"]["folder"]), repr(str(folder))
        cut = f"network = hwsearch.cut(module, {member}, net)  # module: the one it came from"
        load = f"net = hwsearch.load_supernet({net})"
        return ["As a network", f"import hwsearch\n\n{load}\n{cut}"]
    weights = repr(str(folder / WEIGHTS))
    return [
        "Its weights by name",
        f"import safetensors.numpy\n\nweights = safetensors.numpy.load_file({weights})",
    ]


def _summary(data: RunData) -> dict[str, Any] | None:
    summary = data.summary
    if summary is None:
        return None
    reached = summary.hypervolumes[-1]

    def share(value: float | None) -> float | None:
        return None if value is None or not reached else value / reached

    first, *others = summary.objectives
    at_knee = None
    if summary.uniform_at_knee is not None:
        knee, uniform = plain([summary.knee[first], summary.uniform_at_knee])
        at_knee = {"first": first, "second": others[0], "knee": knee, "uniform": uniform}
    return {
        "evaluated": summary.evaluated,
        "failed": summary.failed,
        "reused": summary.reused,
        "members": summary.members,
        "figure": progress_figure(summary),
        "share": short(summary.share),
        "hypervolume": short(reached),
        "units": " x ".join(unit or name for name, unit in summary.objectives.items()),
        "horizon": LOOKAHEAD,
        "at_knee": at_knee,
        "gain": share(summary.gain),
        "random": share(summary.random),
        "uniform": share(summary.uniform_hypervolume),
    }


def _importance(data: RunData) -> dict[str, Any]:
    objectives = [
        {
            "name": each.objective,
            "trials": each.trials,
            "tau": short(each.tau),
            "figure": importance_figure(data, each),
        }
        for each in importances(data)
    ]
    return {"least": LEAST_TRIALS, "objectives": objectives}


def _forecasts(data: RunData) -> list[dict[str, Any]]:
    """Return one entry per measured objective that was predicted before it was measured."""
    fits = {fit.objective: fit for fit in data.summary.fits} if data.summary else {}
    found = []
    for objective in data.objectives:
        figure = forecast_figure(data, objective)
        if figure["data"][1]["x"]:
            fit = fits.get(objective.name)
            told = {"name": objective.name, "fit": fit and asdict(fit), "figure": figure}
            found.append(told)
    return found


def _scores(data: RunData) -> dict[str, Any] | None:
    """Return the scores on search and report images; None without report images."""
    scores = scores_on_both(data)
    if not scores:
        return None
    gaps = [each["report"][0] - each["search"][0] for each in scores]
    inside = sum(each["report"][1] <= each["search"][0] <= each["report"][2] for each in scores)
    return {
        "figure": score_figure(data, scores),
        "mean": short(np.mean(gaps)),
        "inside": inside,
        "n": len(scores),
        "unit": data.up.unit,
    }


def _measuring(data: RunData) -> dict[str, Any] | None:
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
