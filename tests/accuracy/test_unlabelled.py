"""Data without labels: images and arrays, one pool for the three splits."""

from pathlib import Path

import numpy as np
import pytest

from hwsearch import load_task
from hwsearch.accuracy.imagefolder import read_imagefolder
from hwsearch.accuracy.metric import TOP1, UNDECIDED
from hwsearch.accuracy.sample_shapes import sample_shapes
from hwsearch.accuracy.task import SplitSizes
from hwsearch.errors import InputError
from hwsearch.supernets.interface import InputSpec, TensorSpec
from tests.accuracy.folders import save, spec_for

CLASSES = ("ant", "bee", "cat")
VECTOR = InputSpec(inputs=(TensorSpec(name="x", shape=(3,)),))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def read(folder, classes=CLASSES, labels="optional"):
    return read_imagefolder(folder, classes, labels=labels)


def labels_of(splits):
    return {int(label) for files in splits.values() for label in files.labels}


class TestImages:
    def test_lie_in_the_folder(self, tmp_path):
        for i in range(30):
            touch(tmp_path / f"{i}.jpg")
        splits, warnings = read(tmp_path)
        assert warnings == ()
        assert {split: len(files.paths) for split, files in splits.items()} == {
            "calibration": 10,
            "search": 10,
            "report": 10,
        }
        drawn = [path for files in splits.values() for path in files.paths]
        assert len(set(drawn)) == 30
        assert labels_of(splits) == {-1}
        assert read(tmp_path)[0]["search"].paths == splits["search"].paths
        with pytest.raises(InputError, match="holds 0 images; expected PATH/CLASS/IMAGE"):
            read(tmp_path, labels="needed")

    def test_lie_in_folders_that_mean_nothing(self, tmp_path):
        for year in ("beach", "party"):
            for i in range(6):
                touch(tmp_path / "photos" / year / "more" / f"{i}.jpg")
        splits, (warning,) = read(tmp_path)
        assert labels_of(splits) == {-1}
        assert sum(len(files.paths) for files in splits.values()) == 12
        assert "neither as many as the model's 3 classes nor named like them" in warning
        assert "list the folders' names in the order of the outputs in" in warning
        assert read(tmp_path, classes=())[1] == ()

    @pytest.mark.parametrize("names", [CLASSES, ("x", "y", "z"), ("ant",), ("0", "2")])
    def test_have_the_classes_that_their_folders_say(self, names, tmp_path):
        for name in names:
            for i in range(6):
                touch(tmp_path / name / f"{i}.jpg")
        classes = ("0", "1", "2") if names[0] == "0" else CLASSES
        optional, needed = (read(tmp_path, classes, labels) for labels in ("optional", "needed"))
        for split, files in needed[0].items():
            assert optional[0][split].paths == files.paths
            np.testing.assert_array_equal(optional[0][split].labels, files.labels)
        assert optional[1] == needed[1]

    def test_have_classes_where_there_are_as_many_folders(self, tmp_path, monkeypatch):
        for name in ("one", "two", "three"):
            for i in range(10):
                touch(tmp_path / "photos" / name / f"{i}.jpg")
        monkeypatch.chdir(tmp_path)
        for folder in (tmp_path / "photos", Path("photos")):
            splits, _ = read(folder)
            assert labels_of(splits) == {0, 1, 2}, folder

    def test_are_split_as_before_with_train_and_val(self, tmp_path):
        for part in ("train", "val"):
            for name in CLASSES:
                for i in range(6):
                    touch(tmp_path / part / name / f"{i}.jpg")
        assert str(read(tmp_path)) == str(read(tmp_path, labels="needed"))

    def test_with_a_label_file_or_listed_classes_have_labels(self, tmp_path):
        for i in range(6):
            touch(tmp_path / f"{i}.jpg")
        (tmp_path / "labels.txt").write_text("".join(f"{i}.jpg {i % 3}\n" for i in range(6)))
        assert labels_of(read(tmp_path)[0]) == {0, 1, 2}
        for name in ("k", "l"):
            for i in range(6):
                touch(tmp_path / "listed" / name / f"{i}.jpg")
        (tmp_path / "listed" / "classes.txt").write_text("l\nk\n")
        assert labels_of(read(tmp_path / "listed")[0]) == {0, 1}

    def test_names_of_which_some_are_classes(self, tmp_path):
        for name in ("ant", "holiday"):
            for i in range(6):
                touch(tmp_path / name / f"{i}.jpg")
        with pytest.raises(InputError, match=r"1 of 2 class names .*'holiday'.* need no labels"):
            read(tmp_path)
        splits, (warning,) = read(tmp_path, labels="unneeded")
        assert labels_of(splits) == {-1}
        assert warning.startswith("labels are left out: ")

    def test_too_few(self, tmp_path):
        touch(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"holds 1 images; at least 3 are needed"):
            read(tmp_path)

    def test_as_a_task(self, tmp_path):
        for i in range(9):
            save(tmp_path / f"{i}.png", (i, i, i))
        task = load_task(f"imagefolder:{tmp_path}", spec_for(8), "any", labels="optional")
        assert task.metric is UNDECIDED
        assert not task.labelled
        fed, targets = next(task.search.batches(2))
        assert fed["image"].shape == (2, 3, 8, 8)
        assert targets.tolist() == [-1, -1]
        with pytest.raises(InputError, match="expected PATH/CLASS/IMAGE"):
            load_task(f"imagefolder:{tmp_path}", spec_for(8), "any")


