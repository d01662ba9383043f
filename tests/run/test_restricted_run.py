"""Runs over a part of a space, with random weights, with warnings; and how a run begins."""

import json
import tomllib
from dataclasses import replace

import pandas as pd
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.errors import InputError
from hwsearch.run.config import read_config
from hwsearch.space import Choice, SearchSpace
from hwsearch.supernets.supernet import Supernet
from tests.cli.commands import call

pytestmark = pytest.mark.usefixtures("quick_infer", "device")
RULES = {"freeze": ["stage1.*=max"], "only": ["stage2.width in 16"]}
SMALL = {**parts.SETTINGS, "budget": 4, "tactic": "random"}


def search(out, **settings):
    return hwsearch.search(**{**SMALL, **settings}, out=out)


class TestRules:
    def check(self, run):
        trials = run.trials
        assert (trials["stage1.width"] == 8).all()
        assert (trials["stage1.depth"] == 1).all()
        assert (trials["stage2.width"] == 16).all()
        assert trials["stage2.depth"].nunique() > 1
        assert (run.front["stage2.width"] == 16).all()

    def test_hold_and_are_recorded_and_hold_again(self, tmp_path):
        run = search(tmp_path / "run", **RULES)
        assert read_config(run.folder)[0] == run.config
        assert run.config.freeze == ("stage1.*=max",)
        content = tomllib.loads((run.folder / "config.toml").read_text())
        assert content["search"]["only"] == ["stage2.width in 16"]
        self.check(run)
        longer = hwsearch.resume(run.folder, budget=6)
        assert len(longer.trials) == 6
        self.check(longer)
        direct = search(tmp_path / "direct", **RULES, budget=6)
        pd.testing.assert_frame_equal(longer.front, direct.front)

    def test_until_nothing_is_left(self, tmp_path):
        watcher = parts.Watcher()
        everything = search(
            tmp_path / "run", **RULES, budget=50, tactic="hwsearch", progress=watcher
        )
        assert len(everything.trials) == 6
        assert watcher.notes[-1] == "the search space is exhausted after 6 architectures"
        one = search(tmp_path / "one", freeze="*=min", tactic="nsga2")
        assert len(one.trials) == len(one.front) == 1

    def test_of_a_supernet_that_is_restricted_already(self, tmp_path):
        net = Supernet(parts.NET, parts.network()).restrict(freeze=["stage1.*=max"])
        run = search(tmp_path / "run", net=net, only="stage2.width in 16")
        assert run.config.freeze == ("stage1.*=max",)
        assert run.config.only == ("stage2.width in 16",)
        self.check(run)
        assert len(hwsearch.resume(run.folder, budget=5).trials) == 5
        unruled = Supernet(parts.NET, parts.network())
        self.check(hwsearch.resume(run.folder, budget=6, net=unruled))

    def test_other_rules_make_another_search(self, tmp_path):
        run = search(tmp_path / "run", **RULES)
        path = run.folder / "config.toml"
        path.write_text(path.read_text().replace("stage2.width in 16", "stage2.width in 8"))
        with pytest.raises(InputError, match="space was"):
            hwsearch.resume(run.folder)

    def test_one_that_cannot_be_used_leaves_nothing(self, tmp_path):
        with pytest.raises(InputError, match=r"'stage7.\*=max'"):
            search(tmp_path / "run", freeze=["stage7.*=max"])
        assert list(tmp_path.iterdir()) == []


def printed(run):
    return call("front", run.folder).stdout


WRITE = "hwsearch.report.write.write_own_report"


