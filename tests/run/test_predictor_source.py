"""An accuracy predictor as the prior of a search with data."""

import shutil
import tomllib

import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.run.setup import Setup
from hwsearch.run.value_sources.installed import digest_of
from hwsearch.space import Choice, SearchSpace
from tests.run.warm_start_parts import save_predictor, search, use, whole_rounds

pytestmark = pytest.mark.usefixtures("quick_infer")
NAME = parts.network().card.name


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A predictor of the miniature, and the digest of the weights that it was fitted to."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, parts.InProcess())
        patch.setattr("hwsearch.run.finish.run_infer", lambda folder: "scripted\n")
        run, _ = search(folder / "run", budget=20, tactic="random")
    weights = run.recorded["weights"][:16]
    save_predictor(folder / "top1", run, {"weights": weights, "checkpoint": "the first"})
    return folder / "top1"


@pytest.fixture
def path(fitted, tmp_path, monkeypatch):
    """The same among the user's own."""
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    return shutil.copytree(fitted, tmp_path / "home" / "predictors" / NAME / "top1")


@pytest.fixture
def device(monkeypatch):
    return use(monkeypatch, parts.InProcess())


def recorded(run):
    return tomllib.loads((run.folder / "config.toml").read_text())["recorded"]["predictor"]


def approximated(monkeypatch):
    """Which objectives have an approximation, once a search has begun."""
    found, optimizer = [], Setup.optimizer

    def watching(setup):
        found[:] = [o.name for o in setup.objectives if o.approximation is not None]
        return optimizer(setup)

    monkeypatch.setattr(Setup, "optimizer", watching)
    return found


def test_is_used_by_default_and_all_is_measured(path, device, monkeypatch, tmp_path):
    names = approximated(monkeypatch)
    run, notes = search(tmp_path / "run", budget=12)
    assert names == ["top1"]
    assert f"top1 is predicted by {NAME}/top1 to choose, and then measured" in notes
    assert recorded(run) == {"name": f"{NAME}/top1", "digest": digest_of(path)}
    assert run.confirmed
    assert "top1_source" not in run.front
    assert len([m for m in run.measurements() if m.quantity == "top1"]) >= 12


def test_can_be_done_without(path, device, monkeypatch, tmp_path):
    names = approximated(monkeypatch)
    run, notes = search(tmp_path / "run", budget=4, prior="off")
    assert names == []
    assert recorded(run) == {}
    assert not any("predicted" in note for note in notes)
    assert tomllib.loads((run.folder / "config.toml").read_text())["search"]["prior"] == "off"


def test_an_unknown_prior_is_refused(device, tmp_path):
    with pytest.raises(
        InputError, match=r"unknown prior 'of'; known: on, off\. Did you mean 'off'"
    ):
        search(tmp_path / "run", prior="of")


def test_serves_no_search_without_the_metric(path, device, monkeypatch, tmp_path):
    run, _ = search(tmp_path / "run", budget=4, objectives=["latency", "macs"])
    assert recorded(run) == {}


def test_other_weights_are_said(path, device, monkeypatch, tmp_path):
    names = approximated(monkeypatch)
    _, notes = search(tmp_path / "run", budget=4, checkpoint="1")
    assert names == ["top1"]
    (note,) = [note for note in notes if "to choose, and then measured" in note]
    assert "it was fitted to the first, and the weights here are" in note


def test_serves_a_part_of_its_space(path, device, tmp_path):
    run, _ = search(tmp_path / "run", budget=4, freeze=["stage1.depth=max"])
    assert recorded(run)["digest"] == digest_of(path)


def test_one_of_another_space_is_left_out_and_said(path, device, tmp_path):
    space = SearchSpace([Choice("width", (1, 2))])
    archs = space.enumerate(2)
    Predictor(space, "linear").fit(archs, [1.0, 2.0]).save(path)
    run, notes = search(tmp_path / "run", budget=4)
    (note,) = [note for note in notes if note.startswith("accuracy is predicted from measured")]
    assert "of another search space" in note
    assert recorded(run) == {}


class TestResumed:
    def test_proposes_what_the_unbroken_one_does(self, path, device, tmp_path):
        whole, _ = search(tmp_path / "whole", budget=18)
        search(tmp_path / "run", budget=whole_rounds(whole))
        resumed = hwsearch.resume(tmp_path / "run", budget=18)
        assert resumed.trials["key"].tolist() == whole.trials["key"].tolist()

    def test_needs_the_same_predictor(self, path, device, tmp_path):
        search(tmp_path / "run", budget=4)
        kept = shutil.copytree(path, tmp_path / "kept")
        card = path / "card.json"
        card.write_text(card.read_text().replace("the first", "the second"))
        for change in (lambda: None, lambda: shutil.rmtree(path)):
            change()
            with pytest.raises(
                InputError, match=r"chooses by accuracy predictor .* gone or was changed.*start a"
            ):
                hwsearch.resume(tmp_path / "run", budget=6)
        shutil.copytree(kept, path)
        assert len(hwsearch.resume(tmp_path / "run", budget=6).trials) == 6

    def test_one_that_came_since_changes_nothing(self, fitted, device, monkeypatch, tmp_path):
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
        search(tmp_path / "run", budget=4)
        shutil.copytree(fitted, tmp_path / "home" / "predictors" / NAME / "top1")
        watcher = parts.Watcher()
        hwsearch.resume(tmp_path / "run", budget=6, progress=watcher)
        assert not any("is predicted by" in note for note in watcher.notes)


def test_one_that_no_accuracy_is_a_multiple_of_is_given_up(path, device, tmp_path):
    space = parts.network().space
    archs = space.enumerate(100)
    Predictor(space, "linear").fit(archs, -1.0 - archs.indices.sum(axis=1)).save(path)
    run, notes = search(tmp_path / "run", budget=12)
    (note,) = [each for each in notes if each.startswith("top1 is predicted from measured values")]
    assert "is no positive number" in note
    assert run.confirmed
