"""Runs with other objectives, with trials that fail, and with bounds that nothing satisfies."""

import numpy as np
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.accuracy.metric import Metric
from hwsearch.errors import EvaluationError, InfeasibleError, InputError
from hwsearch.report.run_data import read_run_data

pytestmark = pytest.mark.usefixtures("quick_infer")


def search(out, **settings):
    return hwsearch.search(**{**parts.SETTINGS, **settings}, out=out)


class TestObjectives:
    @pytest.fixture(autouse=True)
    def _device(self, device):
        self.device = device

    def test_without_latency_nothing_is_timed(self, tmp_path):
        run = search(tmp_path / "run", objectives=["top1", "macs"], budget=8)
        assert self.device.timed == []
        assert {m.quantity for m in run.measurements()} == {"top1"}
        assert "latency" not in run.front
        assert (run.folder / "front.png").is_file()

    def test_the_picture_shows_trials_by_computed_objectives_too(self, tmp_path, monkeypatch):
        drawn = []
        draw = lambda run, setup: drawn.append(read_run_data(run, setup))  # noqa: E731
        monkeypatch.setattr("hwsearch.report.write.write_own_report", draw)
        run = search(tmp_path / "run", objectives=["top1", "macs"], budget=8)
        (run_data,) = drawn
        macs, known = run_data.values["macs"], run.front.set_index("key")["macs"]
        assert np.isfinite(macs).all()
        assert [macs[run_data.place[key]] for key in known.index] == known.tolist()

    def test_without_the_metric_the_front_states_it_all_the_same(self, tmp_path):
        run = search(tmp_path / "run", objectives=["latency", "params"], budget=8)
        assert run.front[["top1", "top1_report", "latency", "params"]].notna().all(axis=None)
        assert (np.diff(run.front["latency"]) >= 0).all()

    def test_one_objective_and_a_constraint_that_holds(self, tmp_path):
        run = search(tmp_path / "run", objectives=["top1", "macs"], constraints=["macs <= 3e5"])
        assert (run.front["macs"] <= 3e5).all()

    def test_unfinished_runs_have_no_front_and_say_so(self, tmp_path, monkeypatch):
        def stop(*args):
            raise EvaluationError("stopped")

        with monkeypatch.context() as patch:
            patch.setattr("hwsearch.run.search.run_search", stop)
            with pytest.raises(EvaluationError):
                search(tmp_path / "run", budget=4)
        run = Run(tmp_path / "run")
        assert not run.finished
        assert "not finished" in repr(run)
        assert run.trials.empty
        with pytest.raises(InputError, match="has no front yet; finish it by 'hwsearch resume"):
            _ = run.front


