"""Searches on a device whose timing jobs are shifted by a common factor each.

Those of one search are for latency, those of another one for throughput.
"""

import zlib

import numpy as np
import pandas as pd
import pytest
from hwsearch_test_plugin.scripted_device import BATCH_EXPONENT
from scipy.stats import kendalltau

import hwsearch
import tests.run.search_parts as parts
from hwsearch.evaluation.timing_jobs import TimingJobs
from tests.run.search_parts import use

pytestmark = pytest.mark.usefixtures("quick_infer")
SPREAD = 0.1
SETTINGS = {**parts.SETTINGS, "objectives": ["macs", "latency"], "budget": 16}
BATCHES = {"objectives": ["macs", "throughput"], "batch_sizes": [2, 8]}


def latency_by_key(name, path):
    """Between 1 and 3 ms, neighbours some percent apart."""
    return 1.015 ** (zlib.crc32(name.encode()) % 73)


def search(out, patch, on=None, **settings):
    use(patch, on or parts.InProcess(latency_by_key, job_spread=SPREAD))
    return hwsearch.search(**{**SETTINGS, **settings}, out=out)


def tau(run):
    trials = run.trials
    true = [latency_by_key(key, None) for key in trials["key"]]
    return kendalltau(trials["latency"], true).statistic


def raw(run):
    found = [m for m in run.measurements() if m.quantity == "latency"]
    return {m.key: m.value for m in found if m.purpose == "search"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    device = parts.InProcess(latency_by_key, job_spread=SPREAD)
    return parts.finished_search(tmp_path_factory.mktemp("jobs") / "run", device, **SETTINGS)


def test_ranks_right_with_bridges_and_wrongly_without(unbroken, monkeypatch, tmp_path):
    monkeypatch.setattr(TimingJobs, "choose_bridges", lambda *_: [])
    without = search(tmp_path / "run", monkeypatch)
    assert not [m for m in without.measurements() if m.purpose == "bridge"]
    assert without.trials.set_index("key")["latency"].to_dict() == raw(without)
    assert tau(without) < 0.93
    assert tau(unbroken) > 0.98


def test_raw_jobs_are_stored_and_values_are_corrected(unbroken):
    latencies = [m for m in unbroken.measurements() if m.quantity == "latency"]
    jobs = {}
    for m in latencies:
        if m.purpose in ("search", "bridge"):
            jobs.setdefault(m.details["job"], []).append(m)
    assert list(jobs) == list(range(len(jobs)))
    seen = set()
    for number, job in jobs.items():
        bridges = [m.key for m in job if m.purpose == "bridge"]
        assert len(bridges) == (0 if number == 0 else 2 if len(job) > 5 else 1)
        assert set(bridges) <= seen
        seen |= {m.key for m in job}
        factors = [m.value / latency_by_key(m.key, None) for m in job]
        assert max(factors) == pytest.approx(min(factors)), "what the job measured"
    assert raw(unbroken) != unbroken.trials.set_index("key")["latency"].to_dict()


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    device = parts.InProcess(latency_by_key, job_spread=SPREAD)
    out = tmp_path_factory.mktemp("batches") / "run"
    return parts.finished_search(out, device, **{**SETTINGS, **BATCHES})


def test_throughputs_are_corrected_by_jobs_of_their_batch_sizes(batches):
    trials = batches.trials.set_index("key")
    best = {
        key: 1e3 * 8 ** (1 - BATCH_EXPONENT) / latency_by_key(key, None) for key in trials.index
    }
    raw = {m.key: m.value for m in batches.measurements() if m.quantity == "throughput"}
    logs = {key: np.log(raw[key] / best[key]) for key in raw}
    corrected = np.log(trials["throughput"] / pd.Series(best))
    assert np.ptp(list(logs.values())) > 0.1
    assert np.ptp(corrected) < 0.01
    jobs = {}
    for m in batches.measurements():
        if m.quantity == "batch_latency" and m.purpose in ("search", "bridge"):
            factor = m.value / latency_by_key(m.key, None)
            jobs.setdefault((m.details["device"], m.details["job"]), set()).add(round(factor, 6))
    assert len(jobs) > 4
    assert all(len(factors) == 1 for factors in jobs.values()), "what the job measured"
    assert len(set.union(*jobs.values())) == len(jobs)


@pytest.mark.parametrize("call", [2, 4])
def test_throughputs_of_a_search_that_is_gone_on_with_are_as_if_unbroken(
    call, batches, monkeypatch, tmp_path
):
    """The second call of the device is between two batch sizes of one round."""
    with monkeypatch.context() as patch:
        parts.interrupt_measuring(patch, call)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "run", patch, **BATCHES)
    use(monkeypatch, parts.InProcess(latency_by_key, job_spread=SPREAD))
    resumed = hwsearch.resume(tmp_path / "run")
    pd.testing.assert_frame_equal(resumed.trials, batches.trials)
    pd.testing.assert_frame_equal(resumed.front, batches.front)
    assert (resumed.folder / "search.json").read_bytes() == (
        batches.folder / "search.json"
    ).read_bytes()


@pytest.mark.parametrize("call", [2, 4])
def test_gone_on_with_it_is_as_if_unbroken(call, unbroken, monkeypatch, tmp_path):
    """What is proposed depends on corrected values, which come from the stored jobs alone."""
    with monkeypatch.context() as patch:
        parts.interrupt_measuring(patch, call)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "run", patch)
    use(monkeypatch, parts.InProcess(latency_by_key, job_spread=SPREAD))
    resumed = hwsearch.resume(tmp_path / "run")
    pd.testing.assert_frame_equal(resumed.trials, unbroken.trials)
    pd.testing.assert_frame_equal(resumed.front, unbroken.front)
    for name in ("front.csv", "search.json"):
        assert (resumed.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()
    assert raw(resumed) == raw(unbroken)


def test_a_search_from_its_run_has_the_same_values_and_goes_on_with_its_jobs(
    monkeypatch, tmp_path
):
    given = {"objectives": ["top1", "latency"], "budget": 8}
    first = search(tmp_path / "first", monkeypatch, **given)
    given |= {"warm_start": first.folder, "budget": 12}
    longer = search(tmp_path / "longer", monkeypatch, **given)
    reused = [m for m in longer.measurements() if "reused" in m.details and m.purpose == "search"]
    assert {m.key: m.value for m in reused if m.quantity == "latency"} == raw(first)
    jobs = [m.details["job"] for m in longer.measurements() if m.purpose == "bridge"]
    assert jobs == sorted(jobs)
    assert jobs[-1] > max(m.details.get("job", 0) for m in first.measurements())
    assert tau(longer) > 0.98
