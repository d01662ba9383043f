"""Folders of splits and of classes, as people have them, are told apart or refused."""

import os

import pytest

from hwsearch.accuracy.folder_layout import SUFFIXES
from hwsearch.accuracy.imagefolder import read_imagefolder
from hwsearch.errors import InputError

NAMES = ("ant", "bee", "cat")


def fill(folder, names=NAMES, n=4):
    """Touch n images for each class; their names begin with the class."""
    for name in names:
        for i in range(n):
            path = folder / name / f"{name}_{folder.name}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def flat(folder, n=4):
    for i in range(n):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").touch()


def read(folder, classes=NAMES):
    """Check that every image has the class of its name; return the folders of each split."""
    splits, warnings = read_imagefolder(folder, classes)
    found = {}
    for split, files in splits.items():
        for path, label in zip(files.paths, files.labels, strict=True):
            name = os.path.basename(path).split("_")[0]
            assert NAMES.index(name) == label, path
        found[split] = {os.path.basename(path).split("_", 1)[1][:-6] for path in files.paths}
    return found, warnings


def drawn(train, val):
    return {"calibration": {train}, "search": {val}, "report": {val}}


@pytest.mark.parametrize("classes", [NAMES, (), ("0", "1", "2")])
@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"), ("train", "test"), ("train", "validation"), ("train", "valid"),
        ("train", "dev"), ("Train", "VAL"), ("TRAIN", "Test"), ("training", "testing"),
        ("training_set", "test_set"), ("Training Images", "Validation Images"),
        ("TrainSet", "TestSet"), ("train2017", "val2017"), ("trainset", "valset"),
        ("seg_train", "seg_test"), ("imagenet-train", "imagenet-val"),
    ],
)  # fmt: skip
def test_splits_by_any_name(train, val, classes, tmp_path):
    fill(tmp_path / train)
    fill(tmp_path / val)
    assert read(tmp_path, classes) == (drawn(train, val), ())


@pytest.mark.parametrize("deeper", ["imagenet", "photos/imagenet", "ILSVRC/Data/CLS-LOC"])
@pytest.mark.parametrize("junk", [False, True])
def test_too_deep(deeper, junk, tmp_path):
    for part in ("train", "val"):
        fill(tmp_path / deeper / part)
    if junk:
        (tmp_path / deeper / "labels").mkdir()
        (tmp_path / "README.md").write_text("read me")
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "Annotations" / "a.xml").touch()
        flat(tmp_path / "__MACOSX" / "ant")
        flat(tmp_path / ".ipynb_checkpoints")
        flat(tmp_path / deeper / "train" / "lost+found")
        flat(tmp_path / deeper / "val" / ".ipynb_checkpoints")
    assert read(tmp_path, ()) == (drawn("train", "val"), ())


def test_class_folders_too_deep(tmp_path):
    fill(tmp_path / "a" / "photos")
    (found, warnings) = read(tmp_path)
    assert found == drawn("photos", "photos")
    assert warnings == ()


def test_splits_that_hold_themselves_once_more(tmp_path):
    for part in ("seg_train", "seg_test"):
        fill(tmp_path / part / part)
    flat(tmp_path / "seg_pred" / "seg_pred")
    found, (text,) = read(tmp_path, ())
    assert found == drawn("seg_train", "seg_test")
    assert "holds splits (seg_test, seg_train): seg_pred beside them is left out" in text


def test_val_is_taken_before_test(tmp_path):
    for part in ("train", "valid", "test"):
        fill(tmp_path / part)
    assert read(tmp_path) == (drawn("train", "valid"), ())


@pytest.mark.parametrize("make", [flat, lambda path: flat(path / "unknown")])
@pytest.mark.parametrize("classes", [NAMES, ()])
def test_test_images_without_classes(make, classes, tmp_path):
    fill(tmp_path / "train")
    make(tmp_path / "test")
    found, (text,) = read(tmp_path, classes)
    assert found == drawn("train", "train")
    assert "has class folders in 'train' only" in text


@pytest.mark.parametrize(("part", "warned"), [("train", 1), ("val", 0), ("test", 0)])
def test_one_split_alone(part, warned, tmp_path):
    fill(tmp_path / part)
    found, warnings = read(tmp_path)
    assert found == drawn(part, part)
    assert len(warnings) == warned


def test_variants_of_a_class_in_both(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val")
    (tmp_path / "val" / "ant").rename(tmp_path / "val" / "Ant")
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "CAT ")
    assert read(tmp_path, ())[0] == drawn("train", "val")


