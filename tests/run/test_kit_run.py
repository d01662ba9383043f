"""A search for a machine that is elsewhere: candidates, a second kit, a front by its timings."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.cli import app
from hwsearch.errors import DeviceError, InfeasibleError, InputError
from hwsearch.kit import main as kit_main
from hwsearch.kit.device import KitDevice
from hwsearch.kit.manifest import read_manifest
from hwsearch.kit.results import KitFacts, read_results, sealed
from hwsearch.trials import TrialState
from tests.kit import kit_parts

BUDGET = 8


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Outputs are computed here, `infer.py` is not run, and kits measure by script."""
    with pytest.MonkeyPatch.context() as patch:
        here = SimpleNamespace(create=parts.InProcess, available=lambda: None)
        patch.setattr("hwsearch.kit.device.ORT_CPU", here)
        patch.setattr("hwsearch.kit.build.device_entries", lambda: kit_parts.SCRIPTED)
        for module in ("hwsearch.run.finish", "hwsearch.verify.subnet"):
            patch.setattr(f"{module}.run_infer", lambda folder: "scripted\n")
        yield


def measured(kit, out, device="scripted"):
    arguments = ["--out", str(out), *(["--device", device] if device else [])]
    assert kit_main.main(arguments, kit) == 0
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    hwsearch.make_kit(parts.NET, folder / "kit.pyz", subnets=20)
    return measured(folder / "kit.pyz", folder / "table.json")


def search(table, out, **settings):
    given = {**parts.SETTINGS, "budget": BUDGET, "device": f"kit:{table}", **settings}
    return hwsearch.search(**given, out=out)


