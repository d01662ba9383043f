"""Runs with a scripted device: what they leave, and what resuming and exporting do with it."""

import json
import shutil
import sqlite3
import tomllib

import numpy as np
import onnx
import pandas as pd
import pytest
import tomli_w
import torch

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.errors import InputError, VerificationError
from hwsearch.models.agreement import disagreement

pytestmark = pytest.mark.usefixtures("quick_infer")


def search(out, **settings):
    return hwsearch.search(**{**parts.SETTINGS, **settings}, out=out)


def files(folder):
    """Every file's content, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; tests that change it take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.setup.load_device", lambda spec: parts.InProcess())
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        watcher = parts.Watcher()
        run = search(tmp_path_factory.mktemp("runs") / "first", progress=watcher)
    return run, watcher


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[0].folder, tmp_path / "run")
    return Run(tmp_path / "run")


class TestFinishedRun:
    def test_holds_what_a_run_consists_of_and_no_more(self, finished):
        run, _ = finished
        assert run.finished
        assert {path.name for path in run.folder.iterdir()} == {
            "config.toml", "trials.sqlite", "front.csv", "front.png", "subnets",
            "search.json", "SHA256SUMS", "report.html",
        }  # fmt: skip
        assert {path.name for path in (run.folder / "subnets").iterdir()} == set(run.front["key"])
        for folder in (run.folder / "subnets").iterdir():
            assert {path.name for path in folder.iterdir()} == {
                "model.onnx", "card.json", "weights.safetensors", "infer.py",
            }  # fmt: skip

    def test_trials_are_all_done(self, finished):
        trials = finished[0].trials
        assert trials["number"].tolist() == list(range(12))
        assert trials["round"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert set(trials["state"]) == {"done"}
        assert trials["key"].is_unique
        assert trials[["top1", "latency"]].notna().all(axis=None)

    def test_front_is_confirmed_non_dominated_and_sorted(self, finished):
        run, _ = finished
        front = run.front
        assert len(front) >= 3
        assert (np.diff(front["top1"]) > 0).all()
        assert (np.diff(front["latency"]) > 0).all()
        for name in ("top1", "top1_report", "latency"):
            assert (front[f"{name}_low"] <= front[name]).all()
            assert (front[name] <= front[f"{name}_high"]).all()

    def test_front_has_these_columns(self, finished):
        run, _ = finished
        names = run.setup().net.space.names
        assert list(pd.read_csv(run.folder / "front.csv").columns) == [
            "key",
            "top1", "top1_low", "top1_high",
            "top1_report", "top1_report_low", "top1_report_high",
            "latency", "latency_low", "latency_high",
            "p50_ms", "p90_ms", "p99_ms", "rounds", "probability",
            "macs", "params", "bytes", "peak_memory", "weight_traffic",
            "weights", "subnet",
            *names,
        ]  # fmt: skip
        assert (run.folder / run.front["subnet"][0] / "model.onnx").is_file()

    def test_search_values_reappear_with_their_purposes(self, finished):
        run, _ = finished
        measured = run.measurements()
        count = {
            purpose: len([m for m in measured if m.purpose == purpose])
            for purpose in ("search", "confirm", "report")
        }
        assert count["search"] == 2 * 12
        assert count["report"] == len(run.front)
        assert count["confirm"] >= len(run.front)
        for row in run.front.to_dict("records"):
            of_key = {(m.quantity, m.purpose): m.value for m in measured if m.key == row["key"]}
            assert of_key["top1", "search"] == row["top1"]
            assert of_key["top1", "report"] == row["top1_report"]
            assert of_key["latency", "confirm"] == row["latency"]

    def test_cards_state_the_same_numbers(self, finished):
        run, _ = finished
        for row in run.front.to_dict("records"):
            card = json.loads((run.folder / row["subnet"] / "card.json").read_text())
            (stated,) = card["measurements"].values()
            values = {(m["quantity"], m["purpose"]): m["value"] for m in stated}
            assert values == {
                ("top1", "search"): row["top1"],
                ("top1", "report"): row["top1_report"],
                ("latency", "confirm"): row["latency"],
            }

    def test_progress_heard_of_every_phase(self, finished):
        _, watcher = finished
        names = [name for name, _, _ in watcher.phases]
        assert names == ["search", "confirm", "export"]
        assert watcher.phases[0] == ("search", 12, 0)
        assert [figures["round"] for figures in watcher.states] == [1, 2, 3]
        volumes = [figures["hypervolume"] for figures in watcher.states]
        assert volumes[-1] >= volumes[1] > 0
        few, outlook = watcher.notes
        assert few == parts.FEW
        assert outlook.startswith("12 of 12 architectures to evaluate out of 72; each exported")

    def test_says_what_it_is(self, finished):
        assert repr(finished[0]).endswith(f"{parts.NET} on scripted, finished)")

    def test_exported_network_equals_its_onnx(self, finished, device):
        run, _ = finished
        key = run.front["key"].iloc[-1]
        subnet = run.subnet(key)
        images = np.random.default_rng(5).standard_normal((3, 3, 16, 16)).astype(np.float32)
        with torch.no_grad():
            theirs = subnet(torch.from_numpy(images)).numpy()
        model = run.folder / "subnets" / key / "model.onnx"
        ((ours,),) = device.run(model, [{"image": images}])
        assert disagreement([ours], [theirs]) < 1e-5

    def test_an_architecture_off_the_front_has_no_subnet(self, finished, device):
        run, _ = finished
        key = next(key for key in run.trials["key"] if key not in set(run.front["key"]))
        with pytest.raises(InputError, match="a key of the front"):
            run.subnet(key)

    def test_another_seed_proposes_others(self, finished, device, tmp_path):
        other = search(tmp_path / "other", seed=1, budget=4)
        assert set(other.trials["key"]) != set(finished[0].trials["key"][:4])


class TestRefusedOutput:
    @pytest.fixture(autouse=True)
    def _device(self, device):
        pass

    def test_another_run(self, copied):
        before = files(copied.folder)
        with pytest.raises(InputError, match=r"holds another run.*hwsearch resume"):
            search(copied.folder)
        assert files(copied.folder) == before

    def test_other_files(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match=r"holds 1 other files \(notes.txt\)"):
            search(tmp_path)
        assert files(tmp_path) == {"notes.txt": b"mine"}

    @pytest.mark.parametrize("name", ["file", "file/run"])
    def test_a_file(self, tmp_path, name):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match="is a file"):
            search(tmp_path / name)
        assert files(tmp_path) == {"file": b"mine"}

    def test_an_empty_folder_will_do(self, tmp_path):
        (tmp_path / "run").mkdir()
        assert search(tmp_path / "run", budget=4, objectives=["top1"]).finished


class TestResume:
    def test_a_finished_run_stays_as_it_is(self, copied, device):
        before = files(copied.folder)
        assert hwsearch.resume(copied.folder).folder == copied.folder
        assert hwsearch.resume(copied.folder, budget=12).finished
        assert files(copied.folder) == before
        assert device.timed == []

    def test_a_larger_budget_ends_where_one_from_the_start_does(self, copied, first, device):
        known = set(copied.trials["key"])
        longer = hwsearch.resume(copied.folder, budget=parts.FIRST)
        pd.testing.assert_frame_equal(longer.trials, first.trials)
        pd.testing.assert_frame_equal(longer.front, first.front)
        assert longer.config == first.config
        # Nothing is measured twice.
        bridges = {m.key for m in longer.measurements() if m.purpose == "bridge"}
        searched = [name for phase, name in device.timed if phase == "search"]
        new = [name for name in searched if name not in bridges]
        assert len(new) == parts.FIRST - 12
        assert not known & set(new)

    @pytest.mark.parametrize(
        ("part", "value", "named"),
        [
            (("device", "cpu"), "Another CPU", "device.cpu was Another CPU, is scripted"),
            (("device", "threads"), 8, "device.threads was 8, is 1"),
            (("data", "search"), "160@0123", r"data.search was 160@0123, is 160@\w+"),
            (("weights",), "0123", r"weights was 0123, is \w+"),
            (("space",), "0123", r"space was 0123, is \w+"),
        ],
    )
    def test_other_numbers_are_refused_by_name(self, copied, device, part, value, named):
        path = copied.folder / "config.toml"
        content = tomllib.loads(path.read_text())
        place = content["recorded"]
        for name in part[:-1]:
            place = place[name]
        place[part[-1]] = value
        path.write_text(tomli_w.dumps(content))
        before = files(copied.folder)
        with pytest.raises(InputError, match=named) as caught:
            hwsearch.resume(copied.folder, budget=16)
        assert "start a new one" in str(caught.value)
        assert files(copied.folder) == before

    def test_a_setting_that_changed_resolves_to_other_weights(self, copied, device):
        path = copied.folder / "config.toml"
        content = tomllib.loads(path.read_text())
        content["search"]["checkpoint"] = "1"
        path.write_text(tomli_w.dumps(content))
        with pytest.raises(InputError, match="weights was"):
            hwsearch.resume(copied.folder)

    @pytest.mark.parametrize("budget", [0, -3])
    def test_a_bad_budget_is_refused(self, copied, device, budget):
        before = files(copied.folder)
        with pytest.raises(InputError, match=f"budget is {budget}"):
            hwsearch.resume(copied.folder, budget=budget)
        assert files(copied.folder) == before

    def test_a_folder_without_a_run_is_refused(self, tmp_path):
        for open_run in (hwsearch.resume, Run):
            with pytest.raises(InputError, match=r"is no run: it has no config.toml"):
                open_run(tmp_path)
        assert files(tmp_path) == {}


class TestExport:
    @pytest.fixture(autouse=True)
    def _device(self, device):
        self.device = device

    def test_copies_what_is_selected(self, finished, tmp_path):
        run, _ = finished
        limit = run.front["latency"].iloc[1]
        folders = run.export(f"latency <= {limit}", tmp_path / "models")
        assert [folder.name for folder in folders] == run.front["key"].tolist()[:2]
        for folder in folders:
            assert files(folder) == files(run.folder / "subnets" / folder.name)
            onnx.checker.check_model(folder / "model.onnx", full_check=True)
        assert len(list((tmp_path / "models").iterdir())) == 2
        assert not self.device.is_open

    def test_without_a_target_it_names_the_folders(self, finished):
        run, _ = finished
        before = files(run.folder)
        assert run.export("knee") == [run.folder / "subnets" / run.select("knee")[0]]
        assert files(run.folder) == before

    def test_never_replaces(self, finished, tmp_path):
        run, _ = finished
        run.export("knee", tmp_path)
        before = files(tmp_path)
        with pytest.raises(InputError, match="exists already"):
            run.export("all", tmp_path)
        assert files(tmp_path) == before

    @pytest.mark.parametrize("name", ["file", "file/models"])
    def test_a_target_that_is_a_file_is_refused(self, finished, tmp_path, name):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match="is a file"):
            finished[0].export("knee", tmp_path / name)
        assert files(tmp_path) == {"file": b"mine"}

    def test_copies_nothing_when_one_is_damaged(self, copied, tmp_path):
        damaged = copied.folder / "subnets" / copied.front["key"].iloc[-1] / "model.onnx"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        with pytest.raises(VerificationError, match=r"model.onnx is not the file"):
            copied.export("all", tmp_path / "models")
        assert not (tmp_path / "models").exists() or not files(tmp_path / "models")
        assert not self.device.is_open

    def test_nothing_selected(self, finished):
        with pytest.raises(InputError, match="no member of the front satisfies"):
            finished[0].export("latency <= 1e-9")


class TestVerify:
    @pytest.fixture(autouse=True)
    def _device(self, device):
        self.device = device

    def test_a_sound_run(self, finished):
        run, _ = finished
        assert run.verify() == dict.fromkeys(run.front["key"])
        assert not self.device.is_open

    def test_names_what_is_wrong_with_each(self, copied):
        first, second, *others = (copied.folder / run for run in copied.front["subnet"])
        (first / "weights.safetensors").unlink()
        shutil.rmtree(second)
        found = copied.verify()
        assert found[first.name] == "weights.safetensors is missing"
        assert "is no exported subnet" in found[second.name]
        assert [found[other.name] for other in others] == [None] * len(others)


def test_the_store_is_one_sound_file(finished):
    run, _ = finished
    with sqlite3.connect(run.folder / "trials.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
