"""Searches that start from what an earlier run measured."""

import json
import shutil
import tomllib

import pandas as pd
import pytest
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.cli import app
from hwsearch.errors import DeviceError, InfeasibleError, InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.run.value_sources.warm_starts import read_earlier_run
from tests.permissions import only_readable
from tests.run.warm_start_parts import FIRST, search, uneven, use

RENAMED = "tests.run.warm_start_parts:renamed"
pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture
def device(monkeypatch):
    """The second device."""
    return use(monkeypatch, parts.InProcess(uneven))


def watched(patch):
    """What is scored from now on, by purpose."""
    found, score = [], Evaluator.outcomes

    def watching(self, models, samples):
        purpose = "search" if samples is self.task.search else "report"
        found.extend((arch.key, purpose) for arch in models)
        return score(self, models, samples)

    patch.setattr(Evaluator, "outcomes", watching)
    return found


@pytest.fixture
def scored(monkeypatch):
    return watched(monkeypatch)


def timed(device, phase="search"):
    return [key for at, key in device.timed if at == phase]


@pytest.fixture(scope="module")
def whole(first, tmp_path_factory):
    """A search from the first run, its notes, its device, and what it scored."""
    with pytest.MonkeyPatch.context() as patch:
        device, scored = use(patch, parts.InProcess(uneven)), watched(patch)
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        folder = tmp_path_factory.mktemp("second") / "run"
        return *search(folder, warm_start=first.folder), device, scored


class TestSecondDevice:
    @pytest.fixture
    def run(self, whole):
        return whole[:2]

    def test_costs_latencies_only(self, whole):
        _, _, device, scored = whole
        assert not [key for key, purpose in scored if purpose == "search"]
        assert 4 <= len(timed(device)) < FIRST
        assert len(set(timed(device))) == len(timed(device))

    def test_has_the_front_of_a_search_that_measures_everything(self, run, first):
        trials = first.trials
        size = {
            m.key: m.details["ratio"] - 0.1
            for m in first.measurements()
            if (m.quantity, m.purpose) == ("latency", "search")
        }
        there = [(0.05 + size[key] / 2) * (1 + int(key[:4], 16) % 7 / 70) for key in trials["key"]]
        known = trials.assign(there=there)
        best = {
            row.key
            for row in known.itertuples()
            if not ((known["top1"] >= row.top1) & (known["there"] < row.there)).any()
        }
        assert set(run[0].front["key"]) <= best
        assert len(best - set(run[0].front["key"])) <= 1

    def test_front_is_measured_throughout(self, run, device):
        front = run[0].front
        assert "latency_source" not in front
        assert front["top1_report"].notna().all()
        assert run[0].verify() == dict.fromkeys(front["key"])

    def test_says_what_is_reused_and_what_was_measured(self, whole, first):
        run, device = whole[:2], whole[2]
        notes = run[1]
        assert f"accuracies of {FIRST} architectures reused from {first.folder}" in notes
        n = len(timed(device))
        assert any(note.startswith(f"{n} of {FIRST} reused architectures") for note in notes)
        assert f"0 of {FIRST} architectures to evaluate out of 72" in notes

    def test_keeps_all_that_is_known_with_where_it_is_from(self, run, first):
        reused = [m for m in run[0].measurements() if "reused" in m.details]
        known = {m.key: m.value for m in reused if m.purpose == "search"}
        assert known == dict(zip(first.trials["key"], first.trials["top1"], strict=True))
        latencies = dict(zip(first.trials["key"], first.trials["latency"], strict=True))
        for m in reused:
            origin = m.details["reused"]
            assert origin["run"] == str(first.folder)
            assert origin["latency_ms"] == latencies[m.key]
        card = json.loads((run[0].folder / run[0].front["subnet"][0] / "card.json").read_text())
        (numbers,) = card["measurements"].values()
        assert numbers[0]["details"]["reused"]["run"] == str(first.folder)

    def test_what_was_not_measured_is_no_trial_of_the_front(self, run):
        trials = run[0].trials
        assert set(trials["origin"]) == {"reused"}
        assert set(trials["state"]) == {"done", "proposed"}
        assert trials["latency"].notna().tolist() == (trials["state"] == "done").tolist()
        assert set(run[0].front["key"]) <= set(trials["key"][trials["state"] == "done"])

    def test_search_latencies_are_of_the_same_graph(self, run):
        found = [
            m for m in run[0].measurements() if (m.quantity, m.purpose) == ("latency", "search")
        ]
        assert {m.details["weights"] for m in found} == {"a repeated tile in the same graph"}

    def test_a_third_run_starts_from_the_second(self, run, scored, monkeypatch, tmp_path):
        third = use(monkeypatch, parts.InProcess(lambda name, path: 2 * uneven(name, path)))
        again, _ = search(tmp_path / "third", warm_start=run[0].folder)
        assert not [key for key, purpose in scored if purpose == "search"]
        assert timed(third)
        assert len(again.trials) == FIRST


