"""Probabilities of a run's members, from what its store holds."""

import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.devices import Latency
from hwsearch.errors import InputError
from hwsearch.evaluation.measurements import LATENCY, RATIO
from hwsearch.run.front_probability import constraint_probabilities
from hwsearch.run.summarize import replay_optimizer, summarize_search
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement
from tests.run.test_bootstrap import noisy

pytestmark = pytest.mark.usefixtures("quick_infer")


class Noisy(parts.InProcess):
    """Rounds that differ by a few percent, and by an anchor that all models share."""

    def measure(self, models, *, seed, settings=None, progress=None):
        found = super().measure(models, seed=seed, settings=settings, progress=progress)
        timed = [name for name, got in found.items() if isinstance(got, Latency)]
        rounds = noisy(np.random.default_rng(seed), np.ones(len(timed)), 0.03, n_rounds=24)
        for name, ratios in zip(timed, rounds.T, strict=True):
            ratios = found[name].latency_ms * ratios / np.median(ratios)
            low, high = np.quantile(ratios, [0.0, 1.0])
            found[name] = replace(
                found[name], ratios=ratios, rounds=24, ratio_low=low, ratio_high=high
            )
        return found


def search(folder, **settings):
    return hwsearch.search(**{**parts.SETTINGS, "budget": 20, **settings}, out=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return parts.finished_search(tmp_path_factory.mktemp("runs") / "run", Noisy(), budget=20)


@pytest.fixture
def old(finished, tmp_path):
    """The same run as the first version would have left it: without ratios."""
    shutil.copytree(finished.folder, tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "trials.sqlite") as connection:
        connection.execute("DELETE FROM measurements WHERE quantity = ?", (RATIO,))
    connection.close()
    return Run(tmp_path / "run")


def of(run, text, members=None):
    """Probabilities to keep a bound, by key."""
    members = run.members if members is None else members
    constraint = hwsearch.constraints.Constraint.parse(text)
    found = constraint_probabilities(constraint, members, run.measurements(), run.config.seed)
    return dict(zip(members["key"], found, strict=True))


class TestFrontProbabilities:
    def test_are_with_every_member(self, finished):
        members = finished.front
        assert ((members["probability"] > 0.0) & (members["probability"] <= 1.0)).all()
        assert members["probability"].min() < 0.999
        for row in members.to_dict("records"):
            card = json.loads((finished.folder / row["subnet"] / "card.json").read_text())
            (sha,) = card["measurements"]
            assert card["front_probability"] == {sha: row["probability"]}

    def test_count_contenders_that_are_no_members(self, finished):
        """What was confirmed and lost takes its share from those that it nearly beat."""
        confirmed = {m.key for m in finished.measurements() if m.quantity == RATIO}
        assert confirmed > set(finished.front["key"])

    def test_ratios_of_every_round_are_kept_once(self, finished):
        ratios = [m for m in finished.measurements() if m.quantity == RATIO]
        for ratio in ratios:
            assert (ratio.purpose, ratio.count, ratio.cost_s) == ("confirm", 24, 0.0)
            assert (ratio.samples.shape, ratio.samples.dtype) == ((24,), np.float32)
            assert np.median(ratio.samples) == pytest.approx(ratio.value)
        assert not set(finished.trials.columns) & {RATIO}

    def test_the_seed_decides(self, finished, monkeypatch, tmp_path):
        monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: Noisy())
        again = search(tmp_path / "again")
        assert again.front["probability"].tolist() == finished.front["probability"].tolist()

    def test_of_a_device_without_noise_come_from_images(self, device, tmp_path):
        members = search(tmp_path / "run", objectives=["top1", "macs"]).front
        assert members["probability"].between(0.0, 1.0).all()
        assert members["probability"].iloc[0] == 1.0  # nothing is as small