@pytest.fixture(scope="module")
def searched(table, tmp_path_factory):
    return search(table, tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def folder(searched, tmp_path):
    """A run of one's own that ended with candidates."""
    return shutil.copytree(searched, tmp_path / "run")


@pytest.fixture
def timings(folder, tmp_path):
    return measured(folder / "kit.pyz", tmp_path / "timings.json", None)


class TestCandidates:
    def test_a_search_by_a_table_ends_with_them_and_with_no_front(self, folder):
        run = Run(folder)
        assert run.finished
        assert not run.confirmed
        assert not (folder / "front.csv").exists()
        with pytest.raises(InputError, match=r"has candidates and no front.*hwsearch confirm"):
            _ = run.front
        candidates = run.members
        assert set(candidates["latency_source"]) == {"predicted"}
        assert (candidates["latency_low"] < candidates["latency"]).all()
        assert (candidates["latency"] < candidates["latency_high"]).all()
        assert candidates["latency"].is_monotonic_increasing

    def test_nothing_predicted_is_stored_as_measured(self, folder):
        assert {m.quantity for m in Run(folder).measurements()} == {"top1"}

    def test_cards_keep_predictions_apart(self, folder):
        for key in Run(folder).select("all"):
            card = json.loads((folder / "subnets" / key / "card.json").read_text())
            ((sha256, (prediction,)),) = card["predictions"].items()
            assert sha256 == card["files"]["model.onnx"]
            assert (prediction["source"], prediction["quantity"]) == ("predicted", "latency")
            assert prediction["device"] == "scripted"
            assert "latency" not in {m["quantity"] for m in card["measurements"][sha256]}

    def test_predictions_are_close(self, folder, timings):
        real = {k: r["latency_ms"] for k, r in read_results(timings)[1].latencies.items()}
        candidates = Run(folder).members.set_index("key")["latency"]
        for key, predicted in candidates.items():
            assert predicted == pytest.approx(real[key], rel=0.2)

    def test_the_second_kit_holds_them_first(self, folder):
        manifest = read_manifest(folder / "kit.pyz")
        keys = [model.key for model in manifest.models]
        members = Run(folder).members["key"].tolist()
        assert set(keys[: len(members)]) == set(members)
        assert set(keys) <= {t.key for t in _trials(folder)}
        assert (manifest.purpose, manifest.device) == ("confirm", "scripted")
        for model in manifest.models[: len(members)]:
            card = json.loads((folder / "subnets" / model.key / "card.json").read_text())
            assert model.shipped == card["files"]["model.onnx"]

    def test_the_second_kit_is_for_the_machine_of_the_table(
        self, folder, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(FakeDevice, "fingerprint", lambda self: {"cpu": "another"})
        out = tmp_path / "timings.json"
        assert kit_main.main(["--out", str(out)], folder / "kit.pyz") == 2
        assert "this is not the machine that the table is from" in capsys.readouterr().err
        assert not out.exists()

    def test_resuming_changes_nothing(self, folder):
        before = (folder / "candidates.csv").read_bytes(), (folder / "kit.pyz").read_bytes()
        assert not hwsearch.resume(folder).confirmed
        assert before == (
            (folder / "candidates.csv").read_bytes(),
            (folder / "kit.pyz").read_bytes(),
        )

    def test_a_lost_kit_is_made_again(self, folder):
        before = (folder / "kit.pyz").read_bytes()
        (folder / "kit.pyz").unlink()
        hwsearch.resume(folder)
        assert (folder / "kit.pyz").read_bytes() == before

    def test_a_constraint_on_what_is_predicted_holds(self, table, folder, tmp_path):
        limit = Run(folder).members["latency"].median()
        run = search(table, tmp_path / "limited", constraints=[f"latency <= {limit}"])
        assert (run.members["latency"] <= limit).all()

    def test_nothing_feasible_is_said(self, table, tmp_path):
        with pytest.raises(InfeasibleError, match="latency"):
            search(table, tmp_path / "none", budget=4, constraints=["latency <= 1e-6"])


class TestConfirm:
    def test_timings_turn_candidates_into_a_front(self, folder, timings):
        run = hwsearch.confirm(folder, timings)
        assert run.confirmed
        assert not (folder / "candidates.csv").exists()
        facts = read_results(timings)[1]
        front = run.front
        assert "latency_source" not in front
        for row in front.to_dict("records"):
            assert row["latency"] == facts.latencies[row["key"]]["latency_ms"]
            card = json.loads((folder / "subnets" / row["key"] / "card.json").read_text())
            assert "predictions" not in card
            (stated,) = [
                m
                for m in card["measurements"][card["files"]["model.onnx"]]
                if m["quantity"] == "latency"
            ]
            assert stated["details"]["weights"] == "a repeated tile in the same graph"
        assert {p.name for p in (folder / "subnets").iterdir()} == set(front["key"])
        stored = [m for m in run.measurements() if m.purpose == "confirm"]
        assert {m.key for m in stored} == set(facts.latencies)
        assert all(m.context.startswith("scripted ") for m in stored)

    def test_again_is_harmless(self, folder, timings):
        first = hwsearch.confirm(folder, timings).front
        n_measured = len(Run(folder).measurements())
        pd.testing.assert_frame_equal(hwsearch.confirm(folder, timings).front, first)
        assert len(Run(folder).measurements()) == n_measured
        assert hwsearch.resume(folder).confirmed

    def test_what_turns_out_slow_leaves(self, folder, tmp_path, monkeypatch):
        slow = Run(folder).members["key"].iloc[0]
        scripted = FakeDevice.measure

        def slowed(self, models, **settings):
            device = FakeDevice(lambda name, path: 99.0 if name == slow else 1.0)
            return scripted(device, models, **settings)

        monkeypatch.setattr(FakeDevice, "measure", slowed)
        run = hwsearch.confirm(folder, measured(folder / "kit.pyz", tmp_path / "t.json", None))
        assert slow not in set(run.front["key"])
        assert not (folder / "subnets" / slow).exists()

    def test_a_candidate_without_a_latency_leaves(self, folder, tmp_path, monkeypatch):
        lost = Run(folder).members["key"].iloc[0]
        scripted = FakeDevice.measure

        def failing(self, models, **settings):
            results = scripted(self, models, **settings)
            return {k: DeviceError("crashed") if k == lost else r for k, r in results.items()}

        monkeypatch.setattr(FakeDevice, "measure", failing)
        watcher = parts.Watcher()
        path = measured(folder / "kit.pyz", tmp_path / "t.json", None)
        run = hwsearch.confirm(folder, path, progress=watcher)
        assert lost not in set(run.front["key"])
        assert f"{lost} leaves the candidates: crashed" in watcher.notes

    def test_a_larger_budget_searches_on_to_new_candidates(self, folder, timings):
        hwsearch.confirm(folder, timings)
        run = hwsearch.resume(folder, budget=BUDGET + 2)
        assert not run.confirmed
        assert len(run.trials) == BUDGET + 2


class TestRefused:
    """Each leaves the run as it was."""

    @pytest.fixture(autouse=True)
    def _unchanged(self, folder):
        before = {p: p.read_bytes() for p in folder.rglob("*.csv")}
        yield
        assert {p: p.read_bytes() for p in folder.rglob("*.csv")} == before

    def test_a_table(self, folder, table):
        with pytest.raises(InputError, match="is a table to predict from, and no timings"):
            hwsearch.confirm(folder, table)

    def test_timings_as_a_table(self, timings):
        with pytest.raises(InputError, match="holds the timings of a run's candidates"):
            KitDevice(str(timings))

    def test_timings_of_another_run(self, folder, table, tmp_path):
        other = search(table, tmp_path / "other", seed=1, budget=4)
        path = measured(other.folder / "kit.pyz", tmp_path / "t.json", None)
        with pytest.raises(InputError, match="holds timings of another run"):
            hwsearch.confirm(folder, path)

    def test_half_of_the_timings(self, folder, timings):
        half = _changed(timings, lambda facts: facts.missing.append("0123456789abcdef"))
        with pytest.raises(
            InputError, match=r"not complete: 1 of \d+ models .* go on there by 'python .*kit.pyz"
        ):
            hwsearch.confirm(folder, half)

    def test_what_was_edited(self, folder, timings):
        record = json.loads(timings.read_text())
        record["subnets"][0]["latency_ms"] /= 2
        timings.write_text(json.dumps(record))
        with pytest.raises(InputError, match="was changed after the kit wrote it"):
            hwsearch.confirm(folder, timings)

    @pytest.mark.parametrize("wrong", [0.0, -1.0])
    @pytest.mark.parametrize("name", ["latency_ms", "ratio", "p90_ms"])
    def test_no_times(self, name, wrong, folder, timings):
        def change(facts):
            next(iter(facts.latencies.values()))[name] = wrong

        with pytest.raises(InputError, match=f"{name} is {wrong}; it must be a finite number"):
            hwsearch.confirm(folder, _changed(timings, change))

    def test_not_a_number(self, folder, timings):
        timings.write_text(timings.read_text().replace('"baseline_ms": 1.0', '"baseline_ms": NaN'))
        with pytest.raises(InputError, match="holds NaN, which is no number"):
            hwsearch.confirm(folder, timings)

    def test_another_machine(self, folder, timings):
        table, facts = read_results(timings)
        sealed(replace(table, fingerprint={"cpu": "another"}), facts).save(timings)
        with pytest.raises(InputError, match=r"was measured on scripted .* do not compare"):
            hwsearch.confirm(folder, timings)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"facts": {"kit": {}}}'])
    def test_what_no_kit_wrote(self, text, folder, tmp_path):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(InputError, match=r"written by a kit|is damaged"):
            hwsearch.confirm(folder, tmp_path / "t.json")

    def test_a_run_without_a_kit(self, folder, timings):
        (folder / "kit.pyz").unlink()
        with pytest.raises(InputError, match=r"there is no kit .* confirms nothing"):
            hwsearch.confirm(folder, timings)

    def test_a_model_that_is_no_longer_the_same(self, folder, timings, monkeypatch):
        from hwsearch.errors import VerificationError

        monkeypatch.setattr("hwsearch.run.finish.sha256_of", lambda path: "another")
        with pytest.raises(VerificationError, match="no member of the front"):
            hwsearch.confirm(folder, timings)


class TestTables:
    def test_one_of_another_supernet_is_refused(self, table, tmp_path):
        with pytest.raises(InputError, match="what the kit measured is a latency table of"):
            hwsearch.search("cifar10-resnet", device=f"kit:{table}", out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_half_of_one_is_refused(self, table, tmp_path):
        half = shutil.copy(table, tmp_path / "half.json")
        half = _changed(half, lambda facts: facts.missing.extend(["0" * 16, "1" * 16]))
        with pytest.raises(InputError, match="is not complete: 2 of 20 models"):
            search(half, tmp_path / "run")

    def test_a_device_without_a_file_is_refused(self):
        with pytest.raises(InputError, match=r"device 'kit' lacks TABLE\.json"):
            hwsearch.load_device("kit")
        with pytest.raises(InputError, match=r"there is no file 'none\.json'"):
            hwsearch.load_device("kit:none.json")

    def test_it_measures_nothing_here(self, table, tmp_path):
        with pytest.raises(DeviceError, match="on another machine"):
            KitDevice(str(table)).measure({}, seed=0)

    def test_another_table_does_not_go_on_with_a_run(self, folder, table, tmp_path):
        moved = table.with_suffix(".kept")
        shutil.copy(table, moved)
        try:
            _changed(table, lambda facts: facts.profiles.update(extra={}))
            with pytest.raises(InputError, match=r"cannot go on here.*device.table"):
                hwsearch.resume(folder, budget=BUDGET + 1)
        finally:
            shutil.move(moved, table)


class TestCommands:
    def test_kit_says_what_to_do_with_it(self, tmp_path):
        out = tmp_path / "kit.pyz"
        done = call("kit", parts.NET, "--out", out, "--subnets", "8")
        assert done.exit_code == 0
        assert f"{out}: 8 subnets with" in done.stdout
        assert "python kit.pyz --device ort-cpu:threads=4 --out table.json" in done.stdout
        assert read_manifest(out).purpose == "table"

    def test_candidates_are_shown_as_such(self, folder):
        shown = call("front", folder).stdout
        n = len(Run(folder).members)
        assert f"candidates, latency predicted: {n} subnets" in shown
        assert shown.count(" ~") >= n
        assert f"hwsearch confirm {folder} timings.json" in shown
        rows = json.loads(call("front", folder, "--json").stdout)
        assert {row["latency_source"] for row in rows} == {"predicted"}

    def test_confirm_shows_the_front(self, folder, timings):
        done = call("confirm", folder, timings)
        assert done.exit_code == 0
        assert "front: " in done.stdout
        assert "~" not in done.stdout
        assert "front.csv" in call("front", folder).stdout.replace("\n", "")

    def test_a_foreign_file_is_one_line_and_exit_code_2(self, folder, table):
        done = call("confirm", folder, table)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _changed(path, change) -> KitFacts:
    """Change what a file says of its kit, as somebody would who knows how it is sealed."""
    table, facts = read_results(path)
    change(facts)
    sealed(table, facts).save(path)
    return path


def _trials(folder):
    from hwsearch.trial_store import Store

    with Store(folder / "trials.sqlite") as store:
        return store.trials(TrialState.DONE)
