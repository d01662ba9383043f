"""Searches without data: every accuracy is predicted, and marked so."""

import json
import shutil

import pandas as pd
import pytest
from matplotlib.axes import Axes
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.cli import app
from hwsearch.errors import InputError
from hwsearch.evaluation.build import BuiltModels
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.recalibrated_modules import RecalibratedModules
from tests.kit import kit_parts
from tests.run.warm_start_parts import save_predictor, search, use, whole_rounds

pytestmark = pytest.mark.usefixtures("quick_infer")
NAME = parts.network().card.name
DRAWN = True


@pytest.fixture(scope="module", autouse=True)
def _predictor(tmp_path_factory):
    """One of the miniature, among the user's own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, parts.InProcess())
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        run, _ = search(home / "run", budget=24, tactic="random")
        save_predictor(home / "predictors" / NAME / "top1", run, {"checkpoint": "the first"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_HOME", str(home))
        yield


@pytest.fixture
def device(monkeypatch):
    return use(monkeypatch, parts.InProcess())


def without_data(out, **settings):
    return search(out, **{"data": "none", "budget": 12, **settings})


@pytest.fixture(scope="module")
def searched(tmp_path_factory, _predictor):
    with pytest.MonkeyPatch.context() as patch:
        device = use(patch, parts.InProcess())
        labels = []
        errorbar = Axes.errorbar
        patch.setattr(
            Axes, "errorbar", lambda *a, **k: labels.append(k["label"]) or errorbar(*a, **k)
        )
        run, notes = without_data(tmp_path_factory.mktemp("none") / "run")
        return run, notes, device, labels


class TestCandidates:
    def test_end_the_search_and_no_front_does(self, searched):
        run = searched[0]
        assert run.finished
        assert not run.confirmed
        assert {path.name for path in run.folder.iterdir()} == {
            "config.toml", "trials.sqlite", "candidates.csv", "front.png", "subnets",
            "search.json", "SHA256SUMS", "report.html",
        }  # fmt: skip
        with pytest.raises(InputError, match=r"accuracies are predicted; with images: hwsearch"):
            _ = run.front

    def test_every_accuracy_is_marked_and_has_an_interval(self, searched):
        table = searched[0].members
        assert set(table["top1_source"]) == {"predicted"}
        assert (table["top1_low"] < table["top1"]).all()
        assert (table["top1"] < table["top1_high"]).all()
        assert "top1_report" not in table
        assert table["top1"].is_monotonic_increasing
        assert table["latency"].is_monotonic_increasing

    def test_latency_is_measured_and_confirmed(self, searched):
        run, _, device, _ = searched
        assert {m.quantity for m in run.measurements() if m.purpose == "search"} == {"latency"}
        assert {key for phase, key in device.timed if phase == "confirm"} >= set(
            run.members["key"]
        )
        assert "latency_source" not in run.members

    def test_cards_say_what_is_predicted_and_by_what(self, searched):
        run = searched[0]
        for row in run.members.to_dict("records"):
            folder = run.folder / row["subnet"]
            assert [path.name for path in folder.iterdir()] == ["card.json"]
            card = json.loads((folder / "card.json").read_text())
            (prediction,) = card["predictions"]["no file"]
            assert (prediction["quantity"], prediction["source"]) == ("top1", "predicted")
            assert prediction["value"] == row["top1"]
            assert prediction["predictor"] == f"{NAME}/top1"
            assert prediction["predictor_digest"] == run.recorded["predictor"]["digest"]
            (latency,) = card["measurements"]["no file"]
            assert (latency["quantity"], latency["value"]) == ("latency", row["latency"])
            assert card["exact"]["macs"] == row["macs"]
            assert card["files"] == {}

    def test_it_is_said(self, searched):
        run, notes, _, labels = searched
        said = f"no images were read: every top1 is predicted by {NAME}/top1"
        assert said in notes
        assert said in run.recorded["warnings"]
        sources = {each["name"]: each["source"] for each in run.recorded["objectives"]}
        assert sources == {"top1": "predicted", "latency": "measured"}
        assert any("was fitted to the first, and the weights here are" in note for note in notes)
        assert any(label.startswith("candidates (") for label in labels)

    def test_table_picture_and_commands_mark_them(self, searched, device):
        run = searched[0]
        shown = CliRunner().invoke(app, ["front", str(run.folder)], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, shown.output
        assert "candidates, top1 predicted" in shown.stdout
        assert shown.stdout.count("~") >= len(run.members)
        assert "card.json" in shown.stdout
        assert "model.onnx," not in shown.stdout
        assert f"--data imagefolder:PATH --warm-start {run.folder}" in shown.stdout
        assert "kit.pyz" not in shown.stdout

    @pytest.mark.parametrize("command", ["export", "verify"])
    def test_nothing_is_exported_and_it_is_said_why(self, command, searched, device):
        run = searched[0]
        result = CliRunner().invoke(app, [command, str(run.folder)])
        assert result.exit_code == 2
        assert "a card.json and no model.onnx: batch statistics" in result.stderr
        assert f"--warm-start {run.folder}" in result.stderr
        with pytest.raises(InputError, match=r"no model\.onnx"):
            run.subnet(run.members["key"][0])

    def test_resuming_changes_nothing_and_goes_on(self, searched, device, tmp_path):
        folder = shutil.copytree(searched[0].folder, tmp_path / "run")
        before = (folder / "candidates.csv").read_bytes()
        hwsearch.resume(folder)
        assert (folder / "candidates.csv").read_bytes() == before
        whole, _ = without_data(tmp_path / "whole", budget=18)
        part, _ = without_data(tmp_path / "part", budget=whole_rounds(whole))
        longer = hwsearch.resume(part.folder, budget=18)
        pd.testing.assert_frame_equal(longer.trials, whole.trials)
        pd.testing.assert_frame_equal(longer.members, whole.members)


def test_with_images_the_candidates_become_a_front(searched, device, monkeypatch, tmp_path):
    """Their latencies on the same device are known, and only the promising ones are scored."""
    scored, score = [], Evaluator.outcomes

    def watching(self, models, samples):
        scored.extend((arch.key, len(samples)) for arch in models)
        return score(self, models, samples)

    monkeypatch.setattr(Evaluator, "outcomes", watching)
    n = len(searched[0].members)
    run, notes = search(tmp_path / "run", budget=n, warm_start=searched[0].folder)
    assert f"candidates without data, of {n} architectures reused from" in str(notes)
    assert run.confirmed
    assert set(run.front["key"]) <= set(searched[0].members["key"])
    assert not [key for phase, key in device.timed if phase == "search"]
    assert len({key for key, samples in scored if samples == 160}) <= n


def test_nothing_is_read_and_nothing_scored(device, monkeypatch, tmp_path):
    def unwanted(*args, **settings):
        raise AssertionError("there is nothing to score")

    monkeypatch.setattr(Evaluator, "outcomes", unwanted)
    monkeypatch.setattr(RecalibratedModules, "drafts", unwanted)
    monkeypatch.setattr(BuiltModels, "exported", unwanted)
    run, _ = without_data(tmp_path / "run", budget=4)
    assert len(run.members)


def test_costs_may_take_the_place_of_latency(device, tmp_path):
    run, notes = without_data(tmp_path / "run", objectives=["top1", "macs"], budget=20)
    assert not device.timed
    assert not run.measurements()
    table = run.members
    assert set(table["top1_source"]) == {"predicted"}
    assert (table["macs"].diff().dropna() > 0).all()
    assert "latency" not in table
    assert "20 of 20 architectures to evaluate out of 72" in notes


def test_a_constraint_on_what_is_predicted_holds(searched, device, tmp_path):
    bound = searched[0].members["top1"].median()
    run, _ = without_data(tmp_path / "run", constraints=[f"top1 >= {bound}"])
    assert (run.members["top1"] >= bound).all()


def test_random_weights_do_not_make_predictions_meaningless(device, tmp_path):
    """They are of another checkpoint, which is said; latency does not depend on weights."""
    _, notes = without_data(tmp_path / "run", budget=4, checkpoint="1")
    assert not any("mean nothing" in note for note in notes)
    assert any("was fitted to the first" in note for note in notes)


class TestElsewhere:
    """A device that is known by a kit: nothing at all is measured."""

    @pytest.fixture(autouse=True)
    def _scripted(self, monkeypatch):
        monkeypatch.setattr("hwsearch.kit.build.device_entries", lambda: kit_parts.SCRIPTED)

    def measured(self, kit, out, device=()):
        from hwsearch.kit import main as kit_main

        assert kit_main.main(["--out", str(out), *device], kit) == 0
        return out

    def test_timings_leave_candidates_by_their_accuracy(self, tmp_path):
        hwsearch.make_kit(parts.NET, tmp_path / "kit.pyz", subnets=12)
        table = self.measured(
            tmp_path / "kit.pyz", tmp_path / "table.json", ["--device", "scripted"]
        )
        run, _ = without_data(tmp_path / "run", device=f"kit:{table}")
        assert set(run.members["top1_source"]) == {"predicted"}
        assert set(run.members["latency_source"]) == {"predicted"}
        timings = self.measured(run.folder / "kit.pyz", tmp_path / "timings.json")
        run = hwsearch.confirm(run.folder, timings)
        assert not run.confirmed
        assert "latency_source" not in run.members
        assert set(run.members["top1_source"]) == {"predicted"}
        assert Run(run.folder).finished


class TestRefused:
    @pytest.fixture(autouse=True)
    def _nothing_written(self, device, tmp_path):
        yield
        assert not (tmp_path / "run").exists()

    def test_no_predictor(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "empty"))
        with pytest.raises(InputError) as caught:
            without_data(tmp_path / "run")
        text = str(caught.value)
        assert f"data 'none' needs a predictor of top1 for {NAME!r}, and there is none" in text
        assert "tools/fit_predictor.py" in text
        assert "--data imagefolder:PATH" in text

    def test_a_search_without_accuracy(self, tmp_path):
        with pytest.raises(InputError, match="data 'none' predicts top1, which is no objective"):
            without_data(tmp_path / "run", objectives=["latency", "macs"])

    def test_a_warm_start(self, searched, tmp_path):
        with pytest.raises(InputError, match="serves no search without data: it measures no"):
            without_data(tmp_path / "run", warm_start=searched[0].folder)

    def test_int8(self, monkeypatch, tmp_path):
        use(monkeypatch, parts.InProcess(precision="int8"))
        with pytest.raises(InputError, match="data 'none' has none; give data with a calibration"):
            without_data(tmp_path / "run")