class TestFailures:
    """A trial that fails is recorded with its cause, and the search goes on."""

    @pytest.fixture(autouse=True)
    def _parts(self, device, monkeypatch):
        self.patch = monkeypatch
        self.device = device

    def break_network(self, breaking, blocks=True):
        """Let the family do something else for the deep ones of its architectures."""
        net = parts.network()
        # Made before, because its labels are what the largest subnet answers.
        made = parts.task(net.input_spec(net.space.smallest()[0]))
        self.patch.setattr(parts, "task", lambda input_spec: made)
        build = net.subnet
        net.subnet = lambda arch: breaking(build(arch)) if self.deep(arch) else build(arch)
        if not blocks:
            net.blocks = lambda arch: None
        self.patch.setattr(parts, "network", lambda checkpoint=None: net)

    @staticmethod
    def deep(arch):
        return arch["stage2.depth"] == 2 and arch["stage1.depth"] == 1

    def check(self, run, is_failed, reason):
        trials = run.trials
        failed = trials[trials["state"] == "failed"]
        expected = [key for key, mapping in self.mappings(trials) if is_failed(mapping)]
        assert failed["key"].tolist() == expected
        assert 0 < len(failed) < len(trials) == 12
        assert failed["reason"].str.contains(reason, regex=True).all()
        assert trials[trials["state"] == "done"]["reason"].isna().all()
        assert not set(failed["key"]) & set(run.front["key"])

    @staticmethod
    def mappings(trials):
        return [(row["key"], row) for row in trials.to_dict("records")]

    @pytest.mark.parametrize("blocks", [True, False])
    def test_a_family_that_raises(self, tmp_path, blocks):
        def raising(subnet):
            raise ZeroDivisionError("no such layer")

        self.break_network(raising, blocks)
        watcher = parts.Watcher()
        run = search(tmp_path / "run", progress=watcher)
        self.check(run, self.deep, "^ZeroDivisionError: no such layer$")
        assert all("failed: ZeroDivisionError" in note for note in watcher.notes[2:])
        assert len(watcher.notes[2:]) == (run.trials["state"] == "failed").sum()

    def test_outputs_that_are_nan(self, tmp_path):
        def spoilt(subnet):
            subnet.head.bias.data[0] = float("nan")
            return subnet

        self.break_network(spoilt)
        self.check(search(tmp_path / "run"), self.deep, "NaN in its weight")

    def test_a_metric_that_raises(self, tmp_path):
        metric = Metric(name="odd", per_sample=self.odd_metric)
        made = parts.task(parts.network().input_spec(None), metric)
        self.patch.setattr(parts, "task", lambda input_spec: made)
        self.scored = 0
        trials = search(tmp_path / "run").trials
        (reason,) = trials[trials["state"] == "failed"]["reason"]
        assert "odd" in reason
        assert "ValueError: unlucky" in reason

    def odd_metric(self, outputs, targets):
        self.scored += 1
        # Two batches make up the search samples: this is in the third that is scored.
        if self.scored == 5:
            raise ValueError("unlucky")
        return outputs[0].max(axis=1)

    def test_a_device_that_refuses_some(self, tmp_path):
        def latency_of(name, path):
            if int(name, 16) % 3 == 0:
                raise hwsearch.errors.DeviceError("crashed with SIGSEGV")
            return 1.0 + int(name, 16) % 100

        self.device.scripts["search"] = self.device.scripts["confirm"] = latency_of
        run = search(tmp_path / "run")
        self.check(run, lambda row: int(row["key"], 16) % 3 == 0, "crashed with SIGSEGV")

    def test_failed_trials_stay_failed_when_the_run_goes_on(self, tmp_path):
        self.test_a_device_that_refuses_some(tmp_path)
        before = Run(tmp_path / "run").trials
        self.device.scripts["search"] = self.device.scripts["confirm"] = lambda *_: 1.0
        after = hwsearch.resume(tmp_path / "run", budget=16).trials
        assert after["state"][:12].tolist() == before["state"].tolist()
        failed = before[before["state"] == "failed"]["key"]
        assert [key for _, key in self.device.timed if key in set(failed)] == failed.tolist()

    def test_all_of_them(self, tmp_path):
        self.device.scripts["search"] = lambda *_: float("nan")
        said = "all 12 trials failed; the first one: the latency is nan ms"
        with pytest.raises(EvaluationError, match=said):
            search(tmp_path / "run")
        run = Run(tmp_path / "run")
        assert set(run.trials["state"]) == {"failed"}
        assert not run.finished
        assert not (run.folder / "subnets").exists()


class TestInfeasible:
    def test_says_what_came_closest_and_keeps_the_trials(self, device, tmp_path):
        with pytest.raises(InfeasibleError) as caught:
            search(tmp_path / "run", constraints=["latency <= 0.01"], budget=8)
        run = Run(tmp_path / "run")
        fastest = run.trials["latency"].min()
        key = run.trials["key"][run.trials["latency"].argmin()]
        assert f"The closest ({key}) has latency {fastest:.6g}" in str(caught.value)
        assert "none of 8 evaluated architectures satisfies latency <= 0.01" in str(caught.value)
        assert set(run.trials["state"]) == {"done"}
        assert not run.finished
        timed = len(device.timed)
        with pytest.raises(InfeasibleError):
            hwsearch.resume(run.folder)
        assert len(device.timed) == timed

    def test_bounds_that_exclude_each_other_start_nothing(self, device, tmp_path):
        with pytest.raises(InputError, match="no number satisfies both"):
            search(tmp_path / "run", constraints=["latency <= 1", "latency >= 2"])
        assert not (tmp_path / "run").exists()
