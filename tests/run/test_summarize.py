"""The summary of a search: every figure against what it has to be, over a store in memory."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwsearch.accuracy.metric import TOP1, paired_difference
from hwsearch.errors import EvaluationError, InputError
from hwsearch.objectives import Objective, hypervolume, to_losses
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.history import N_INITIAL
from hwsearch.optimizer.initial_design import initial_design
from hwsearch.optimizer.stopping import Stopping
from hwsearch.run.cluster.scheduler import InProcess
from hwsearch.run.loop import run_search
from hwsearch.run.progress import Silent
from hwsearch.run.search_summary import SearchSummary
from hwsearch.run.summarize import replay_optimizer, summarize_search
from hwsearch.space import Choice, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, TrialState

SPACE = SearchSpace(
    [
        Choice("depth", (1, 2, 3, 4)),
        Choice("width", (8, 16, 24, 32)),
        Choice("kernel", (3, 5, 7)),
        Choice("expansion", (2, 3, 4, 6)),
        Choice("squeeze", (0, 1)),
    ]
)
N_IMAGES = 400
RATIO_WIDTH = 0.02


def truth(arch):
    """Share of the images that it gets right, and latency."""
    size = arch["depth"] * arch["width"] * (1 + arch["kernel"] / 7) * arch["expansion"] / 1536
    return 0.9 - 0.4 * np.exp(-3 * size) + 0.01 * arch["squeeze"], 1 + 9 * size


def outcomes(arch):
    """The same images are hard for all."""
    hard = np.random.default_rng(0).permutation(N_IMAGES)
    return hard < round(truth(arch)[0] * N_IMAGES)


class Bench:
    """Measures into a store; what has kernel 5 and depth 2 fails."""

    def __init__(self, store):
        self.store = store

    def __call__(self, archs):
        return {arch.key: self._values(arch) for arch in archs}

    def _values(self, arch):
        if (arch["kernel"], arch["depth"]) == (5, 2):
            return EvaluationError("scripted to fail")
        right, latency = outcomes(arch), truth(arch)[1]
        known = {"key": arch.key, "context": "c", "purpose": "search", "cost_s": 0.0}
        ratios = {"ratio": latency, "ratio_low": latency * (1 - RATIO_WIDTH)}
        ratios["ratio_high"] = latency * (1 + RATIO_WIDTH)
        top1 = 100 * float(right.mean())
        self.store.add_all(
            [
                Measurement(quantity="top1", value=top1, count=N_IMAGES, samples=right, **known),
                Measurement(quantity="latency", value=latency, count=9, details=ratios, **known),
            ]
        )
        return {"top1": top1, "latency": latency}


def setup_of(tactic="hwsearch", objectives=("top1", "latency"), constraints=()):
    """As much of a run's setup as a summary looks at."""
    macs = lambda archs: np.array([1e6 * truth(arch)[1] for arch in archs])  # noqa: E731
    known = {
        "top1": Objective("top1", "max", unit="%"),
        "latency": Objective("latency", "min", unit="ms"),
        "macs": Objective("macs", "min", exact=macs),
    }
    chosen = [known[name] for name in objectives]

    def optimizer():
        return Optimizer(SPACE, chosen, seed=2, tactic=tactic, constraints=constraints)

    return SimpleNamespace(
        net=SimpleNamespace(space=SPACE),
        task=SimpleNamespace(metric=TOP1),
        config=SimpleNamespace(seed=2),
        objectives=tuple(chosen),
        measured=[o.name for o in chosen if o.exact is None],
        optimizer=optimizer,
    )


def searched(setup, budget=32):
    store, optimizer = Store(), setup.optimizer()
    scheduler = InProcess(Bench(store))
    run_search(optimizer, store, scheduler, Stopping(budget=budget), Silent())
    archs = optimizer.front()
    values = optimizer.history.values[optimizer.history.front]
    names = [objective.name for objective in setup.objectives]
    rows = [
        {"key": arch.key, **dict(zip(names, row, strict=True))}
        for arch, row in zip(archs, values.tolist(), strict=True)
    ]
    return optimizer, store, rows


@pytest.fixture(scope="module")
def found():
    setup = setup_of()
    optimizer, store, rows = searched(setup)
    return setup, optimizer, store, rows, summarize_search(optimizer, store, setup, rows)


def measured(store, key, quantity):
    return store.find(key, quantity, "c", "search")


def test_counts(found):
    _, _, store, rows, summary = found
    failed = store.trials(TrialState.FAILED)
    assert failed
    assert (summary.evaluated, summary.failed, summary.members) == (32, len(failed), len(rows))
    assert summary.share == len(rows) / 32
    assert summary.objectives == {"top1": "%", "latency": "ms"}
    assert summary.predicted == ()


def test_is_recomputed_from_the_store_alone(found):
    setup, _, store, rows, summary = found
    assert summarize_search(replay_optimizer(setup, store), store, setup, rows) == summary


