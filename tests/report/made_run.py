"""Run folders as a search leaves them, filled through the public store in no time."""

import numpy as np
import pandas as pd

from hwsearch import Run
from hwsearch.constraints import Constraint, satisfied
from hwsearch.objectives import hypervolume, is_non_dominated
from hwsearch.run.candidates import Prediction
from hwsearch.run.config import RunConfig, write_config
from hwsearch.run.finish import row_of
from hwsearch.run.front import knee
from hwsearch.run.search_summary import Comparison, PredictionQuality, SearchSummary
from hwsearch.space import Choice, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

N_IMAGES = 400
BATCH = 8
REFERENCE = {"top1": 50.0, "latency": 12.0}
UNITS = {"top1": "%", "latency": "ms", "macs": "MACs"}
FILES = ("model.onnx", "card.json", "weights.safetensors", "infer.py")


def space_of(n_stages=2, prefix="stage"):
    """Stages of one to three blocks, each with a kernel and a width, and a resolution."""
    choices = [Choice("resolution", (160, 192, 224))]
    for stage in range(1, n_stages + 1):
        depth = f"{prefix}{stage}.depth"
        choices.append(Choice(depth, (1, 2, 3)))
        for block in range(1, 4):
            active = (depth, tuple(range(block, 4))) if block > 1 else None
            for name, options in (("kernel", (3, 5, 7)), ("expand", (2, 4, 6))):
                choices.append(Choice(f"{prefix}{stage}.block{block}.{name}", options, active))
    return SearchSpace(choices)


def elastic_space(
    path="model.backbone.extractor_of_features.encoder_of_pictures",
    blocks=5,
    convolutions=2,
):
    """Four stages with a width, of blocks that can be left out, as an elastic model has them."""
    choices = [Choice("resolution", (160, 224))]
    for stage in range(4):
        choices.append(Choice(f"{path}.layer{stage}.width", (64, 128, 192)))
        for block in range(blocks):
            of = f"{path}.layer{stage}.{block}"
            choices.append(Choice(f"{of}.keep", (False, True)))
            choices += [
                Choice(f"{of}.conv{number}.width", (16, 32, 64), (f"{of}.keep", (True,)))
                for number in range(convolutions)
            ]
    return SearchSpace(choices)


def values_of(archs):
    """``(n, 2)`` top1 and latency: what is larger is better and slower."""
    filled = (archs.indices + 1) * archs.active
    size = filled.sum(axis=1) / (3.0 * archs.active.shape[1])
    bump = 0.3 * np.sin(archs.indices @ np.arange(1, archs.active.shape[1] + 1))
    return np.column_stack([55 + 30 * (1 - np.exp(-3 * size)) + bump, 1 + 10 * size])


def made_run(
    folder,
    n=40,
    *,
    kind="front",
    supernet="miniature",
    device="ort-cpu:threads=1",
    faster=1.0,
    space=None,
    constraints=(),
    reason="scripted to fail",
    measured=("top1", "latency"),
    seed=0,
    **recorded,
):
    """Write a run of n trials; every tenth failed, and every tenth has no score.

    Its kind is ``front``, ``candidates`` or ``unfinished``; its latencies are divided by
    ``faster``; what else ``config.toml`` records is given by name.
    """
    space = space or space_of()
    folder.mkdir(parents=True)
    config = RunConfig(supernet=supernet, device=device, budget=n, constraints=tuple(constraints))
    directions = {"top1": "max", "latency": "min"}
    objectives = [
        {
            "name": name,
            "direction": directions.get(name, "min"),
            "unit": UNITS[name],
            "source": "predicted" if kind == "candidates" and name == "top1" else "measured",
        }
        for name in measured
    ]
    told = {
        "space": space.digest,
        "full_space": space.to_json(),
        "weights": "w",
        "data": {"search": f"{N_IMAGES}@d", "report": f"{N_IMAGES}@e"},
        "device": {"cpu": "a processor", "runtime": "onnxruntime 1"},
        "objectives": objectives,
        "warnings": [],
        "versions": {"hwsearch": "0"},
    }
    write_config(folder, config, told | recorded)
    archs = space.sample_spread(min(n, 4), seed)
    archs = archs.concatenate([archs, space.sample_distinct(n - len(archs), seed, archs)])
    values = values_of(archs) / [1.0, faster]
    hard = np.random.default_rng(0).permutation(N_IMAGES)  # the same images are for all
    values[:, 0] = [100 * _right(hard, value).mean() for value in values[:, 0]]
    with Store(folder / "trials.sqlite") as store:
        done = _fill(store, archs, values, hard, reason, measured)
    kept = [Constraint.parse(text) for text in constraints]
    columns = dict(zip(REFERENCE, values.T, strict=True))
    done = [i for i in done if not kept or satisfied(columns, kept)[i]]
    (folder / "subnets").mkdir()
    if kind != "unfinished":
        _finish(folder, archs, values, done, measured, kind)
    return Run(folder)


