"""Runs in which candidates are dropped before all images have been seen."""

import numpy as np
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.accuracy.task import TOP1, Metric, Task
from hwsearch.errors import DeviceError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.objectives import Constraint, Objective
from hwsearch.optimizer import Optimizer
from hwsearch.run.config import TRIALS
from hwsearch.run.race import Race, dropped
from hwsearch.run.summarize import replayed
from hwsearch.trials import MemoryStore
from hwsearch.trials_sqlite import SqliteStore

pytestmark = pytest.mark.usefixtures("quick_infer")
RACED = {**parts.SETTINGS, "race": True, "budget": 24, "tactic": "random"}
TOTAL = parts.SIZES["search"]


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same search with and without a race."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.setup.load_device", lambda spec: parts.InProcess())
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        folder = tmp_path_factory.mktemp("races")
        return [
            hwsearch.search(**{**RACED, "race": race}, out=folder / str(race))
            for race in (True, False)
        ]


def by_identity(run):
    found = {}
    for m in run.measurements():
        samples = None if m.samples is None else m.samples.tobytes()
        found[m.identity] = (m.value, m.low, m.high, m.count, samples, dict(m.details))
    return found


class TestRun:
    def test_drops_some_candidates(self, runs):
        trials = runs[0].trials
        assert set(trials["state"]) == {"done"}
        assert 3 <= trials["dropped"].sum() <= 20
        assert not runs[1].trials["dropped"].any()

    def test_dropped_ones_have_no_score_and_are_on_no_front(self, runs):
        trials = runs[0].trials
        assert trials["top1"][trials["dropped"]].isna().all()
        assert trials["top1"][~trials["dropped"]].notna().all()
        gone = set(trials["key"][trials["dropped"]])
        assert not gone & set(runs[0].front["key"])
        known = {(m.key, m.purpose) for m in runs[0].measurements() if m.quantity == "top1"}
        assert {purpose for key, purpose in known if key in gone} == {"race"}

    def test_every_image_counts_once(self, runs):
        measured = [m for m in runs[0].measurements() if m.purpose in ("race", "search")]
        calibrated = []
        for key in runs[0].trials["key"]:
            scored = [m for m in measured if m.key == key and m.quantity == "top1"]
            if len(scored) > 1 or scored[0].purpose == "race":
                assert sum(m.details["images"] for m in scored) == scored[-1].count
                first, *others = [m.details["calibrated"] for m in scored]
                assert first <= parts.SIZES["calibration"]  # less where a prefix is shared
                assert not any(others)
                calibrated.append(first)
            assert all(m.cost_s > 0 for m in scored)
        assert sum(first == 0 for first in calibrated) <= 1  # what the outlook was timed by

    def test_the_front_is_that_of_a_search_without_a_race(self, runs):
        raced, full = runs
        assert raced.front["key"].tolist() == full.front["key"].tolist()
        assert raced.front["top1"].tolist() == full.front["top1"].tolist()

    def test_scores_do_not_depend_on_how_they_were_come_by(self, runs):
        raced, full = (
            {m.key: m for m in run.measurements() if m.identity[1::2] == ("top1", "search")}
            for run in runs
        )
        survivors = {m.key for m in runs[0].measurements() if m.purpose == "race"} & set(raced)
        assert survivors
        for key in survivors:
            assert raced[key].context == full[key].context
            assert raced[key].value == full[key].value
            np.testing.assert_array_equal(raced[key].samples, full[key].samples)

    def test_estimates_are_near_what_full_scores_are(self, runs):
        full = {m.key: m.value for m in runs[1].measurements() if m.purpose == "search"
                and m.quantity == "top1"}  # fmt: skip
        for key, estimate in dropped(runs[0].measurements()).items():
            assert abs(estimate.value - full[key]) < 5 * estimate.deviation

    def test_without_a_race_all_images_are_seen(self, runs):
        assert {m.purpose for m in runs[1].measurements()} == {"search", "confirm", "report"}
        scores = [m for m in runs[1].measurements() if m.quantity == "top1"]
        assert {m.count for m in scores if m.purpose == "search"} == {TOTAL}


