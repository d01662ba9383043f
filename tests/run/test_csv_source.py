"""A CSV of accuracies: what it may look like, and that it chooses and is no number of a front."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.errors import InputError
from hwsearch.optimizer.approximations import ScaledApproximation
from hwsearch.optimizer.history import N_INITIAL
from hwsearch.prediction import Predictor
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.run.value_sources.warm_starts import read_csv
from tests.run.warm_start_parts import files, search, use, whole_rounds

pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture
def device(monkeypatch):
    return use(monkeypatch, parts.InProcess())


@pytest.fixture
def setup(device):
    return prepare(RunConfig(supernet=parts.NET, data=parts.TASK))


@pytest.fixture(scope="module")
def space():
    return parts.network().space


def write(path, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(space, n=30, **more):
    archs = space.sample_distinct(n, 0)
    return [
        {**arch.mapping, "top1": 50 + size, **more}
        for arch, size in zip(archs, archs.indices.sum(axis=1).tolist(), strict=True)
    ]


class TestRead:
    def test_architectures_and_values(self, setup, space, tmp_path):
        rows = rows_of(space)
        evidence = read_csv(setup, write(tmp_path / "known.csv", rows))
        assert evidence.archs == space.sample_distinct(30, 0)
        assert evidence.values.tolist() == [row["top1"] for row in rows]
        assert "outside" not in evidence.note
        assert evidence.interval(evidence.archs)[0] == pytest.approx(evidence.values, abs=1.0)

    def test_the_table_of_a_run_as_pandas_writes_it(self, setup, tmp_path):
        """Choices that are inactive in places come as 2.0, and rows are numbered."""
        run, _ = search(tmp_path / "first", budget=8)
        run.trials.to_csv(tmp_path / "trials.csv")
        evidence = read_csv(setup, tmp_path / "trials.csv")
        assert evidence.archs.ids == run.trials["key"].tolist()
        assert evidence.values.tolist() == run.trials["top1"].tolist()
        front = read_csv(setup, run.folder / "front.csv")
        assert front.archs.ids == run.front["key"].tolist()

    def test_rows_of_one_architecture_are_averaged_and_empty_ones_left_out(
        self, setup, space, tmp_path
    ):
        one, two, *_ = rows_of(space)
        rows = [one, two, {**one, "top1": one["top1"] + 1}, {**two, "top1": ""}]
        evidence = read_csv(setup, write(tmp_path / "known.csv", rows))
        assert evidence.values.tolist() == [one["top1"] + 0.5, two["top1"]]

    def test_its_model_is_a_multiple_of_what_is_known_where_it_can_be_one(
        self, setup, space, tmp_path
    ):
        known = setup.with_objective(
            "top1", approximation=lambda archs: archs.indices.sum(axis=1) + 50.0
        )
        rows = rows_of(space)
        losses = [{**row, "top1": -row["top1"]} for row in rows]
        for given, kind in ((rows, ScaledApproximation), (losses, Predictor)):
            path = write(tmp_path / "known.csv", given)
            source = read_csv(known, path)
            assert isinstance(source.model, kind)
            assert source(source.archs) == pytest.approx(source.values, abs=1.0)
        few = read_csv(setup, write(tmp_path / "few.csv", rows[:7]))
        assert few.model is None
        assert len(few.archs) == 7

    def test_its_own_copy_says_the_same(self, setup, space, tmp_path):
        evidence = read_csv(setup, write(tmp_path / "known.csv", rows_of(space)))
        evidence.copy_to(tmp_path)
        again = read_csv(setup, tmp_path / "evidence.csv")
        assert again.archs == evidence.archs
        assert np.array_equal(again.values, evidence.values)
        assert again.recorded["digest"] == evidence.recorded["digest"]

    def test_what_lies_outside_of_the_search_is_left_out(self, device, space, tmp_path):
        config = RunConfig(supernet=parts.NET, data=parts.TASK, only=("stage1.width in 4",))
        rows = rows_of(space)
        evidence = read_csv(prepare(config), write(tmp_path / "known.csv", rows))
        assert len(evidence.archs) == sum(row["stage1.width"] == 4 for row in rows)
        n = len(rows) - len(evidence.archs)
        assert f"({n} more lie outside of what is searched)" in evidence.note
        wide = [row for row in rows if row["stage1.width"] == 8]
        with pytest.raises(InputError, match="none of them in the part of the space"):
            read_csv(prepare(config), write(tmp_path / "wide.csv", wide))

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (
                {"stage2.width": 24},
                "row 1 is of another search space: choice 'stage2.width' is '24'",
            ),
            (
                {"stage2.width": "wide"},
                "choice 'stage2.width' is 'wide' there, and has the options 8",
            ),
            ({"stage2.width": ""}, "choice 'stage2.width' is not given, but active"),
            ({"act": "relu"}, "of another search space: 'act' is no choice of this one"),
            ({"top1": "good"}, "row 1: top1 is 'good'; give a finite number, or leave it empty"),
            ({"top1": "nan"}, "top1 is 'nan'; give a finite number"),
        ],
    )
    def test_another_space_or_no_number_is_refused(self, change, text, setup, space, tmp_path):
        first, *rest = rows_of(space)
        path = write(tmp_path / "known.csv", [{**first, **change}, *rest])
        with pytest.raises(InputError, match=text):
            read_csv(setup, path)

    def test_another_metric_is_refused(self, setup, space, tmp_path):
        rows = [{"accuracy": row.pop("top1"), **row} for row in rows_of(space)]
        with pytest.raises(InputError, match=r"has no column 'top1', which .*accuracy"):
            read_csv(setup, write(tmp_path / "known.csv", rows))

    @pytest.mark.parametrize(
        ("content", "text"), [(b"", "holds no rows"), (b"a,b\n", "no rows"), (b"\xff\n1", "read")]
    )
    def test_what_is_no_table_is_refused(self, content, text, setup, tmp_path):
        (tmp_path / "known.csv").write_bytes(content)
        with pytest.raises(InputError, match=text):
            read_csv(setup, tmp_path / "known.csv")


class TestSearch:
    @pytest.fixture
    def known(self, space, tmp_path):
        return write(tmp_path / "known.csv", rows_of(space))

    def test_evidence_is_no_number_of_the_run(self, known, device, tmp_path):
        run, notes = search(tmp_path / "run", warm_start=known, budget=12)
        assert f"top1 of 30 architectures from {known} is evidence: it is predicted from" in str(
            notes
        )
        assert len(run.trials) == 12
        assert set(run.trials["origin"]) == {"hwsearch"}
        assert not [m for m in run.measurements() if "reused" in m.details]
        plain, _ = search(tmp_path / "plain", budget=12)
        mine = run.trials.set_index("key")["top1"]
        theirs = plain.trials.set_index("key")["top1"]
        for key in set(mine.index) & set(theirs.index):
            assert mine[key] == theirs[key]

    def test_it_chooses(self, space, device, tmp_path):
        """A table that praises stage1.width=4 draws the search there, one that blames it away."""
        found = {}
        for sign in (1, -1):
            rows = [
                {**arch.mapping, "top1": 70 + sign * (20 if arch["stage1.width"] == 4 else -20)}
                for arch in space.sample_distinct(40, 1)
            ]
            path = write(tmp_path / f"{sign}.csv", rows)
            run, _ = search(tmp_path / f"run{sign}", warm_start=path, budget=16)
            found[sign] = run.trials["key"].tolist()
        assert found[1][:N_INITIAL] == found[-1][:N_INITIAL]
        assert found[1] != found[-1]

    def test_a_resume_needs_no_csv(self, known, device, tmp_path):
        whole, _ = search(tmp_path / "whole", warm_start=known, budget=18)
        search(tmp_path / "run", warm_start=known, budget=whole_rounds(whole))
        known.unlink()
        resumed = hwsearch.resume(tmp_path / "run", budget=18)
        pd.testing.assert_frame_equal(resumed.trials, whole.trials)

    def test_killed_before_it_had_its_copy(self, known, device, monkeypatch, tmp_path):
        def stopping(self, folder):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("hwsearch.run.value_sources.base.ValueSource.copy_to", stopping)
            with pytest.raises(KeyboardInterrupt):
                search(tmp_path / "run", warm_start=known, budget=4)
        shutil.copytree(tmp_path / "run", tmp_path / "other")
        assert hwsearch.resume(tmp_path / "run").finished
        known.write_text(known.read_text().replace("5", "6"))
        before = files(tmp_path / "other")
        with pytest.raises(InputError):
            hwsearch.resume(tmp_path / "other")
        assert files(tmp_path / "other") == before

    def test_a_bad_one_leaves_nothing_behind(self, device, tmp_path):
        (tmp_path / "known.csv").write_text("top1\n")
        with pytest.raises(InputError, match="holds no rows"):
            search(tmp_path / "run", warm_start=tmp_path / "known.csv")
        assert not (tmp_path / "run").exists()