def test_the_command_takes_a_run(first, device, tmp_path):
    out = ["--out", str(tmp_path / "run"), "--warm-start", str(first.folder)]
    settings = ["--supernet", parts.NET, "--device", "scripted", "--data", parts.TASK]
    result = CliRunner().invoke(app, ["search", *settings, *out])
    assert result.exit_code == 0, result.output
    assert f"accuracies of {FIRST} architectures reused from {first.folder}" in result.stderr
    refused = CliRunner().invoke(app, ["search", *settings, "--checkpoint", "1", *out])
    assert refused.exit_code == 2


def test_the_same_device_measures_nothing(first, monkeypatch, scored, tmp_path):
    device = use(monkeypatch, parts.InProcess())
    run, _ = search(tmp_path / "run", warm_start=first.folder)
    assert not timed(device)
    assert not scored
    pd.testing.assert_frame_equal(run.front, first.front)


def test_a_run_that_may_only_be_read_serves_too(first, device):
    setup = prepare(RunConfig(supernet=parts.NET, data=parts.TASK))
    with only_readable(first.folder):
        source = read_earlier_run(setup, first.folder)
    assert source.archs.ids == first.trials["key"].tolist()
    assert source.values.tolist() == first.trials["top1"].tolist()
    assert len(source.measurements) > FIRST  # with those of the report samples


def test_a_larger_budget_searches_on(first, device, scored, tmp_path):
    run, _ = search(tmp_path / "run", warm_start=first.folder, budget=FIRST + 4)
    trials = run.trials
    assert len(trials) == FIRST + 4
    assert trials["key"].is_unique
    new = trials[trials["origin"] != "reused"]
    assert new["round"].min() == 1
    assert set(new["state"]) == {"done"}
    assert {key for key, purpose in scored if purpose == "search"} == set(new["key"])
    measured = len(timed(device))
    resumed = hwsearch.resume(run.folder, budget=FIRST + 6)
    assert len(resumed.trials) == FIRST + 6
    assert len(timed(device)) == measured + 2 + 1, "and a bridge to earlier jobs"


def test_a_search_without_latency_tells_all_of_them(first, device, scored, tmp_path):
    run, _ = search(tmp_path / "run", objectives=["top1", "macs"], warm_start=first.folder)
    assert set(run.trials["state"]) == {"done"}
    assert not [key for key, purpose in scored if purpose == "search"]


def test_a_part_of_the_space_takes_what_lies_in_it(first, device, tmp_path):
    run, notes = search(tmp_path / "run", warm_start=first.folder, only=["stage1.width in 4"])
    n = int((first.trials["stage1.width"] == 4).sum())
    assert len(run.trials) == n
    assert any(f"({FIRST - n} more lie outside of what is searched)" in note for note in notes)


