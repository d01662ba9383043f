"""Searches for throughput, on a device without a clock."""

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from hwsearch_test_plugin.scripted_device import BATCH_EXPONENT, latency_by_size

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.errors import DeviceError, InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.kit.device import KitDevice
from hwsearch.run.front_probability import timed_draws
from hwsearch.run.setup import make_objective
from hwsearch.trial_store import Store

pytestmark = pytest.mark.usefixtures("quick_infer")
BOTH = ["top1", "latency", "throughput"]
GAIN = 16 ** (1 - BATCH_EXPONENT)  # of batch 16 over batch 1


def search(out, **settings):
    return hwsearch.search(**{**parts.SHORT, "objectives": BOTH, **settings}, out=out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    device = parts.InProcess()
    out = tmp_path_factory.mktemp("runs") / "run"
    run = parts.finished_search(out, device, **{**parts.SHORT, "objectives": BOTH})
    return run, device


def test_the_front_states_the_best_size(finished):
    run, _ = finished
    front = run.front
    assert front["throughput"].tolist() == pytest.approx((1e3 * GAIN / front["latency"]).tolist())
    assert front["best_batch"].tolist() == [16] * len(front)
    assert (front["throughput_low"] < front["throughput"]).all()
    assert front["probability"].between(0.0, 1.0).all()
    assert run.recorded["objectives"][2] == {
        "name": "throughput",
        "direction": "max",
        "unit": "samples/s",
        "source": "measured",
    }


def test_each_batch_size_is_one_job_and_the_devices_own_is_that_of_the_latency(finished):
    run, device = finished
    jobs = len([1 for batch in device.batches if batch == 1])
    assert jobs > 1
    assert device.batches.count(4) == device.batches.count(16) == jobs
    assert device.batches[-3:] == [1, 4, 16]  # confirmed at the end
    confirmed = [m for m in run.measurements() if m.purpose == "confirm"]
    names = [m.quantity for m in confirmed]
    contenders = names.count("throughput")
    assert contenders >= len(run.front)
    assert names.count("latency") == contenders
    assert names.count("batch_latency") == 2 * contenders
    assert names.count("latency_ratio") == 3 * contenders


def test_cards_have_the_throughput_at_every_size(finished):
    run, _ = finished
    for row in run.front.to_dict("records"):
        card = json.loads((run.folder / row["subnet"] / "card.json").read_text())
        (measured,) = card["measurements"].values()
        (stated,) = [m for m in measured if m["quantity"] == "throughput"]
        assert (stated["purpose"], stated["value"]) == ("confirm", row["throughput"])
        assert stated["details"]["best_batch"] == 16
        at = {int(n): each["throughput"] for n, each in stated["details"]["at"].items()}
        assert at[16] == row["throughput"]
        assert at[1] == pytest.approx(1e3 / row["latency"])
        assert "batches=1,4,16" in stated["context"]


def test_raw_latencies_of_every_size_are_stored_in_jobs(finished):
    run, _ = finished
    jobs = {}
    for m in run.measurements():
        if m.purpose in ("search", "bridge") and m.quantity in ("latency", "batch_latency"):
            size = m.details["device"].partition("batch=")[2] or "1"
            jobs.setdefault((size, m.details["job"]), []).append(m)
    assert {size for size, _ in jobs} == {"1", "4", "16"}
    for (_, number), job in jobs.items():
        bridges = [m for m in job if m.purpose == "bridge"]
        assert len(bridges) == (2 if number else 0)


def test_trials_have_it_and_no_latency_of_a_batch(finished):
    run, _ = finished
    assert {"top1", "latency", "throughput"} <= set(run.trials.columns)
    assert "batch_latency" not in run.trials.columns


def test_draws_of_throughputs_are_those_of_the_latencies(finished):
    run, _ = finished
    measured = run.measurements()
    timed = [m for m in measured if (m.quantity, m.purpose) == ("throughput", "confirm")]
    latencies = [m for m in measured if (m.quantity, m.purpose) == ("latency", "confirm")]
    ours, theirs = (timed_draws(each, measured, 0) for each in (timed, latencies))
    assert ours.shape == (2000, len(timed))
    np.testing.assert_allclose(ours, 1e3 * GAIN / theirs)


def test_without_latency_every_size_is_timed(device, tmp_path):
    run = search(tmp_path / "run", objectives=["top1", "throughput"], batch_sizes=[2, 8], budget=6)
    assert set(device.batches) == {2, 8}
    assert "latency" not in run.front
    assert set(run.front["best_batch"]) == {8}
    assert (np.diff(run.front["throughput"]) <= 0).all()  # sorted by top1


def test_the_best_size_may_differ_between_subnets(device, tmp_path):
    """A device on which large subnets leave the cache with large batches."""

    def with_batch(batch):
        made = parts.InProcess(batch=batch)
        made.scripts = dict.fromkeys(("search", "confirm"), lambda *each: of(batch, *each))
        return made

    def of(batch, name, path):
        slow = 4.0 if batch == 16 and latency_by_size(name, path) > 0.5 else 1.0
        return slow * latency_by_size(name, path)

    device.with_batch = with_batch
    run = search(tmp_path / "run", objectives=["throughput", "params"], budget=12, tactic="random")
    trials = {m.details["best_batch"] for m in run.measurements() if m.quantity == "throughput"}
    assert trials == {4, 16}


def test_a_constraint_on_it_holds_when_confirmed(finished, device, tmp_path):
    run, _ = finished
    bound = float(run.front["throughput"].median())
    kept = search(tmp_path / "run", constraints=[f"throughput >= {bound}"]).front
    assert (kept["throughput"] >= bound).all()
    assert run.select(f"throughput >= {bound * 0.9} @ 95%")


def test_what_fails_at_one_size_fails_with_its_name(device, tmp_path):
    seen = []

    def latency_of(name, path):
        seen.append(name)
        if seen.count(name) == 3 and int(name, 16) % 2:  # at the third size
            raise DeviceError("out of memory")
        return latency_by_size(name, path)

    device.scripts["search"] = latency_of
    trials = search(tmp_path / "run", budget=8).trials
    failed = trials[trials["state"] == "failed"]
    assert failed["key"].tolist() == [key for key in trials["key"] if int(key, 16) % 2]
    assert set(failed["reason"]) == {"at batch 16: out of memory"}


def test_what_fails_at_one_size_when_confirmed_leaves_the_front(finished, device, tmp_path):
    lost, seen = finished[0].front["key"].iloc[-1], []

    def latency_of(name, path):
        seen.append(name)
        if name == lost and seen.count(name) == 2:
            raise DeviceError("crashed")
        return latency_by_size(name, path)

    device.scripts["confirm"] = latency_of
    watcher = parts.Watcher()
    front = search(tmp_path / "run", progress=watcher).front
    assert lost not in set(front["key"])
    assert f"{lost} leaves the front: at batch 4: crashed" in watcher.notes


def test_a_latency_that_is_too_low_at_one_size_is_measured_again(device, tmp_path):
    """The sixth subnet, at the second size."""
    net, seen = hwsearch.load_supernet(parts.NET), []
    archs = net.space.enumerate(100)
    macs = dict(zip(archs.ids, net.exact("macs", archs), strict=True))

    def latency_of(name, path):
        seen.append(name)
        lucky = len(dict.fromkeys(seen)) == 6 and seen.count(name) == 2
        return macs[name] / 1e5 * (0.1 if lucky else 1.0)

    device.scripts["search"] = latency_of
    run = search(tmp_path / "run", budget=8, batch=1, objectives=["top1", "throughput"])
    suspected = [m for m in run.measurements() if "suspected_ms" in m.details]
    assert [m.quantity for m in suspected] == ["batch_latency"]
    assert suspected[0].key == list(dict.fromkeys(seen))[5]
    assert "batch=4" in suspected[0].context
    for key, throughput in run.trials.set_index("key")["throughput"].items():
        assert throughput == pytest.approx(1e8 * GAIN / macs[key])


def test_a_run_goes_on_to_what_an_unbroken_one_finds(finished, device, tmp_path):
    begun = search(tmp_path / "run", budget=4)
    before = begun.trials.set_index("key")["throughput"]
    device.batches.clear()
    resumed = hwsearch.resume(begun.folder, budget=8)
    assert resumed.front.equals(finished[0].front)
    assert resumed.trials.set_index("key")["throughput"][before.index].equals(before)
    assert device.batches.count(16) == 2  # the second round, and the confirmation


def test_a_run_of_before_batches_had_jobs_goes_on(finished, device, tmp_path):
    """It has throughputs, and no latencies that they could be corrected by."""
    run, _ = finished
    shutil.copytree(run.folder, tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run" / "trials.sqlite")) as store, store:
        store.execute(
            "DELETE FROM measurements WHERE quantity = 'batch_latency' AND purpose != 'confirm'"
        )
    old = Run(tmp_path / "run").trials.set_index("key")["throughput"]
    assert old.equals(run.trials.set_index("key")["throughput"])
    resumed = hwsearch.resume(tmp_path / "run", budget=12)
    assert len(resumed.trials) == 12
    assert resumed.trials.set_index("key")["throughput"][old.index].equals(old)


def test_a_warm_start_reuses_throughputs_of_the_same_sizes(finished, device, tmp_path):
    run, _ = finished
    same = search(tmp_path / "same", warm_start=str(run.folder))
    searched = [key for phase, key in device.timed if phase == "search"]
    assert searched == []
    bridges = [m for m in same.measurements() if m.purpose == "bridge"]
    assert {m.quantity for m in bridges} == {"latency", "batch_latency"}
    pd.testing.assert_frame_equal(
        same.trials[["key", "throughput"]], run.trials[["key", "throughput"]]
    )
    assert same.front["throughput"].tolist() == run.front["throughput"].tolist()
    search(tmp_path / "other", warm_start=str(run.folder), batch_sizes=[1, 32])
    assert 32 in device.batches


def test_the_summary_and_the_page_compare_by_it(device, tmp_path, monkeypatch):
    from hwsearch.report.page_data import page_data
    from hwsearch.report.run_data import read_run_data
    from hwsearch.terminal import summary_lines

    run = search(tmp_path / "run", objectives=["top1", "throughput"], budget=12)
    largest = run.summary.largest
    for versus in run.summary.versus:
        own = run.front.set_index("key")["throughput"][versus.key]
        assert (versus.cost, versus.times > 1) == ("throughput", own > largest["throughput"])
        assert f"{1 / versus.times:.3g} times the throughput" in "".join(
            summary_lines(run.summary)
        )
    page = page_data(read_run_data(run))
    assert page["across"] == "throughput"
    assert page["objectives"][1]["comparative"] == "more throughput"
    assert "the highest throughput" in {pick["wish"] for pick in page["picks"]}
    numbers = {number[0] for member in page["members"].values() for number in member["numbers"]}
    assert {"throughput", "best_batch"} <= numbers


@pytest.mark.parametrize("sizes", [[], [0], ["x"], "1,4", [4, 4]])
def test_sizes_that_are_none_are_refused(device, tmp_path, sizes):
    with pytest.raises(InputError, match=r"batch_sizes is .*; give a list of different whole"):
        search(tmp_path / "run", batch_sizes=sizes)
    assert not (tmp_path / "run").exists()


def test_a_table_of_another_machine_predicts_none():
    kit = KitDevice.__new__(KitDevice)
    kit.spec = "kit:table.json"
    net = hwsearch.load_supernet(parts.NET)
    task = parts.task(net.input_spec(net.space.smallest()[0]))
    with pytest.raises(InputError, match=r"'kit:table.json' predicts latency .* no throughput; "):
        make_objective("throughput", net, task, kit)


def test_settings_of_a_run_have_the_sizes(finished):
    assert Run(finished[0].folder).config.batch_sizes == (1, 4, 16)
    assert "batch_sizes = [" in (finished[0].folder / "config.toml").read_text()


def test_a_lost_device_is_noticed_where_only_throughput_is_measured(device):
    net = hwsearch.load_supernet(parts.NET)
    task = parts.task(net.input_spec(net.space.smallest()[0]))
    archs = net.space.sample(2, seed=0)
    with Store() as store:
        evaluator = Evaluator(net, device, task, store)
        store.propose(archs, round=0, origin="test")
        evaluator.search_values([archs[0]], ["throughput"])

        def lost(name, path):
            raise DeviceError("no device")

        device.scripts["search"] = lost
        with pytest.raises(hwsearch.errors.DeviceLostError, match="which it ran before"):
            evaluator.search_values([archs[1]], ["throughput"])
        evaluator.close()