class TestChances:
    def test_are_one_half_at_the_value_itself(self, finished):
        for key, value in finished.front.set_index("key")[LATENCY].items():
            assert of(finished, f"latency <= {value}")[key] == pytest.approx(0.5, abs=0.12)
            assert of(finished, f"latency <= {1.2 * value}")[key] == 1.0

    def test_of_scores_are_those_of_other_images(self, finished):
        row = finished.front.iloc[0]
        for name in ("top1", "top1_report"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert of(finished, f"{name} >= {low}")[row["key"]] == pytest.approx(0.975, abs=0.03)
            assert of(finished, f"{name} > {high}")[row["key"]] == pytest.approx(0.025, abs=0.03)

    def test_of_what_is_computed_are_certain(self, finished):
        macs = finished.front["macs"]
        expected = (macs <= macs.median()).astype(float).tolist()
        assert list(of(finished, f"macs <= {macs.median()}").values()) == expected

    def test_of_a_store_without_ratios_come_from_intervals(self, finished, old):
        key, value = old.front["key"].iloc[0], old.front[LATENCY].iloc[0]
        assert of(old, f"latency <= {value}")[key] == pytest.approx(0.5, abs=0.05)
        assert of(old, f"latency <= {1.5 * value}")[key] > 0.99

    def test_of_predictions_come_from_their_intervals(self, finished):
        members = finished.front.assign(latency_source="predicted")
        ends = members.set_index("key")["latency_high"]
        assert of(finished, f"latency <= {ends.iloc[0]}", members)[ends.index[0]] == (
            pytest.approx(0.975, abs=0.03)
        )

    @pytest.mark.parametrize("name", ["p99_ms", "rounds", "probability", "latency_high"])
    def test_what_has_no_interval_is_refused(self, finished, name):
        with pytest.raises(InputError, match=f"{name} has no interval.*top1, top1_report, lat"):
            of(finished, f"{name} <= 1")

    def test_front_of_other_timings_is_refused(self, finished):
        members = finished.front.assign(latency=1e9)
        with pytest.raises(InputError, match="does not hold the latencies that its front states"):
            of(finished, "latency <= 1", members)

    def test_the_job_of_the_front_is_found_among_several(self, old, finished):
        """Contenders may be timed again with others; what the front states tells which."""
        measured = finished.measurements()
        later = [
            Measurement(
                key=m.key,
                quantity=m.quantity,
                context="later",
                purpose="confirm",
                value=2 * m.value,
                count=m.count,
                cost_s=0.0,
                samples=m.samples,
                details=m.details,
            )
            for m in measured
            if m.purpose == "confirm"
        ]
        bound = hwsearch.constraints.Constraint.parse("latency <= 0.5")
        seed = finished.config.seed
        expected = constraint_probabilities(bound, finished.members, measured, seed)
        assert 0 < expected.sum() < len(expected)
        found = constraint_probabilities(bound, finished.members, [*measured, *later], seed)
        assert found.tolist() == expected.tolist()


class TestSelect:
    def test_takes_one_that_is_sure(self, finished):
        members = finished.front
        slowest = members[LATENCY].iloc[-1]
        assert finished.select(f"latency <= {slowest}") == members["key"].tolist()
        assert finished.select(f"latency <= {slowest} @ 95%") == [members["key"].iloc[-2]]
        assert finished.select(f"latency <= {1.3 * slowest} @ 95%") == [members["key"].iloc[-1]]

    def test_the_latency_that_it_fits_is_the_confirmed_one(self, finished):
        best = finished.front.iloc[-1]
        assert finished.select(f"latency <= {best[LATENCY] * 1.001} @ 40%") == [best["key"]]

    def test_other_quantities(self, finished):
        middle = finished.front["top1"].median()
        (key,) = finished.select(f"top1 >= {middle} @ 90%")
        assert key == finished.front["key"].iloc[-1]
        with pytest.raises(InputError, match=r"90% sure to satisfy 'top1 >= 99.5'; the surest is"):
            finished.select("top1 >= 99.5 @ 90%")


class TestAccount:
    """What a run says of its search; the figures themselves are tested in `test_summarize`."""

    def test_is_kept(self, finished):
        summary = finished.summary
        stated = json.loads((finished.folder / "search.json").read_text())
        assert stated["hypervolumes"] == list(summary.hypervolumes)
        assert (summary.evaluated, summary.members) == (20, len(finished.front))
        assert summary.knee["latency"] in finished.front[LATENCY].tolist()
        assert {fit.objective for fit in summary.fits} == {"top1", LATENCY}
        assert summary.gain >= 0.0

    def test_is_recomputed_from_the_run_without_evaluating(self, finished, monkeypatch):
        device = Noisy()
        monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
        setup = finished.setup()
        rows = finished.front.to_dict("records")
        with Store(finished.folder / "trials.sqlite") as store:
            assert (
                summarize_search(replay_optimizer(setup, store), store, setup, rows)
                == finished.summary
            )
        assert not device.timed
        assert not device.is_open

    def test_a_run_of_the_first_version_has_none(self, old):
        (old.folder / "search.json").unlink()
        assert old.summary is None

    def test_a_damaged_one_is_named(self, old):
        (old.folder / "search.json").write_text("{}")
        with pytest.raises(InputError, match=r"search\.json' is damaged or of another version"):
            _ = old.summary
