"""Which files a folder gives, to which split, under which label; no image is opened."""

import numpy as np
import pytest

from hwsearch.accuracy import folder_layout
from hwsearch.accuracy.folder_layout import Tree
from hwsearch.accuracy.imagefolder import read_imagefolder
from hwsearch.accuracy.task import SplitSizes
from hwsearch.errors import InputError

FEW = SplitSizes(calibration=4, search=8, report=6)
NAMES = ("ant", "bee", "cat")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def folder(tmp_path):
    """Ten images in each of three class folders, one of them deeper."""
    for name in NAMES:
        for i in range(10):
            deeper = "more/" if i == 3 else ""
            touch(tmp_path / name / f"{deeper}{name}{i}.{('JPEG', 'jpg', 'PNG')[i % 3]}")
        (tmp_path / name / "notes.txt").write_text("no image")
        (tmp_path / name / f"._{name}0.JPEG").write_text("what macOS leaves")
    (tmp_path / "README.md").write_text("no class")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def read(folder, classes=NAMES, sizes=FEW):
    splits, warnings = read_imagefolder(folder, classes, sizes)
    assert warnings == ()
    return splits


def labels_by_name(splits):
    """Leading letters of a file's name -> its label; they have to be one for each."""
    found = {}
    for files in splits.values():
        for path, label in zip(files.paths, files.labels, strict=True):
            assert found.setdefault(path.split("/")[-1][:3], int(label)) == label
    return found


def test_splits_of_a_folder(folder):
    splits = read(folder)
    sizes = {name: len(files.paths) for name, files in splits.items()}
    assert sizes == {"calibration": 4, "search": 8, "report": 6}
    assert list(splits) == ["calibration", "search", "report"]
    assert labels_by_name(splits) == {"ant": 0, "bee": 1, "cat": 2}
    assert set(splits["search"].labels) == {0, 1, 2}
    drawn = [path for files in splits.values() for path in files.paths]
    assert len(set(drawn)) == len(drawn) == 18


def test_all_images_and_nothing_else(folder):
    splits = read(folder, sizes=SplitSizes(calibration=5, search=15, report=10))
    drawn = sorted(path for files in splits.values() for path in files.paths)
    images = {".JPEG", ".jpg", ".PNG"}
    assert drawn == sorted(
        str(path)
        for path in folder.rglob("*")
        if path.suffix in images and not path.name.startswith(".")
    )
    assert len(drawn) == 30


def test_same_files_every_time(folder):
    first, again = read(folder), read(folder)
    assert all(first[split].paths == again[split].paths for split in first)


def test_other_sizes_search_by_the_same_images(folder):
    other = read(folder, sizes=SplitSizes(calibration=2, search=8, report=10))
    assert read(folder)["search"].paths == other["search"].paths


