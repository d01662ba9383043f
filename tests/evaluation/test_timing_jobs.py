"""Bridges of timing jobs, and what they do to latencies."""

import contextlib
import math

import numpy as np
import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice

from hwsearch.errors import DeviceError, DeviceLostError, EvaluationError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.job_effects import solve_job_effects
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.evaluation.timing_jobs import TimingJobs, as_bridge, in_job
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement
from tests.run.search_parts import network, task


def timed(key, job, ratio, error=0.003, purpose="search", **changes):
    """A latency of a job; one millisecond is the anchor's baseline."""
    half = math.exp(1.96 * error)
    details = {"ratio": ratio, "ratio_low": ratio / half, "ratio_high": ratio * half, "job": job}
    known = {"quantity": LATENCY, "context": "device", "purpose": "search", "cost_s": 1.0}
    known |= {"value": ratio, "low": ratio / half, "high": ratio * half, "count": 9}
    found = Measurement(key=key, **{**known, "details": details, **changes})
    return as_bridge(found) if purpose == "bridge" else found


def choose_bridges(latencies, n_models, without=()):
    return TimingJobs(latencies).choose_bridges(n_models, without)


def corrected(latencies):
    return TimingJobs(latencies).corrected()


FIRST = [timed(key, 0, 1.0 + n) for n, key in enumerate("abcdefghi")]


class TestBridges:
    def test_first_job_has_none(self):
        assert choose_bridges([], 4) == []

    def test_are_a_small_and_a_large_model(self):
        small, large = choose_bridges(FIRST, 4)
        assert (small in "abc", large in "ghi") == (True, True)

    def test_of_few_models_are_one_of_them_in_turns(self):
        both = choose_bridges(FIRST, 4)
        assert choose_bridges(FIRST, 3) == both[1:]
        later = [*FIRST, timed("j", 1, 5.0)]
        assert choose_bridges(later, 1) == choose_bridges(later, 4)[:1]

    def test_are_those_that_are_known_best(self):
        sure = [timed("b", 0, 2.0, error=0.001), timed("h", 0, 8.0, error=0.001)]
        others = [each for each in FIRST if each.key not in "bh"]
        assert choose_bridges([*others, *sure], 4) == ["b", "h"]

    def test_that_are_gone_are_replaced(self):
        small, large = choose_bridges(FIRST, 4, without={"a", "i"})
        assert (small in "bc", large in "gh") == (True, True)

    def test_of_one_known_model_are_that_model(self):
        assert choose_bridges(FIRST[:1], 8) == ["a"]