def test_json_gives_it_back(found):
    summary = found[-1]
    assert SearchSummary.from_json(summary.to_json(), "here") == summary
    for text in ("{}", "no json", summary.to_json().replace('"fits"', '"fit"'), "[]"):
        with pytest.raises(InputError, match=r"here is damaged or of another version"):
            SearchSummary.from_json(text, "here")


def test_hypervolumes_are_those_of_every_prefix(found):
    setup, optimizer, _, _, summary = found
    assert len(summary.hypervolumes) == 32
    assert summary.hypervolumes[-1] == pytest.approx(optimizer.hypervolume())
    assert np.all(np.diff(summary.hypervolumes) >= 0)
    short = searched(setup, 12)
    assert summary.hypervolumes[11] == pytest.approx(short[0].hypervolume())
    assert summary.reference == optimizer.reference


def test_fits_are_of_what_was_predicted_before_it_was_measured(found):
    _, _, store, _, summary = found
    chosen = [t for t in store.trials(TrialState.DONE) if t.forecast]
    ends = [t.number for t in store.trials() if t.round > store.trials()[t.number - 1].round]
    rounds = [end for end in [*ends, 32] if end > N_INITIAL]
    for name in ("top1", "latency"):
        fits = [fit for fit in summary.fits if fit.objective == name]
        assert [fit.evaluated for fit in fits] == rounds
        last = chosen[-16:]
        means, deviations = np.array([trial.forecast[name] for trial in last]).T
        values = np.array([measured(store, trial.key, name).value for trial in last])
        noise = values * RATIO_WIDTH / 1.96 if name == "latency" else 0.0
        inside = np.abs(values - means) <= 1.96 * np.hypot(deviations, noise)
        assert fits[-1].n == 16
        assert fits[-1].covered == inside.mean()
        assert fits[-1].tau == pytest.approx(kendalltau(means, values).statistic)


def forecast_by(store, forecast):
    """The same store, had this been predicted of every trial after the initial design."""
    changed = Store()
    for trial in store.trials():
        arch = SimpleNamespace(key=trial.key, mapping=trial.choices)
        told = {trial.key: forecast(trial)} if trial.number >= N_INITIAL else {}
        changed.propose([arch], trial.round, trial.origin, told)
        (changed.fail(trial.key, "f") if trial.reason else changed.finish(trial.key))
    changed.add_all(store.measurements())
    return changed


def fits_of(found, forecast):
    setup, optimizer, store, rows, _ = found
    changed = forecast_by(store, forecast)
    return summarize_search(optimizer, changed, setup, rows).fits


def test_predictions_that_rank_backwards_have_tau_minus_one(found):
    store = found[2]

    def backwards(trial):
        got = measured(store, trial.key, "top1")
        return {"top1": (-got.value if got else 0.0, 1.0)}

    fits = fits_of(found, backwards)
    assert {fit.objective for fit in fits} == {"top1"}
    assert fits[-1].tau == pytest.approx(-1.0)
    assert fits[-1].covered == 0.0


def test_the_noise_of_a_latency_is_no_fault_of_its_prediction(found):
    store = found[2]

    def near(trial):
        if trial.reason:
            return {}
        values = {name: measured(store, trial.key, name).value for name in ("top1", "latency")}
        return {name: (v * (1 + RATIO_WIDTH / 2), 0.0) for name, v in values.items()}

    covered = {fit.objective: fit.covered for fit in fits_of(found, near)}
    assert covered == {"top1": 0.0, "latency": 1.0}


def test_predictions_that_are_all_alike_have_no_tau(found):
    fits = fits_of(found, lambda trial: {"latency": (5.0, 100.0)})
    assert {fit.tau for fit in fits} == {None}
    assert {fit.covered for fit in fits} == {1.0}


def test_uniform_scaling_is_the_initial_design_as_measured(found):
    _, optimizer, store, _, summary = found
    done = [
        arch for arch in initial_design(SPACE, N_INITIAL, 2) if measured(store, arch.key, "top1")
    ]
    latencies = sorted(truth(arch)[1] for arch in done)
    assert [values["latency"] for values in summary.uniform] == pytest.approx(latencies)
    losses = to_losses([[v["top1"], v["latency"]] for v in summary.uniform], optimizer.objectives)
    assert summary.uniform_hypervolume == pytest.approx(
        hypervolume(losses, optimizer.history.reference)
    )
    assert summary.uniform_hypervolume < summary.hypervolumes[-1]


def test_at_the_knee_it_is_interpolated_between_its_neighbours(found):
    summary = found[-1]
    across = summary.knee["latency"]
    below = max((v for v in summary.uniform if v["latency"] <= across), key=lambda v: v["latency"])
    above = min((v for v in summary.uniform if v["latency"] >= across), key=lambda v: v["latency"])
    assert below["top1"] <= summary.uniform_at_knee <= above["top1"]
    assert summary.uniform_at_knee <= summary.knee["top1"]