def test_sizes_are_those_of_the_paper_and_shrink_in_proportion(folder):
    splits, _ = read_imagefolder(folder, NAMES)
    sizes = [len(splits[split].paths) for split in ("calibration", "search", "report")]
    assert sizes == [30 * 2000 // 7000, 30 * 2500 // 7000, 12]


@pytest.mark.parametrize("n", [3, 7])
def test_a_handful_of_images_is_enough(n, tmp_path):
    for i in range(n):
        touch(tmp_path / "only" / f"{i}.png")
    splits = read(tmp_path, classes=())
    drawn = [path for files in splits.values() for path in files.paths]
    assert len(drawn) == len(set(drawn)) == n
    assert all(files.paths for files in splits.values())


class TestTrainAndVal:
    @pytest.fixture
    def layout(self, tmp_path):
        for name in NAMES:
            for i in range(6):
                touch(tmp_path / "train" / name / f"{name}_train_{i}.JPEG")
        for name in NAMES[1:]:
            for i in range(4):
                touch(tmp_path / "val" / name / f"{name}_val_{i}.JPEG")
        touch(tmp_path / "test" / "unlabelled.JPEG")
        return tmp_path

    def test_calibration_is_drawn_from_train_and_the_rest_from_val(self, layout):
        splits = read(layout, sizes=SplitSizes(calibration=5, search=4, report=3))
        sizes = {name: len(files.paths) for name, files in splits.items()}
        assert sizes == {"calibration": 5, "search": 4, "report": 3}
        assert all("_train_" in path for path in splits["calibration"].paths)
        assert all("_val_" in path for path in splits["search"].paths + splits["report"].paths)
        assert not set(splits["search"].paths) & set(splits["report"].paths)

    def test_both_know_the_same_classes(self, layout):
        """A class that is in train only counts too, or the others would move up."""
        splits = read(layout, classes=())
        assert labels_by_name(splits) == {"ant": 0, "bee": 1, "cat": 2}

    def test_each_shrinks_for_itself(self, layout):
        splits, _ = read_imagefolder(layout, NAMES)
        assert [len(files.paths) for files in splits.values()] == [18, 4, 4]

    def test_classes_txt_lies_beside_them(self, layout):
        (layout / "classes.txt").write_text("cat\nbee\nant\n")
        splits = read(layout, classes=("0", "1", "2"))
        assert labels_by_name(splits) == {"ant": 2, "bee": 1, "cat": 0}

    @pytest.mark.parametrize(("part", "least"), [("train", 1), ("val", 2)])
    def test_images_without_class_folders(self, part, least, layout):
        for folder in (layout / part).iterdir():
            for image in folder.iterdir():
                image.rename(layout / part / image.name)
            folder.rmdir()
        with pytest.raises(InputError, match=rf"/{part}' holds 0 images; .*labels.txt") as caught:
            read(layout)
        assert f"at least {least} images" in str(caught.value)


class TestLabelFile:
    @pytest.fixture
    def flat(self, tmp_path):
        for i in range(12):
            touch(tmp_path / ("deep" if i % 2 else "") / f"{NAMES[i % 3]} {i}.JPEG")
        self.files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.JPEG"))
        self.labels = {name: NAMES.index(name.split("/")[-1][:3]) for name in self.files}
        return tmp_path

    def check(self, splits):
        assert labels_by_name(splits) == {"ant": 0, "bee": 1, "cat": 2}
        assert sum(len(files.paths) for files in splits.values()) == 12

    def test_text(self, flat):
        lines = [f"{name} {label}\n" for name, label in self.labels.items()]
        (flat / "labels.txt").write_text("\n".join(lines))
        self.check(read(flat))

    @pytest.mark.parametrize("header", ["", "file,label\n", "\ufeffimage_id,class\n"])
    def test_csv(self, flat, header):
        lines = [f'"{name}", {label}\n' for name, label in self.labels.items()]
        (flat / "labels.csv").write_text(header + "".join(lines), encoding="utf-8")
        self.check(read(flat))

    def test_commas_in_text(self, flat):
        lines = [f"{name},{label}\n" for name, label in self.labels.items()]
        (flat / "labels.txt").write_text("".join(lines))
        self.check(read(flat))

    def test_class_names_of_the_supernet(self, flat):
        lines = [f"{name} {NAMES[label]}\n" for name, label in self.labels.items()]
        (flat / "labels.txt").write_text("".join(lines))
        self.check(read(flat))

    def test_class_names_of_classes_txt(self, flat):
        lines = [f"{name} {NAMES[label]}\n" for name, label in self.labels.items()]
        (flat / "labels.txt").write_text("".join(lines))
        (flat / "classes.txt").write_text("cat\nbee\nant\n")
        splits = read(flat, classes=("0", "1", "2"))
        assert labels_by_name(splits) == {"ant": 2, "bee": 1, "cat": 0}

    def test_only_what_it_names_is_read(self, flat):
        kept = self.files[:5]
        (flat / "labels.txt").write_text("".join(f"{name} 0\n" for name in kept))
        splits = read(flat)
        drawn = {path for files in splits.values() for path in files.paths}
        assert drawn == {str(flat / name) for name in kept}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("{0} 3\n", r"labels.txt', line 1: class 3, but the supernet's classes are 0 to 2"),
            ("{0} 0\n{1} -1\n", r"line 2: class -1, but the supernet's classes are 0 to 2"),
            ("{0} wasp\n", r"line 1: label 'wasp' is no whole number and no class name.*classes"),
            ("{0} 1\n\n{0} 2\n", r"line 3: 'ant 0.JPEG' is listed twice"),
            ("{0} 1\nalone\n", r"line 2: 'alone' is not 'FILE LABEL'"),
            ("{0} 1\ngone.png 1\nlost.png 2\n", r"names 2 of 3 files that do not exist: gone.png"),
            ("", r"holds 0 images"),
        ],
    )
    def test_what_is_wrong_with_it(self, flat, text, says):
        (flat / "labels.txt").write_text(text.format(*self.files))
        with pytest.raises(InputError, match=says):
            read(flat)

    def test_csv_of_other_columns(self, flat):
        (flat / "labels.csv").write_text(f"{self.files[0]},1,0.5\n")
        with pytest.raises(InputError, match=r"line 1: .* is not 'FILE,LABEL'"):
            read(flat)

    def test_two_of_them_and_no_text(self, flat):
        (flat / "labels.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"labels.txt' is no text in UTF-8"):
            read(flat)
        (flat / "labels.csv").write_text("")
        with pytest.raises(InputError, match=r"has labels.txt and labels.csv; keep one"):
            read(flat)


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="does not exist or is no folder"):
        read(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="does not exist or is no folder"):
        read(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty' holds 0 images; expected PATH/CLASS/IMAGE, or"):
        read(tmp_path / "empty")


def test_fifty_thousand_files_hold_every_class_in_proportion(tmp_path, monkeypatch):
    listed = Tree(str(tmp_path))
    for name in (f"n{number:04}" for number in range(1000)):
        images = [f"{name}/{i}.JPEG" for i in range(50)]
        listed.folders[name] = Tree(f"{tmp_path}/{name}", images)
    monkeypatch.setattr(folder_layout, "scan", lambda root: listed)
    splits, _ = read_imagefolder(tmp_path, [str(number) for number in range(1000)])
    assert [len(files.paths) for files in splits.values()] == [2000, 2500, 2500]
    counts = np.bincount(splits["search"].labels, minlength=1000)
    assert counts.min() >= 2
    assert counts.max() <= 3