def test_what_fails_on_the_new_device_is_a_failed_trial(first, monkeypatch, tmp_path):
    lost = first.front["key"].iloc[-1]

    def failing(name, path):
        if name == lost:
            raise DeviceError("it crashed")
        return uneven(name, path)

    use(monkeypatch, parts.InProcess(failing))
    run, notes = search(tmp_path / "run", warm_start=first.folder)
    trials = run.trials.set_index("key")
    assert trials.loc[lost, ["state", "reason"]].tolist() == ["failed", "it crashed"]
    assert f"{lost} failed: it crashed" in notes
    assert lost not in set(run.front["key"])


def test_a_constraint_that_nothing_known_meets_is_said(first, device, tmp_path):
    with pytest.raises(InfeasibleError, match=r"latency <= 0\.001"):
        search(tmp_path / "run", warm_start=first.folder, constraints=["latency <= 0.001"])


class TestResumed:
    """The run that it started from is gone."""

    @pytest.fixture
    def copied(self, first, tmp_path):
        return shutil.copytree(first.folder, tmp_path / "first")

    @pytest.mark.parametrize("call", [1, 2])
    def test_goes_on_as_if_unbroken(self, call, first, copied, device, monkeypatch, tmp_path):
        whole, _ = search(tmp_path / "whole", warm_start=copied, budget=FIRST + 4)
        all_timed, device.timed = timed(device), []
        with monkeypatch.context() as patch:
            parts.interrupt_measuring(patch, call)
            with pytest.raises(KeyboardInterrupt, match="hwsearch resume"):
                search(tmp_path / "run", warm_start=copied, budget=FIRST + 4)
        shutil.rmtree(copied)
        resumed = hwsearch.resume(tmp_path / "run")
        pd.testing.assert_frame_equal(resumed.trials, whole.trials)
        pd.testing.assert_frame_equal(resumed.front, whole.front)
        assert timed(device) == all_timed

    def test_killed_before_it_had_its_copy(self, copied, device, monkeypatch, tmp_path):
        def stopping(self, folder):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("hwsearch.run.value_sources.base.ValueSource.copy_to", stopping)
            with pytest.raises(KeyboardInterrupt):
                search(tmp_path / "run", warm_start=copied)
        shutil.copytree(tmp_path / "run", tmp_path / "other")
        resumed = hwsearch.resume(tmp_path / "run")
        assert resumed.trials["origin"].tolist() == ["reused"] * FIRST
        assert not list(resumed.folder.glob(".reused"))
        with monkeypatch.context() as patch:
            use(patch, parts.InProcess())
            hwsearch.resume(copied, budget=FIRST + 1)
        with pytest.raises(InputError, match=r"before it had copied warm start .* changed since"):
            hwsearch.resume(tmp_path / "other")

    def test_config_says_what_it_started_from(self, whole, first):
        content = tomllib.loads((whole[0].folder / "config.toml").read_text())
        assert content["search"]["warm_start"] == str(first.folder)
        known = content["recorded"]["warm_start"]
        assert (known["path"], known["reused"]) == (str(first.folder), FIRST)
        assert len(known["digest"]) == 16
        assert set(known) == {"path", "digest", "reused"}


def test_a_front_goes_on_from_its_own_run_folder(whole, first):
    """What a warm start reads is only read: the run can be shown and resumed as before."""
    assert len(Run(first.folder).front)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_real_devices(tmp_path):
    """One thread, then two: every accuracy is reused, and some of the latencies are measured."""
    first, _ = search(tmp_path / "first", device="ort-cpu:threads=1", budget=12)
    second, _ = search(tmp_path / "second", device="ort-cpu:threads=2", warm_start=first.folder)
    new = [m for m in second.measurements() if "reused" not in m.details]
    timed = {m.key for m in new if (m.quantity, m.purpose) == ("latency", "search")}
    assert not [m for m in new if (m.quantity, m.purpose) == ("top1", "search")]
    assert 4 <= len(timed) <= 12
    assert set(second.front["key"]) <= timed
    assert second.verify() == dict.fromkeys(second.front["key"])