def test_random_is_predicted_at_equal_budget(found):
    """Where predictions are right it is what evaluating random sets would have given."""
    _, optimizer, _, _, summary = found
    rng, direct = np.random.default_rng(9), []
    for _ in range(15):
        archs = SPACE.sample_distinct(summary.evaluated - summary.failed, rng)
        values = [[100 * truth(arch)[0], truth(arch)[1]] for arch in archs]
        losses = to_losses(values, optimizer.objectives)
        direct.append(hypervolume(losses, optimizer.history.reference))
    assert summary.random == pytest.approx(np.median(direct), rel=0.03)
    assert summary.random < summary.hypervolumes[-1]


def test_random_sets_are_as_large_as_what_was_measured(found, monkeypatch):
    setup, optimizer, store, rows, summary = found
    drawn = []

    class Truth:
        def __init__(self, history):
            assert history is optimizer.history

        def forecast(self, archs):
            drawn.append(archs)
            values = [[100 * truth(arch)[0], truth(arch)[1]] for arch in archs]
            return SimpleNamespace(mean=np.array(values))

    monkeypatch.setattr("hwsearch.optimizer.posterior.Posterior", Truth)
    monkeypatch.setattr(optimizer, "expected_gain", lambda n: 0.25 * n)
    again = summarize_search(optimizer, store, setup, rows)
    assert {len(archs.unique()) for archs in drawn} == {summary.evaluated - summary.failed}
    assert len({archs.ids[0] for archs in drawn}) > 5
    assert again.gain == 0.25 * 50


def test_the_largest_is_compared_on_the_same_images(found):
    _, _, store, rows, summary = found
    (largest,) = SPACE.largest().ids
    assert summary.largest["latency"] == truth(SPACE.largest()[0])[1]
    assert max(rows, key=lambda row: row["top1"])["key"] == largest
    assert [each.member for each in summary.versus] == ["knee"]  # the best is the largest
    for each in summary.versus:
        (row,) = [row for row in rows if row["key"] == each.key]
        expected = paired_difference(
            measured(store, each.key, "top1").samples,
            measured(store, largest, "top1").samples,
            TOP1.scale,
        )
        assert (each.points, each.low, each.high) == pytest.approx(expected)
        assert each.cost == "latency"
        assert each.times == pytest.approx(summary.largest["latency"] / row["latency"])
    assert summary.versus[0].times > 1.5


def test_the_knee_comes_first_and_nobody_twice(found):
    setup, optimizer, store, rows, summary = found
    (largest,) = SPACE.largest().ids
    smaller = [row for row in rows if row["key"] != largest]
    versus = summarize_search(optimizer, store, setup, smaller).versus
    assert [each.member for each in versus] == ["knee", "best"]
    assert versus[1].key == max(smaller, key=lambda row: row["top1"])["key"]
    alone = summarize_search(optimizer, store, setup, smaller[:1]).versus
    assert [(each.member, each.key) for each in alone] == [("knee", smaller[0]["key"])]
    assert summary.versus


def test_what_the_front_states_of_members_is_what_counts(found):
    """Latencies are confirmed by then; that of the largest too, where it is a member."""
    setup, optimizer, store, rows, summary = found
    middle = summary.versus[0].key
    assert middle != SPACE.largest().ids[0]
    slower = [{**r, "latency": r["latency"] * (1.0001 if r["key"] == middle else 1)} for r in rows]
    again = summarize_search(optimizer, store, setup, slower)
    assert again.versus[0].key == middle
    assert again.versus[0].times == pytest.approx(summary.versus[0].times / 1.0001)
    assert again.knee["latency"] == summary.knee["latency"] * 1.0001
    assert again.hypervolumes == summary.hypervolumes


@pytest.mark.parametrize("tactic", ["random", "nsga2"])
def test_of_a_tactic_without_an_initial_design(tactic):
    setup = setup_of(tactic)
    summary = summarize_search(*_args(setup, 16))
    assert summary.fits == ()
    assert (summary.uniform, summary.uniform_hypervolume, summary.uniform_at_knee) == (
        (), None, None,
    )  # fmt: skip
    assert summary.random is not None
    assert summary.largest is None
    assert summary.versus == ()


def _args(setup, budget):
    optimizer, store, rows = searched(setup, budget)
    return optimizer, store, setup, rows


def test_of_one_objective_with_a_bound_on_another_cost():
    summary = summarize_search(*_args(setup_of(objectives=("top1",)), 16))
    assert summary.uniform_at_knee is None
    assert len(summary.uniform) > 4
    assert summary.versus == ()  # nothing is saved


def test_of_computed_costs():
    summary = summarize_search(*_args(setup_of(objectives=("top1", "macs")), 16))
    assert {each.cost for each in summary.versus} == {"macs"}
    assert summary.versus[0].times > 1
    assert {fit.objective for fit in summary.fits} == {"top1"}


def test_bounds_count_for_every_hypervolume():
    tight = setup_of(constraints=["latency <= 4"])
    summary = summarize_search(*_args(tight, 24))
    loose = summarize_search(*_args(setup_of(), 24))
    assert summary.uniform_hypervolume < loose.uniform_hypervolume
    assert summary.random < loose.random


def test_nothing_is_changed_by_looking(found):
    summary = found[-1]
    assert replace(summary) == summary
    with pytest.raises(AttributeError):
        summary.members = 3