class TestResume:
    @pytest.mark.parametrize("n", [5, 38, 52])
    def test_killed_in_a_race_it_ends_the_same(self, runs, n, device, tmp_path, monkeypatch):
        add, calls = hwsearch.run.folder.SqliteStore.add, []

        def dying(self, measurement):
            calls.append(measurement)
            if len(calls) == n:
                raise Killed
            add(self, measurement)

        with monkeypatch.context() as patch:
            patch.setattr(hwsearch.run.folder.SqliteStore, "add", dying)
            with pytest.raises(Killed):
                hwsearch.search(**RACED, out=tmp_path / "run")
        before = len(hwsearch.Run(tmp_path / "run").measurements())
        resumed = hwsearch.resume(tmp_path / "run")
        assert len(resumed.measurements()) > before
        assert resumed.trials.equals(runs[0].trials)
        forgiving = [{k: (*v[:5], {**v[5], "calibrated": 0}) for k, v in by_identity(run).items()}
                     for run in (resumed, runs[0])]  # fmt: skip
        assert forgiving[0] == forgiving[1]

    def test_a_finished_run_measures_nothing(self, runs, device):
        before = len(runs[0].measurements())
        hwsearch.resume(runs[0].folder)
        assert len(runs[0].measurements()) == before


class Bare:
    """Samples that nobody can put into another order."""

    def __init__(self, samples):
        self._samples = samples
        self.targets, self.digest = samples.targets, samples.digest
        self.batches = samples.batches

    def __len__(self):
        return len(self._samples)


def fixed_order(input_spec):
    task = parts.task(input_spec)
    return Task(
        spec=task.spec, metric=TOP1, calibration=task.calibration,
        search=Bare(task.search), report=task.report,
    )  # fmt: skip


def test_what_was_saved_is_said(device, tmp_path):
    watcher = parts.Watcher()
    run = hwsearch.search(**{**RACED, "budget": 12}, out=tmp_path / "run", progress=watcher)
    n_dropped = int(run.trials["dropped"].sum())
    images = sum(
        m.details.get("images", m.count)
        for m in run.measurements()
        if m.quantity == "top1" and m.purpose in ("race", "search")
    )
    assert n_dropped
    assert watcher.notes[-1] == (
        f"{n_dropped} of 12 candidates were dropped before all 160 images had been seen, "
        f"so that {images / 12 / 160:.0%} of the images were scored"
    )


def test_samples_in_a_fixed_order_are_scored_whole(device, tmp_path):
    watcher = parts.Watcher()
    settings = {**RACED, "data": "tests.run.test_race:fixed_order", "budget": 6}
    run = hwsearch.search(**settings, out=tmp_path / "run", progress=watcher)
    assert not run.trials["dropped"].any()
    assert any("give its samples a method take(rows)" in note for note in watcher.notes)


def mistaken(outputs, targets):
    return -2.0 * (outputs[0].argmax(axis=1) != targets)


MISTAKES = Metric(name="mistakes", per_sample=mistaken, direction="min", scale=-0.5)


def raced(archs, metric=TOP1, constraints=(), device=None):
    """Values of a front of three, and of others that are raced against it."""
    net = hwsearch.load_supernet(parts.NET)
    task = parts.task(net.input_spec(archs[0]), metric)
    store = MemoryStore()
    evaluator = Evaluator(net, device or parts.InProcess(), task, store)
    objectives = [
        Objective(metric.name, metric.direction),
        Objective("latency", "min"),
        Objective("macs", "min", exact=lambda archs: net.exact("macs", archs)),
    ]
    optimizer = Optimizer(net.space, objectives, constraints=constraints)
    race = Race(evaluator, optimizer.history, task.search)
    known = net.space.architectures([net.space.smallest()[0], net.space.largest()[0]])
    found = []
    for batch in (known, archs.unique(known)):
        store.propose(batch, 0, "test")
        values = evaluator.search_values(list(batch), [metric.name, "latency"], race)
        told = [values[arch.key] for arch in batch]
        optimizer.tell(batch, [None if isinstance(v, DeviceError) else v for v in told])
        found.append(values)
    return found[1], optimizer