class TestCorrected:
    jobs = (
        *FIRST,
        timed("x", 1, 5.5),
        timed("a", 1, 1.1, purpose="bridge"),
        timed("i", 1, 9.9, purpose="bridge"),
    )

    def test_a_single_job_is_as_it_was_measured(self):
        assert corrected(FIRST) == {each.key: each for each in FIRST}

    def test_jobs_without_bridges_are_as_they_were_measured(self):
        found = corrected([*FIRST, timed("x", 1, 5.5)])
        assert found["x"].value == 5.5

    def test_jobs_compare(self):
        """The second job was 10% slower."""
        found = corrected(self.jobs)
        assert found["x"].value / found["e"].value == pytest.approx(1.0, abs=0.002)
        assert found["x"].details["measured_ms"] == 5.5
        assert found["x"].details["ratio"] == found["x"].value
        assert found["a"].value == pytest.approx(1.0 * math.sqrt(1.1), rel=2e-3)

    def test_intervals_include_the_correction(self):
        x = corrected(self.jobs)["x"]
        width = math.log(x.details["ratio_high"] / x.details["ratio_low"]) / (2 * 1.96)
        assert 0.003 < width < 0.02
        wide = corrected(
            [*self.jobs[:-3], timed("x", 1, 5.5, low=5.0, high=6.05), *self.jobs[-2:]]
        )
        assert wide["x"].low == pytest.approx(wide["x"].value / 1.1, rel=0.01)
        assert wide["x"].details == x.details, "the baseline is not of the ratio"

    def test_what_was_told_depends_on_no_later_job(self):
        keys = ["a", "x"]
        later = (*self.jobs, timed("y", 2, 3.0), timed("x", 2, 4.0, purpose="bridge"))
        told = TimingJobs(self.jobs).told_ms(keys)
        assert TimingJobs(later).told_ms(keys) == told
        assert told["a"] == 1.0
        assert corrected(later)["x"].value != corrected(self.jobs)["x"].value

    def test_latencies_before_there_were_jobs_count_as_one(self):
        old = [
            Measurement(
                **{
                    **{n: getattr(m, n) for n in m.__dataclass_fields__},
                    "details": {k: v for k, v in m.details.items() if k != "job"},
                }
            )
            for m in FIRST
        ]
        assert TimingJobs(old).next_job == 0
        jobs = [*old, *(in_job(each, 0) for each in self.jobs[-3:])]
        assert corrected(jobs)["x"].value == pytest.approx(corrected(self.jobs)["x"].value)

    def test_equal_jobs_change_nothing(self):
        same = [timed("a", 1, 1.0, purpose="bridge"), timed("x", 1, 7.0)]
        found = corrected([*FIRST, *same])
        assert [found[k].value for k in "abx"] == [1.0, 2.0, 7.0]

    def test_values_alone_are_the_same(self):
        jobs = TimingJobs(self.jobs)
        assert jobs.corrected_ms() == {k: each.value for k, each in jobs.corrected().items()}
        assert TimingJobs(FIRST).corrected_ms() == {each.key: each.value for each in FIRST}

    def test_a_wrong_bridge_does_not_shift_its_job(self):
        """The second job was as fast as the first, but its large bridge came out 20% too slow."""
        sound, wrong = self.jobs[-2:]
        alike = [timed("a", 1, 1.0, purpose="bridge"), timed("i", 1, 9.0 * 1.2, purpose="bridge")]
        found = corrected([*self.jobs[:-2], *alike])
        assert found["x"].value == pytest.approx(5.5, rel=0.02)
        assert found["x"].low < 5.5 < found["x"].high
        agreed = corrected([*self.jobs[:-2], sound, wrong])
        assert found["x"].high / found["x"].low > agreed["x"].high / agreed["x"].low


class TestAdded:
    """Jobs that come one by one, as in a search."""

    jobs = (
        *TestCorrected.jobs,
        timed("y", 2, 3.3),
        timed("a", 2, 0.9, purpose="bridge"),
        timed("x", 2, 5.0, purpose="bridge"),
    )

    def test_are_solved_again(self):
        jobs = TimingJobs(self.jobs[:-3])
        jobs.corrected_ms(), jobs.told_ms(["x"]), jobs.choose_bridges(4)
        jobs.add(self.jobs[-3:])
        whole = TimingJobs(self.jobs)
        assert jobs.corrected() == whole.corrected()
        assert jobs.told_ms("axy") == whole.told_ms("axy")
        assert jobs.choose_bridges(4) == whole.choose_bridges(4)
        assert jobs.next_job == whole.next_job == 3

    def test_solutions_are_kept_in_between(self, monkeypatch):
        solved = []

        def noted(*entries):
            solved.append(len(entries[0]))
            return solve_job_effects(*entries)

        monkeypatch.setattr("hwsearch.evaluation.timing_jobs.solve_job_effects", noted)
        jobs = TimingJobs(self.jobs)
        for _ in range(2):
            jobs.told_ms(["y"]), jobs.corrected_ms(), jobs.choose_bridges(4)
        assert solved == [len(self.jobs)]
        jobs.told_ms(["x"]), jobs.told_ms(["x"])
        assert solved == [len(self.jobs), len(self.jobs) - 3]

    def test_one_of_an_earlier_job_changes_what_is_told(self):
        jobs = TimingJobs(self.jobs[:-3])
        before = jobs.told_ms(["x"])
        jobs.add([timed("e", 1, 5.5, purpose="bridge")])
        assert jobs.told_ms(["x"]) != before


class Jobs(FakeDevice):
    """Remembers what it timed; the models in ``failing`` fail."""

    def __init__(self, job_spread=0.0):
        self.jobs, self.failing = [], set()
        super().__init__(self._latency_of, job_spread=job_spread)

    def _latency_of(self, name, path):
        if name in self.failing or not path.is_file():
            raise DeviceError("scripted to fail")
        return 1.0 + int(name[:4], 16) / 2**16

    def measure(self, models, **settings):
        self.jobs.append(list(models))
        return super().measure(models, **settings)