def _fill(store, archs, values, hard, reason, measured):
    rng = np.random.default_rng(0)
    done = []
    for start in range(0, len(archs), BATCH):
        batch = list(archs[start : start + BATCH])
        numbers = range(start, start + len(batch))
        forecasts = {}
        if start:
            forecasts = {
                arch.key: {
                    "top1": (values[i, 0] + rng.normal(), 1.0),
                    "latency": (values[i, 1], 0.3),
                }
                for i, arch in zip(numbers, batch, strict=True)
            }
        store.propose(batch, start // BATCH, "hwsearch", forecasts)
        found = []
        for i, arch in zip(numbers, batch, strict=True):
            if i % 10 == 9:
                store.fail(arch.key, reason)
                continue
            found.append(_latency(arch.key, values[i, 1], "search", rng))
            if i % 10 != 8 and "top1" in measured:
                found.append(_score(arch.key, values[i, 0], hard, "search"))
                done.append(i)
            store.finish(arch.key)
        store.add_all(found)
    marked = is_non_dominated(values[done] * [-1, 1])
    best = [i for i, kept in zip(done, marked, strict=True) if kept]
    store.add_all(_latency(archs[i].key, values[i, 1], "confirm", rng) for i in best)
    store.add_all(_score(archs[i].key, values[i, 0] - 0.5, hard, "report") for i in best)
    return best


def _right(hard, top1):
    return hard < round(top1 / 100 * N_IMAGES)


def _latency(key, value, purpose, rng):
    ratio = {"ratio": value, "ratio_low": 0.99 * value, "ratio_high": 1.01 * value}
    noise = {"cv": 0.02 + 0.01 * rng.random(), "waited": 0.0, "p90_ms": value, "p99_ms": value}
    anchor = {"anchor_ms": 1.0 + 0.1 * rng.random(), "baseline_ms": 1.0}
    return Measurement(
        key=key, quantity="latency", context=f"device {purpose}", purpose=purpose, value=value,
        low=0.99 * value, high=1.01 * value, count=100, cost_s=0.5,
        details={
            **ratio, **noise, **anchor, "rounds": 40, "warnings": ["rounds differ by 3% a lot"],
            "baseline_low_ms": 0.99, "baseline_high_ms": 1.01,
        },
    )  # fmt: skip


def _score(key, value, hard, purpose):
    right = _right(hard, value)
    top1 = 100 * float(right.mean())
    return Measurement(
        key=key, quantity="top1", context=f"images {purpose}", purpose=purpose, value=top1,
        low=top1 - 2, high=top1 + 2, count=len(hard), cost_s=0.2, samples=right,
    )  # fmt: skip


def _finish(folder, archs, values, best, measured, kind):
    run = Run(folder)
    known = {(m.key, m.quantity, m.purpose): m for m in run.measurements()}
    rows = []
    for i in best:
        arch = archs[i]
        numbers = {
            "top1": known[arch.key, "top1", "search"],
            "top1_report": known[arch.key, "top1", "report"],
            "latency": known[arch.key, "latency", "confirm"],
        }
        if kind == "candidates":
            top1 = numbers.pop("top1_report").value
            numbers["top1"] = Prediction(
                quantity="top1", value=top1, low=top1 - 1, high=top1 + 1, basis={}
            )
        exact = {"macs": int(1e6 * values[i, 1]), "params": 10_000, "bytes": 40_000}
        subnet = f"subnets/{arch.key}"
        rows.append(row_of(arch, numbers, None if kind == "candidates" else 0.9, exact, "w"))
        (folder / subnet).mkdir()
        for name in FILES if kind == "front" else FILES[1:2]:
            (folder / subnet / name).write_text("")
    members = pd.DataFrame(rows).sort_values("top1")
    name = "front.csv" if kind == "front" else "candidates.csv"
    (folder / "search.json").write_text(_summary(archs, values, members, run).to_json())
    members.to_csv(folder / name, index=False)


def _summary(archs, values, members, run):
    losses = values * [-1, 1]
    reference = [-REFERENCE["top1"], REFERENCE["latency"]]
    ends = {n: hypervolume(losses[:n], reference) for n in range(1, len(values) + 1, 40)}
    steps = [ends[1 + 40 * (n // 40)] for n in range(len(values))]
    row = members.set_index("key").loc[knee(members, run.objectives)]
    numbers = [dict(zip(REFERENCE, map(float, pair), strict=True)) for pair in values[:4]]
    return SearchSummary(
        objectives={"top1": "%", "latency": "ms"}, predicted=(), metric="top1",
        evaluated=len(values), failed=len(values) // 10, reused=0, members=len(members),
        reference=REFERENCE, hypervolumes=tuple(steps), gain=steps[-1] / 50,
        fits=tuple(
            PredictionQuality(objective=n, evaluated=8, n=8, tau=0.8, covered=0.9)
            for n in REFERENCE
        ),
        random=steps[-1] * 0.8, uniform=tuple(numbers), uniform_hypervolume=steps[-1] * 0.7,
        uniform_at_knee=70.0, knee={name: float(row[name]) for name in REFERENCE},
        largest=numbers[-1],
        versus=(
            Comparison(
                member="knee", key=row.name, cost="latency", times=2.0, points=-1.0, low=-2.0,
                high=0.0,
            ),
        ),
    )  # fmt: skip