def test_a_third_calibrates_until_there_are_enough():
    sizes = SplitSizes(calibration=500, search=2000, report=2000)
    assert sizes.in_thirds(9) == (3, 3, 3)
    assert sizes.in_thirds(1499) == (499, 500, 500)
    assert sizes.in_thirds(3000) == (500, 1250, 1250)
    assert sizes.in_thirds(99999) == sizes


@pytest.fixture
def write(tmp_path):
    def save_arrays(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return f"npz:{path}"

    return save_arrays


def load(spec, labels="optional", input_spec=VECTOR):
    return load_task(spec, input_spec, "any", labels=labels)


class TestArrays:
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)

    def test_of_splits_without_targets(self, write):
        parts = {f"{split}.x": self.x for split in ("calibration", "search", "report")}
        task = load(write(**parts))
        assert task.metric is UNDECIDED
        assert (task.search.targets == -1).all()
        with pytest.raises(InputError, match="split calibration: no array target; it has x"):
            load(write(**parts), labels="needed")

    def test_of_the_only_input_under_another_name(self, write):
        names = {"calibration": "a", "search": "picture", "report": "x"}
        task = load(write(**{f"{split}.{name}": self.x for split, name in names.items()}))
        np.testing.assert_array_equal(next(task.search.batches(30))[0]["x"], self.x)

    def test_targets_are_not_needed_for_calibration(self, write):
        parts = {f"{split}.x": self.x for split in ("calibration", "search", "report")}
        parts |= {f"{split}.target": np.arange(30) % 2 for split in ("search", "report")}
        task = load(write(**parts))
        assert task.metric is TOP1
        assert task.labelled
        with pytest.raises(InputError, match="split report: no array target"):
            load(write(**{name: a for name, a in parts.items() if name != "report.target"}))

    @pytest.mark.parametrize("name", ["x", "arr_0", "images"])
    def test_of_one_pool(self, write, name):
        task = load(write(**{name: self.x}))
        rows = [each.inputs["x"] for each in (task.calibration, task.search, task.report)]
        assert [len(each) for each in rows] == [10, 10, 10]
        drawn = np.concatenate(rows)
        assert len(np.unique(drawn, axis=0)) == 30
        again = load(write(**{name: self.x}))
        assert again.search.digest == task.search.digest

    def test_of_one_pool_with_targets(self, write):
        task = load(write(x=self.x, target=np.arange(30) // 10), labels="needed")
        for split in (task.calibration, task.search, task.report):
            assert set(split.targets) == {0, 1, 2}
            np.testing.assert_array_equal(
                split.inputs["x"][0], self.x[10 * split.targets[0] :][:10][self.row(split)]
            )

    def row(self, split):
        (found,) = np.flatnonzero((self.x == split.inputs["x"][0]).all(axis=1))
        return found % 10

    def test_of_other_lengths_and_too_few(self, write):
        with pytest.raises(InputError, match=r"arrays of different lengths: .*'x': 30.*: 4"):
            load(write(x=self.x, target=np.arange(4)))
        with pytest.raises(InputError, match="2 samples; at least 3 are needed"):
            load(write(x=self.x[:2]))

    def test_of_unknown_names(self, write):
        with pytest.raises(InputError, match=r"arrays a, b belong to no split; .* INPUT is x"):
            load(write(a=self.x, b=self.x))

    def test_targets_that_are_no_classes(self, write):
        spec = write(x=self.x, target=np.linspace(0, 1, 30))
        with pytest.raises(InputError, match="target is float64, not whole numbers"):
            load(spec)
        task = load(spec, labels="unneeded")
        assert not task.labelled
        assert task.warnings[0].startswith("labels are left out: ")


class TestShapes:
    """Sizes that a model leaves open are those of the data."""

    @staticmethod
    def model(*dims, dtype=1):
        import onnx

        info = onnx.helper.make_tensor_value_info("x", dtype, ["n", *dims])
        out = onnx.helper.make_tensor_value_info("y", dtype, ["n", *dims])
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [info], [out]))

    @pytest.mark.parametrize("name", ["x", "search.x", "arr_0"])
    def test_of_arrays(self, write, name):
        spec = write(**{name: np.zeros((4, 80, 300), np.float32)})
        assert sample_shapes(spec, self.model(80, "time")) == {"x": (80, 300)}
        assert sample_shapes(spec, self.model(80, 300)) == {}

    def test_of_pixels(self, write):
        spec = write(x=np.zeros((4, 40, 50, 3), np.uint8))
        assert sample_shapes(spec, self.model(3, "h", "w")) == {"x": (3, 40, 50)}
        assert sample_shapes(spec, self.model("h", "w", 3)) == {"x": (40, 50, 3)}

    def test_of_data_that_tell_nothing(self, tmp_path):
        model = self.model(3, "h", "w")
        (tmp_path / "no.npz").write_text("none")
        for spec in (
            "none",
            "bundled",
            f"imagefolder:{tmp_path}",
            f"npz:{tmp_path}/no.npz",
            "a:b",
        ):
            assert sample_shapes(spec, model) == {}