class TestEvaluator:
    @pytest.fixture
    def archs(self):
        self.net = Supernet("n", network(), "random:0")
        return list(self.net.space.sample_distinct(16, np.random.default_rng(0)))

    @pytest.fixture
    def device(self):
        return Jobs()

    @pytest.fixture
    def evaluator(self, archs, device):
        with self.evaluator_of(archs, device) as evaluator:
            evaluator.search_values(archs[:4], [LATENCY], only_timed=True)
            yield evaluator

    @contextlib.contextmanager
    def evaluator_of(self, archs, device):
        with Store() as store:
            store.propose(archs, 0, "sample")
            spec = self.net.input_spec(archs[0])
            evaluator = Evaluator(self.net, device, task(spec), store)
            evaluator.pace.highest = math.inf  # so that none is suspected and timed again
            yield evaluator
            evaluator.close()

    def measure(self, evaluator, archs):
        return evaluator.search_values(archs, [LATENCY], only_timed=True)

    def test_a_bridge_whose_file_is_gone_is_built_again(self, evaluator, archs, device):
        for built in evaluator.models.get(archs[:4], only_timed=True).values():
            built.path.unlink()
        self.measure(evaluator, archs[4:8])
        bridges = device.jobs[1][4:]
        assert len(bridges) == 2
        assert set(bridges) <= {arch.key for arch in archs[:4]}
        stored = evaluator.store.measurements(purpose="bridge")
        assert [m.key for m in stored] == bridges

    def test_one_that_fails_is_left_out_and_another_one_chosen(self, evaluator, archs, device):
        lost, _ = evaluator.timings.jobs(LATENCY, evaluator.latency_context).choose_bridges(4)
        device.failing = {lost}
        values = self.measure(evaluator, archs[4:8])
        assert all(isinstance(each, dict) for each in values.values())
        assert lost in device.jobs[1]
        (stored,) = evaluator.store.measurements(purpose="bridge")
        assert stored.key != lost
        self.measure(evaluator, archs[8:12])
        assert lost not in device.jobs[2]
        assert len(device.jobs[2]) == 6

    def test_one_that_cannot_be_built_is_replaced(self, evaluator, archs, device, monkeypatch):
        lost = evaluator.timings.jobs(LATENCY, evaluator.latency_context).choose_bridges(4)[1]
        get = evaluator.models.get

        def failing(asked, **settings):
            found = get(asked, **settings)
            return found | {a: EvaluationError("no") for a in asked if a.key == lost}

        monkeypatch.setattr(evaluator.models, "get", failing)
        self.measure(evaluator, archs[4:8])
        assert lost not in device.jobs[1]
        assert len(device.jobs[1]) == 6

    def test_when_all_that_is_new_fails_nothing_is_stored(self, evaluator, archs, device):
        device.failing = {archs[4].key}
        before = evaluator.store.measurements()
        found = self.measure(evaluator, archs[4:5])
        assert isinstance(found[archs[4].key], DeviceError)
        assert evaluator.store.measurements() == before
        device.failing |= {arch.key for arch in archs}
        with pytest.raises(DeviceLostError):
            self.measure(evaluator, archs[5:6])

    def test_values_are_those_by_which_jobs_compare(self, archs):
        true = {arch.key: 1.0 + int(arch.key[:4], 16) / 2**16 for arch in archs}
        with self.evaluator_of(archs, Jobs(job_spread=0.1)) as evaluator:
            for start in range(0, 16, 4):
                told = self.measure(evaluator, archs[start : start + 4])
            latest = {k: each.value / true[k] for k, each in evaluator.latest(LATENCY).items()}
            found = evaluator.store.measurements(purpose="search")
        stored = [m.value / true[m.key] for m in found]
        assert np.ptp(list(latest.values())) < 0.01 < np.ptp(stored)
        assert told.keys() == {arch.key for arch in archs[12:]}
        for key, values in told.items():
            assert values[LATENCY] == pytest.approx(latest[key] * true[key])