def test_a_metric_to_minimise_is_raced_alike():
    archs = parts.network().space.sample(24, seed=0).unique()
    by_top1, _ = raced(archs)
    by_mistakes, optimizer = raced(archs, MISTAKES)
    for key, values in by_top1.items():
        mistakes = by_mistakes[key]["mistakes"]
        assert isinstance(values["top1"], float) == isinstance(mistakes, float)
        if isinstance(mistakes, float):
            assert mistakes == pytest.approx(1 - values["top1"] / 100)
        else:
            assert mistakes.value == pytest.approx(1 - values["top1"].value / 100)
            assert mistakes.deviation == pytest.approx(values["top1"].deviation / 100)
    assert not set(optimizer.front().ids) & {
        key for key, values in by_mistakes.items() if not isinstance(values["mistakes"], float)
    }


class Refusing(parts.InProcess):
    """Has one model fail, from its second slice of the images on."""

    def __init__(self, key):
        super().__init__()
        self.key, self.slices = key, 0

    def run(self, model, batches):
        if model.stem == self.key:
            self.slices += 1
            if self.slices > 1:
                raise DeviceError("crashed")
        return super().run(model, batches)


def test_one_that_fails_in_a_race_takes_no_other_along():
    archs = parts.network().space.sample(24, seed=0).unique()
    sound, _ = raced(archs)
    scores = {key: found["top1"] for key, found in sound.items()}
    best = max((key for key in scores if isinstance(scores[key], float)), key=scores.__getitem__)
    device = Refusing(best)
    found, optimizer = raced(archs, device=device)
    assert device.slices == 2
    assert str(found.pop(best)) == "crashed"
    assert {key: values["top1"] for key, values in found.items()} == {
        key: score for key, score in scores.items() if key != best
    }
    assert best not in optimizer.front().ids


def test_candidates_are_scored_together(monkeypatch):
    together = []
    outcomes = Evaluator.outcomes

    def watched(self, models, samples):
        together.append((len(samples), len(models)))
        return outcomes(self, models, samples)

    monkeypatch.setattr(Evaluator, "outcomes", watched)
    raced(parts.network().space.sample(24, seed=0).unique())
    _, alone, first, *later = together
    assert alone[0] == TOTAL
    assert first[0] < TOTAL
    assert first[1] > max(n for _, n in later)


def test_what_breaks_a_constraint_is_seen_once():
    archs = parts.network().space.sample(20, seed=0).unique()
    space = parts.network().space
    limit = int(np.median(hwsearch.load_supernet(parts.NET).exact("macs", archs)))
    values, optimizer = raced(archs, constraints=[Constraint("macs", "<=", limit)])
    macs = dict(
        zip(archs.ids, hwsearch.load_supernet(parts.NET).exact("macs", archs), strict=True)
    )
    over = [key for key in values if macs[key] > limit]
    assert over
    for key in over:
        assert not isinstance(values[key]["top1"], float)
    assert set(optimizer.front().ids) - {space.smallest()[0].key}


def test_the_account_of_a_run_learns_from_estimates(runs, device):
    setup = runs[0].setup()
    with SqliteStore(runs[0].folder / TRIALS) as store:
        history = replayed(setup, store).history
    gone = runs[0].trials["dropped"].to_numpy()
    assert history.succeeded.all()
    np.testing.assert_array_equal(history.measured, ~gone)