class TestRandomWeights:
    @pytest.fixture
    def titles(self, monkeypatch):
        titles = []
        monkeypatch.setattr(WRITE, lambda run, _: titles.append(run.title))
        return titles

    @pytest.fixture(autouse=True)
    def _seeded(self, monkeypatch):
        made = parts.task(parts.network().input_spec(None))
        monkeypatch.setattr(parts, "task", lambda spec: made)
        network = parts.network
        number = lambda c: c and c.removeprefix("random:")  # noqa: E731
        monkeypatch.setattr(parts, "network", lambda c=None: network(number(c)))

    def test_are_told_wherever_an_accuracy_is(self, tmp_path, titles):
        watcher = parts.Watcher()
        run = search(tmp_path / "run", checkpoint="random:2", progress=watcher)
        said = "weights are random:2: accuracies mean nothing; latency, MACs and export do not"
        assert watcher.notes[0].startswith(said)
        assert run.recorded["warnings"][0].startswith(said)
        assert run.untrained
        assert "random weights (random:2)" in repr(run)
        assert set(run.front["weights"]) == {"random:2"}
        assert titles == [f"{parts.NET} on scripted, random weights (random:2)"]
        assert said in printed(run)
        for row in run.front.to_dict("records"):
            card = json.loads((run.folder / row["subnet"] / "card.json").read_text())
            assert card["supernet"]["checkpoint"] == "random:2"
            assert card["supernet"]["untrained"] is True
        assert len(watcher.notes) == 3

    def test_trained_ones_are_named_by_their_digest(self, tmp_path, titles):
        watcher = parts.Watcher()
        run = search(tmp_path / "run", checkpoint="2", progress=watcher)
        assert set(run.front["weights"]) == {parts.network("2").digest[:16]}
        assert titles == [f"{parts.NET} on scripted"]
        assert (run.untrained, run.recorded["warnings"]) == (False, [parts.FEW])
        assert "random" not in repr(run) + "".join(watcher.notes) + printed(run)
        (card, *_) = run.folder.glob("subnets/*/card.json")
        assert json.loads(card.read_text())["supernet"]["untrained"] is False

    def test_a_digest_of_digits_stays_text(self, tmp_path, titles):
        run = search(tmp_path / "run")
        table = pd.read_csv(run.folder / "front.csv", dtype=str)
        table["weights"] = "0000000000000012"
        table.to_csv(run.folder / "front.csv", index=False)
        assert set(run.front["weights"]) == {"0000000000000012"}


def test_warnings_of_the_data_are_told_and_kept(tmp_path, monkeypatch):
    made = parts.task(parts.network().input_spec(None))
    warned = replace(made, warnings=("only 7 of 10 classes have images",))
    monkeypatch.setattr(parts, "task", lambda spec: warned)
    watcher = parts.Watcher()
    run = search(tmp_path / "run", progress=watcher)
    assert watcher.notes[0] == "only 7 of 10 classes have images"
    assert run.recorded["warnings"] == ["only 7 of 10 classes have images", parts.FEW]
    assert "only 7 of 10 classes have images" in printed(run)


class TestBeginning:
    def test_settings_alone_are_a_run_that_can_be_gone_on_with(self, tmp_path):
        whole = search(tmp_path / "whole")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.toml").write_bytes((whole.folder / "config.toml").read_bytes())
        run = Run(tmp_path / "run")
        assert (run.finished, len(run.trials), list(run.trials)[1]) == (False, 0, "key")
        with pytest.raises(InputError, match=r"holds another run.*hwsearch resume"):
            search(tmp_path / "run")
        pd.testing.assert_frame_equal(hwsearch.resume(run.folder).front, whole.front)

    def test_settings_that_were_not_written_to_their_end_are_nobodys(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".config.toml.x1y2").write_text("[sear")
        assert search(tmp_path / "run").finished

    @pytest.mark.parametrize("left", ["front.csv", "subnets"])
    def test_without_its_trials_a_run_that_had_some_is_damaged(self, tmp_path, left):
        run = search(tmp_path / "run")
        run.folder.joinpath("trials.sqlite").unlink()
        if left == "subnets":
            run.folder.joinpath("front.csv").unlink()
        for open_ in (Run, hwsearch.resume):
            with pytest.raises(InputError, match=r"is damaged: it has subnets, but no trials"):
                open_(run.folder)
        assert not (run.folder / "trials.sqlite").exists()


@pytest.mark.parametrize(
    "name", ["key", "top1", "top1_report_low", "latency", "macs", "weights", "rounds", "state"]
)
def test_a_choice_that_would_hide_a_column_is_refused(tmp_path, monkeypatch, name):
    network = parts.network()
    made = parts.task(network.input_spec(None))
    network.space = SearchSpace([*network.space.choices, Choice(name, (1, 2))])
    monkeypatch.setattr(parts, "network", lambda checkpoint=None: network)
    monkeypatch.setattr(parts, "task", lambda spec: made)
    with pytest.raises(InputError, match=f"choice '{name}' of .* the name of a column"):
        search(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
