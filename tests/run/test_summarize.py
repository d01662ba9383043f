"""The account of a search: every figure against what it has to be, over a store in memory."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwsearch.accuracy.score import paired_difference
from hwsearch.accuracy.task import TOP1
from hwsearch.errors import EvaluationError, InputError
from hwsearch.objectives import Objective, hypervolume, to_losses
from hwsearch.optimizer import Optimizer
from hwsearch.optimizer.first_sample import graded_sample
from hwsearch.optimizer.history import N_FIRST
from hwsearch.optimizer.stopping import Stopping
from hwsearch.run.loop import run_search
from hwsearch.run.progress import Silent
from hwsearch.run.search_summary import Account
from hwsearch.run.summarize import replayed, take_account
from hwsearch.run.workers.crew import Crew
from hwsearch.run.workers.executor import InProcess
from hwsearch.space import Choice, SearchSpace
from hwsearch.trials import Measurement, MemoryStore, TrialState

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
    """As much of a run's setup as an account looks at."""
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
    store, optimizer = MemoryStore(), setup.optimizer()
    crew = Crew(InProcess(Bench(store)))
    run_search(optimizer, store, crew, Stopping(budget=budget), Silent())
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
    return setup, optimizer, store, rows, take_account(optimizer, store, setup, rows)


def measured(store, key, quantity):
    return store.find(key, quantity, "c", "search")


def test_counts(found):
    _, _, store, rows, account = found
    failed = store.trials(TrialState.FAILED)
    assert failed
    assert (account.evaluated, account.failed, account.members) == (32, len(failed), len(rows))
    assert account.share == len(rows) / 32
    assert account.objectives == {"top1": "%", "latency": "ms"}
    assert account.predicted == ()


def test_is_recomputed_from_the_store_alone(found):
    setup, _, store, rows, account = found
    assert take_account(replayed(setup, store), store, setup, rows) == account


def test_json_gives_it_back(found):
    account = found[-1]
    assert Account.from_json(account.to_json(), "here") == account
    for text in ("{}", "no json", account.to_json().replace('"fits"', '"fit"'), "[]"):
        with pytest.raises(InputError, match=r"here is damaged or of another version"):
            Account.from_json(text, "here")


def test_hypervolumes_are_those_of_every_prefix(found):
    setup, optimizer, _, _, account = found
    assert len(account.hypervolumes) == 32
    assert account.hypervolumes[-1] == pytest.approx(optimizer.hypervolume())
    assert np.all(np.diff(account.hypervolumes) >= 0)
    short = searched(setup, 12)
    assert account.hypervolumes[11] == pytest.approx(short[0].hypervolume())
    assert account.reference == optimizer.reference


def test_fits_are_of_what_was_predicted_before_it_was_measured(found):
    _, _, store, _, account = found
    chosen = [t for t in store.trials(TrialState.DONE) if t.forecast]
    ends = [t.number for t in store.trials() if t.round > store.trials()[t.number - 1].round]
    rounds = [end for end in [*ends, 32] if end > N_FIRST]
    for name in ("top1", "latency"):
        fits = [fit for fit in account.fits if fit.objective == name]
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
    """The same store, had this been predicted of every trial after the first sample."""
    changed = MemoryStore()
    for trial in store.trials():
        arch = SimpleNamespace(key=trial.key, mapping=trial.choices)
        told = {trial.key: forecast(trial)} if trial.number >= N_FIRST else {}
        changed.propose([arch], trial.round, trial.origin, told)
        (changed.fail(trial.key, "f") if trial.reason else changed.finish(trial.key))
    changed.add_all(store.measurements())
    return changed


def fits_of(found, forecast):
    setup, optimizer, store, rows, _ = found
    changed = forecast_by(store, forecast)
    return take_account(optimizer, changed, setup, rows).fits


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


def test_uniform_scaling_is_the_graded_sample_as_measured(found):
    _, optimizer, store, _, account = found
    done = [arch for arch in graded_sample(SPACE, N_FIRST, 2) if measured(store, arch.key, "top1")]
    latencies = sorted(truth(arch)[1] for arch in done)
    assert [values["latency"] for values in account.uniform] == pytest.approx(latencies)
    losses = to_losses([[v["top1"], v["latency"]] for v in account.uniform], optimizer.objectives)
    assert account.uniform_hypervolume == pytest.approx(
        hypervolume(losses, optimizer.history.reference)
    )
    assert account.uniform_hypervolume < account.hypervolumes[-1]


def test_at_the_knee_it_is_interpolated_between_its_neighbours(found):
    account = found[-1]
    across = account.knee["latency"]
    below = max((v for v in account.uniform if v["latency"] <= across), key=lambda v: v["latency"])
    above = min((v for v in account.uniform if v["latency"] >= across), key=lambda v: v["latency"])
    assert below["top1"] <= account.uniform_at_knee <= above["top1"]
    assert account.uniform_at_knee <= account.knee["top1"]


def test_random_is_predicted_at_equal_budget(found):
    """Where predictions are right it is what evaluating random sets would have given."""
    _, optimizer, _, _, account = found
    rng, direct = np.random.default_rng(9), []
    for _ in range(15):
        archs = SPACE.sample_distinct(account.evaluated - account.failed, rng)
        values = [[100 * truth(arch)[0], truth(arch)[1]] for arch in archs]
        losses = to_losses(values, optimizer.objectives)
        direct.append(hypervolume(losses, optimizer.history.reference))
    assert account.random == pytest.approx(np.median(direct), rel=0.03)
    assert account.random < account.hypervolumes[-1]


