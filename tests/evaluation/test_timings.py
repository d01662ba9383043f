"""Throughputs as the timing jobs of their batch sizes compare."""

from dataclasses import replace

import numpy as np
import pytest

from hwsearch.evaluation.measurements import BATCH_LATENCY, LATENCY, THROUGHPUT
from hwsearch.evaluation.throughput import throughput_measurement
from hwsearch.evaluation.timings import Timings, with_corrected_timings
from hwsearch.trial_store import Store
from tests.contracts.store_contract import arch
from tests.evaluation.test_timing_jobs import timed

TRUE = dict(zip("abcdefghi", (1.0 + n for n in range(9)), strict=True)) | {"x": 5.5, "y": 3.3}
SHIFTS = {1: (1.0, 1.1, 0.95), 4: (1.0, 0.9, 1.06)}  # of the jobs of a batch size
GAIN = 1.25  # in throughput by batches of 4
JOBS = ((*"abcdefghi",), ("x",), ("y",))


def at(size, latency):
    if size == 1:
        return latency
    return replace(latency, quantity=BATCH_LATENCY, context=latency.context.replace("device", "4"))


def job(number, size):
    """Latencies of a job, bridges included."""
    scale = SHIFTS[size][number] * size / (GAIN if size > 1 else 1.0)
    new = [timed(key, number, TRUE[key] * scale) for key in JOBS[number]]
    bridges = "ai" if number else ""
    new += [timed(key, number, TRUE[key] * scale, purpose="bridge") for key in bridges]
    return [at(size, latency) for latency in new]


def throughputs(latencies):
    of_keys = {}
    for each in latencies:
        if each.purpose == "search":
            size = 1 if each.quantity == LATENCY else 4
            of_keys.setdefault(each.key, {})[size] = each
    return [throughput_measurement(k, found, "sizes", "search") for k, found in of_keys.items()]


def measured(n_jobs=3):
    found = []
    for number in range(n_jobs):
        latencies = job(number, 1) + job(number, 4)
        found += [*latencies, *throughputs(latencies)]
    return found


def truth(key):
    return 1e3 * GAIN / TRUE[key]


def off(values):
    """Largest difference in the ratio of two throughputs to the true one."""
    logs = [np.log(value / truth(key)) for key, value in values.items()]
    return np.ptp(logs)


def test_each_batch_size_has_job_effects_of_its_own():
    raw = {m.key: m.value for m in measured() if m.quantity == THROUGHPUT}
    found = Timings(measured()).corrected(THROUGHPUT)
    assert off(raw) > 0.1
    assert off({key: each.value for key, each in found.items()}) < 0.005
    x = found["x"]
    assert x.low < x.value < x.high
    assert x.details["best_batch"] == 4
    assert x.details["at"]["4"]["latency_ms"] == pytest.approx(4e3 / x.value)
    assert x.details["at"]["4"]["measured_ms"] == pytest.approx(5.5 * 0.9 * 4 / GAIN)


def test_values_alone_are_the_same():
    timings = Timings(measured())
    for quantity in (LATENCY, THROUGHPUT):
        found = {key: each.value for key, each in timings.corrected(quantity).items()}
        assert timings.corrected_values(quantity) == found
        assert found.keys() == TRUE.keys()


def test_what_was_told_depends_on_no_later_job():
    before, after = Timings(measured(2)), Timings(measured(3))
    told = before.told(THROUGHPUT, ["a", "x"])
    assert told.keys() == {"a", "x"}
    assert after.told(THROUGHPUT, ["a", "x"]) == told
    assert told["x"] == pytest.approx(before.corrected_values(THROUGHPUT)["x"])
    assert after.corrected_values(THROUGHPUT)["x"] != told["x"]


def test_the_best_size_is_that_of_corrected_latencies():
    """Batches of 4 came out 10% faster than they are, so that they looked best."""
    found = measured(1)
    one, four = timed("x", 1, 5.5), at(4, timed("x", 1, 5.5 * 4 * 0.95))
    bridges = [timed(key, 1, TRUE[key], purpose="bridge") for key in "ai"]
    fast = [at(4, timed(key, 1, TRUE[key] * 4 / GAIN * 0.85, purpose="bridge")) for key in "ai"]
    new = [one, *bridges, four, *fast]
    raw = throughputs(new)
    assert raw[0].details["best_batch"] == 4
    assert Timings([*found, *new, *raw]).corrected(THROUGHPUT)["x"].details["best_batch"] == 1


def test_measurements_keep_their_order_and_what_else_they_say():
    given = [replace(m, details={**m.details, "reused": "there"}) for m in measured()]
    confirmed = [replace(given[0], purpose="confirm"), replace(given[-1], purpose="confirm")]
    found = with_corrected_timings([*given, *confirmed])
    assert [m.identity for m in found] == [m.identity for m in [*given, *confirmed]]
    assert {m.details["reused"] for m in found} == {"there"}
    assert found[-2:] == confirmed
    latest = Timings(given).corrected(THROUGHPUT)
    assert {m.key: m.value for m in found[:-2] if m.quantity == THROUGHPUT} == {
        key: each.value for key, each in latest.items()
    }


def test_throughputs_of_runs_before_there_were_jobs_of_batches_stay_as_they_were():
    old = [m for m in measured() if m.quantity != BATCH_LATENCY]
    raw = {m.key: m.value for m in old if m.quantity == THROUGHPUT}
    timings = Timings(old)
    assert {key: each.value for key, each in timings.corrected(THROUGHPUT).items()} == raw
    assert timings.told(THROUGHPUT, ["x"]) == timings.corrected_values(THROUGHPUT) == {}


def test_are_read_from_the_store_once_and_without_raw_times(monkeypatch):
    with Store() as store:
        store.propose([arch(name) for name in TRUE], 0, "sample")
        for number in range(3):
            latencies = job(number, 1) + job(number, 4)
            store.add_all(replace(each, samples=np.ones(5)) for each in latencies)
            store.add_all(throughputs(latencies))
            confirmed = timed("a", number, 9.0, context=f"front {number}")
            store.add(replace(confirmed, purpose="confirm"))
            if number == 1:
                timings = Timings().read(store)
                assert timings.jobs(LATENCY, "device").latencies == job(0, 1) + job(1, 1)
        assert timings.read(store).jobs(BATCH_LATENCY, "4").latencies == [
            each for number in range(3) for each in job(number, 4)
        ]
        monkeypatch.setattr(store, "measurements", None)
        whole = Timings(measured())
        for quantity in (LATENCY, THROUGHPUT):
            assert timings.read(store).corrected(quantity) == whole.corrected(quantity)


def test_jobs_of_another_process_are_numbered_on_by_their_batch_size():
    timings = Timings([*measured(2), *job(2, 1)])
    new = [timed("z", 0, 1.0), timed("a", 0, 1.0, purpose="bridge"), at(4, timed("z", 0, 4.0))]
    found = timings.renumbered([*new, *throughputs(new)])
    assert [m.details.get("job") for m in found] == [3, 3, 2, None]
    assert found[1].context == "device job=3"
