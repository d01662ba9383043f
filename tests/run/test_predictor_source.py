"""An accuracy predictor as the prior of a search with data."""

import shutil
import tomllib

import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import Setup, prepare
from hwsearch.run.value_sources.registry import digest_of, with_sources
from hwsearch.space import Choice, SearchSpace
from tests.run.warm_start_parts import save_predictor, search, use, whole_rounds

pytestmark = pytest.mark.usefixtures("quick_infer")
NAME = parts.network().card.name


@pytest.fixture(scope="module")
def fitted(first, tmp_path_factory):
    """A predictor of the miniature, and the digest of the weights that it was fitted to."""
    path = tmp_path_factory.mktemp("fitted") / "top1"
    weights = first.recorded["weights"][:16]
    save_predictor(path, first, {"weights": weights, "checkpoint": "the first"})
    return path


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


def offered(**settings):
    """The parts of a new search, with its sources."""
    return with_sources(prepare(RunConfig(supernet=parts.NET, data=parts.TASK, **settings)))


def approximated_in(setup):
    return [o.name for o in setup.objectives if o.approximation is not None]


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


def test_can_be_done_without(path, device):
    setup = offered(prior="off")
    assert approximated_in(setup) == []
    assert setup.recorded()["predictor"] == {}
    assert not any("predicted" in note for note in setup.notes)
    assert setup.config.prior == "off"


def test_an_unknown_prior_is_refused(device, tmp_path):
    with pytest.raises(
        InputError, match=r"unknown prior 'of'; known: on, off\. Did you mean 'off'"
    ):
        search(tmp_path / "run", prior="of")


def test_serves_no_search_without_the_metric(path, device):
    assert offered(objectives=("latency", "macs")).sources == ()


def test_other_weights_are_said(path, device):
    setup = offered(checkpoint="1")
    assert approximated_in(setup) == ["top1"]
    (note,) = setup.notes
    assert "to choose, and then measured" in note
    assert "it was fitted to the first, and the weights here are" in note


def test_predicts_values_with_their_deviations(path, device):
    setup = offered()
    (source,) = setup.sources
    archs = setup.net.space.sample(5, 0)
    mean, deviation = source.model.predict(archs)
    value, low, high = source.interval(archs)
    assert (source(archs) == mean).all()
    assert (value == mean).all()
    assert (deviation > 0).all()
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=1e-3)


def test_serves_a_part_of_its_space(path, device):
    setup = offered(freeze=("stage1.depth=max",))
    assert setup.recorded()["predictor"]["digest"] == digest_of(path)


def test_one_of_another_space_is_left_out_and_said(path, device):
    space = SearchSpace([Choice("width", (1, 2))])
    archs = space.enumerate(2)
    Predictor(space, "linear").fit(archs, [1.0, 2.0]).save(path)
    setup = offered()
    (note,) = setup.notes
    assert note.startswith("accuracy is predicted from measured")
    assert "of another search space" in note
    assert setup.recorded()["predictor"] == {}


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
        assert hwsearch.resume(tmp_path / "run").finished  # it proposes nothing more
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