def test_random_sets_are_as_large_as_what_was_measured(found, monkeypatch):
    setup, optimizer, store, rows, account = found
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
    again = take_account(optimizer, store, setup, rows)
    assert {len(archs.unique()) for archs in drawn} == {account.evaluated - account.failed}
    assert len({archs.ids[0] for archs in drawn}) > 5
    assert again.gain == 0.25 * 50


def test_the_largest_is_compared_on_the_same_images(found):
    _, _, store, rows, account = found
    (largest,) = SPACE.largest().ids
    assert account.largest["latency"] == truth(SPACE.largest()[0])[1]
    assert max(rows, key=lambda row: row["top1"])["key"] == largest
    assert [each.member for each in account.versus] == ["knee"]  # the best is the largest
    for each in account.versus:
        (row,) = [row for row in rows if row["key"] == each.key]
        expected = paired_difference(
            measured(store, each.key, "top1").samples,
            measured(store, largest, "top1").samples,
            TOP1.scale,
        )
        assert (each.points, each.low, each.high) == pytest.approx(expected)
        assert each.cost == "latency"
        assert each.times == pytest.approx(account.largest["latency"] / row["latency"])
    assert account.versus[0].times > 1.5


def test_the_knee_comes_first_and_nobody_twice(found):
    setup, optimizer, store, rows, account = found
    (largest,) = SPACE.largest().ids
    smaller = [row for row in rows if row["key"] != largest]
    versus = take_account(optimizer, store, setup, smaller).versus
    assert [each.member for each in versus] == ["knee", "best"]
    assert versus[1].key == max(smaller, key=lambda row: row["top1"])["key"]
    alone = take_account(optimizer, store, setup, smaller[:1]).versus
    assert [(each.member, each.key) for each in alone] == [("knee", smaller[0]["key"])]
    assert account.versus


def test_what_the_front_states_of_members_is_what_counts(found):
    """Latencies are confirmed by then; that of the largest too, where it is a member."""
    setup, optimizer, store, rows, account = found
    middle = account.versus[0].key
    assert middle != SPACE.largest().ids[0]
    slower = [{**r, "latency": r["latency"] * (1.0001 if r["key"] == middle else 1)} for r in rows]
    again = take_account(optimizer, store, setup, slower)
    assert again.versus[0].key == middle
    assert again.versus[0].times == pytest.approx(account.versus[0].times / 1.0001)
    assert again.knee["latency"] == account.knee["latency"] * 1.0001
    assert again.hypervolumes == account.hypervolumes


@pytest.mark.parametrize("tactic", ["random", "nsga2"])
def test_of_a_tactic_without_a_graded_sample(tactic):
    setup = setup_of(tactic)
    account = take_account(*_args(setup, 16))
    assert account.fits == ()
    assert (account.uniform, account.uniform_hypervolume, account.uniform_at_knee) == (
        (), None, None,
    )  # fmt: skip
    assert account.random is not None
    assert account.largest is None
    assert account.versus == ()


def _args(setup, budget):
    optimizer, store, rows = searched(setup, budget)
    return optimizer, store, setup, rows


def test_of_one_objective_with_a_bound_on_another_cost():
    account = take_account(*_args(setup_of(objectives=("top1",)), 16))
    assert account.uniform_at_knee is None
    assert len(account.uniform) > 4
    assert account.versus == ()  # nothing is saved


def test_of_computed_costs():
    account = take_account(*_args(setup_of(objectives=("top1", "macs")), 16))
    assert {each.cost for each in account.versus} == {"macs"}
    assert account.versus[0].times > 1
    assert {fit.objective for fit in account.fits} == {"top1"}


def test_bounds_count_for_every_hypervolume():
    tight = setup_of(constraints=["latency <= 4"])
    account = take_account(*_args(tight, 24))
    loose = take_account(*_args(setup_of(), 24))
    assert account.uniform_hypervolume < loose.uniform_hypervolume
    assert account.random < loose.random


def test_a_trial_that_was_given_up_half_way_counts_for_no_figure(found):
    """Raced out: finished, with an estimate in place of the score."""
    setup, _, store, rows, account = found
    members = {row["key"] for row in rows}
    dropped = next(t.key for t in store.trials(TrialState.DONE) if t.key not in members)
    changed = MemoryStore()
    for trial in store.trials():
        arch = SimpleNamespace(key=trial.key, mapping=trial.choices)
        changed.propose([arch], trial.round, trial.origin, {trial.key: trial.forecast})
        (changed.fail(trial.key, "f") if trial.reason else changed.finish(trial.key))
    for each in store.measurements():
        if (each.key, each.quantity) == (dropped, "top1"):
            details = {"dropped": True, "estimate": 99.0, "deviation": 1.0}
            each = replace(each, purpose="race", details=details)
        changed.add(each)
    again = take_account(replayed(setup, changed), changed, setup, rows)
    assert again.gain is not None
    assert (again.evaluated, again.failed) == (account.evaluated, account.failed)
    assert again.hypervolumes[-1] == pytest.approx(account.hypervolumes[-1])


def test_nothing_is_changed_by_looking(found):
    account = found[-1]
    assert replace(account) == account
    with pytest.raises(AttributeError):
        account.members = 3