def test_train_as_a_class(tmp_path):
    for name in ("bus", "car", "train", "bullet train", "test tube"):
        flat(tmp_path / name)
    splits, _ = read_imagefolder(tmp_path, ())
    assert set(splits["search"].labels) | set(splits["report"].labels) == {0, 1, 2, 3, 4}
    for name in ("bullet train", "test tube", "car"):
        for image in (tmp_path / name).iterdir():
            image.unlink()
        (tmp_path / name).rmdir()
    splits, warnings = read_imagefolder(tmp_path, ("car", "train", "bus"))
    assert set(splits["search"].labels) == {1, 2}
    assert warnings == ()


def test_classes_txt_lists_classes_of_such_names(tmp_path):
    flat(tmp_path / "train")
    flat(tmp_path / "tram")
    with pytest.raises(InputError, match="holds 'train', which is the name of a split, and tram"):
        read_imagefolder(tmp_path, ())
    (tmp_path / "classes.txt").write_text("tram\ntrain\n")
    splits, _ = read_imagefolder(tmp_path, ())
    assert set(splits["search"].labels) <= {0, 1}


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("train", "holdout"), "holds 'train', which is the name of a split, and holdout"),
        (("train", "val", "valid"), "holds val and valid, which are all names of a val split"),
        (("Train", "train", "test"), "which are all names of a train split; keep one"),
        (
            ("ant/train", "ant/val", "bee/train", "bee/val"),
            r"'ant' would be a class, but holds sp",
        ),
        (("first/train", "first/test", "second/train"), "'first' would be a class, but holds sp"),
    ],
)
@pytest.mark.parametrize("classes", [(), NAMES])
def test_refused(folders, says, classes, tmp_path):
    for folder in folders:
        fill(tmp_path / folder)
    with pytest.raises(InputError, match=says) as caught:
        read_imagefolder(tmp_path, classes)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("train", "val"), r"/train' holds 0 images; expected PATH/CLASS/IMAGE"),
        (("images", "masks"), "'images' is no class; expected PATH/CLASS/IMAGE"),
        (("train/images", "valid/images"), "'images' is no class"),
        (("images",), "'images' is no class"),
        (("",), "holds 0 images; expected"),
    ],
)
def test_images_without_class_folders(folders, says, tmp_path):
    for folder in folders:
        flat(tmp_path / folder)
    with pytest.raises(InputError, match=says):
        read_imagefolder(tmp_path, ())


@pytest.mark.parametrize("folders", [("fold1", "fold2", "fold3"), ("set_a", "set_b")])
def test_splits_of_unknown_names(folders, tmp_path):
    for folder in folders:
        fill(tmp_path / folder)
    with pytest.raises(InputError, match=rf"each of {', '.join(folders)} holds a folder 'ant'"):
        read_imagefolder(tmp_path, NAMES)
    (tmp_path / "classes.txt").write_text("\n".join(folders))
    splits, _ = read_imagefolder(tmp_path, ())
    assert set(splits["search"].labels) == set(range(len(folders)))


def test_classes_that_hold_folders(tmp_path):
    for name in NAMES:
        fill(tmp_path / name, ("left", "right"))
    splits, _ = read_imagefolder(tmp_path, NAMES)
    assert set(splits["search"].labels) == {0, 1, 2}


def test_images_of_unknown_kinds(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.heic").touch()
    with pytest.raises(InputError, match=r"holds 0 images; .*\.jpg, \.jpeg, \.png"):
        read_imagefolder(tmp_path, NAMES)


def test_kinds_of_images_are_those_of_torchvision():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert SUFFIXES == IMG_EXTENSIONS


def test_no_class_in_common(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val", ("dog", "emu"))
    with pytest.raises(InputError, match="no class folder in common"):
        read_imagefolder(tmp_path, ())


def test_label_file_one_level_deeper(tmp_path):
    flat(tmp_path / "photos")
    (tmp_path / "photos" / "labels.txt").write_text("".join(f"{i}.png 2\n" for i in range(4)))
    splits, _ = read_imagefolder(tmp_path, NAMES)
    assert set(splits["search"].labels) == {2}


def test_empty_folders_of_other_names_hold_no_place(tmp_path):
    fill(tmp_path)
    for name in ("aaa", "annotations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.xml").touch()
    read(tmp_path)


def test_links_that_lead_back_are_not_followed(tmp_path):
    fill(tmp_path / "photos")
    (tmp_path / "photos" / "ant" / "again").symlink_to(tmp_path / "photos")
    splits, _ = read_imagefolder(tmp_path / "photos", NAMES)
    assert sum(len(files.paths) for files in splits.values()) == 12
