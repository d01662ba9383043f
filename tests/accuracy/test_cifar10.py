"""CIFAR-10's two forms in miniature."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from hwsearch import load_task
from hwsearch.accuracy.cifar10 import (
    CLASSES,
    load_cifar10,
    read_cifar10,
)
from hwsearch.accuracy.task import SplitSizes, stratified
from hwsearch.errors import InputError
from hwsearch.supernets import cifar10_resnet
from hwsearch.supernets.interface import ImagePreprocessing, InputSpec, TensorSpec

ROWS = 20
SIZES = SplitSizes(calibration=10, search=40, report=10)


def write_pngs(folder):
    """Five train files and a test file of 20 rows; every image holds its own number."""
    number = 0
    labels = {"train": [], "test": []}
    names = [*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png"]
    for name in names:
        pixels = np.zeros((ROWS, 1024, 3), np.uint8)
        for row in range(ROWS):
            pixels[row, :, 0] = number
            pixels[row, :32, 1] = 255  # the first line of the image
            labels["test" if name.startswith("test") else "train"].append(number % 10)
            number += 1
        Image.fromarray(pixels).save(folder / name)
    for part, values in labels.items():
        (folder / f"{part}_lables.json").write_text(json.dumps(values))


@pytest.fixture
def folder(tmp_path):
    write_pngs(tmp_path)
    return tmp_path


def test_png_folder(folder):
    (train, train_labels), (test, test_labels) = load_cifar10(folder)
    assert train.shape == (100, 32, 32, 3)
    assert test.shape == (20, 32, 32, 3)
    assert train.dtype == np.uint8
    np.testing.assert_array_equal(train[:, 5, 5, 0], np.arange(100))
    np.testing.assert_array_equal(test[:, 5, 5, 0], np.arange(100, 120))
    np.testing.assert_array_equal(train_labels, np.arange(100) % 10)
    np.testing.assert_array_equal(test_labels, np.arange(100, 120) % 10)
    assert (train[:, 0, :, 1] == 255).all()
    assert not train[:, 1:, :, 1].any()


def test_search_and_calibration_are_of_training_report_of_test(folder):
    splits = read_cifar10(folder, SIZES)
    numbers = {split: set(images[:, 5, 5, 0].tolist()) for split, (images, _) in splits.items()}
    assert {split: len(each) for split, each in numbers.items()} == {
        "calibration": 10,
        "search": 40,
        "report": 10,
    }
    assert not numbers["calibration"] & numbers["search"]
    assert max(numbers["calibration"] | numbers["search"]) < 100 <= min(numbers["report"])
    for images, labels in splits.values():
        np.testing.assert_array_equal(images[:, 5, 5, 0] % 10, labels)
        assert (np.bincount(labels) == len(labels) // 10).all()


def test_training_leaves_out_what_is_searched_by(folder):
    (train, labels), _ = load_cifar10(folder)
    (search,) = stratified(labels, [SIZES.search])
    np.testing.assert_array_equal(train[search], read_cifar10(folder, SIZES)["search"][0])


def test_damaged_png(folder):
    content = (folder / "data_batch_3.png").read_bytes()
    (folder / "data_batch_3.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cannot read data_batch_3\.png"):
        load_cifar10(folder)


def test_missing_png(folder):
    (folder / "data_batch_4.png").unlink()
    with pytest.raises(InputError, match=r"cannot read data_batch_4\.png"):
        load_cifar10(folder)


def test_png_of_another_width(folder):
    Image.new("RGB", (1023, 20)).save(folder / "data_batch_1.png")
    with pytest.raises(InputError, match=r"data_batch_1\.png has rows of 1023 pixels, not 1024"):
        load_cifar10(folder)


def test_labels_that_do_not_fit(folder):
    (folder / "train_lables.json").write_text(json.dumps([1, 2, 3]))
    with pytest.raises(InputError, match="100 train images, but 3 labels"):
        load_cifar10(folder)
    for text in ("[1, 2", '{"a": 1}', '["cat"]', "null"):
        (folder / "train_lables.json").write_text(text)
        with pytest.raises(InputError, match=r"lables|labels"):
            load_cifar10(folder)
    (folder / "train_lables.json").write_text("[1, 2")
    with pytest.raises(InputError, match=r"cannot read train_lables\.json"):
        load_cifar10(folder)
    (folder / "train_lables.json").unlink()
    with pytest.raises(InputError, match=r"cannot read train_lables\.json"):
        load_cifar10(folder)


def test_neither_form(tmp_path):
    with pytest.raises(InputError, match=r"no CIFAR-10 in .*expected torchvision's folder"):
        load_cifar10(tmp_path)
    with pytest.raises(InputError, match="no CIFAR-10 in"):
        load_cifar10(tmp_path / "gone")


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("inside", [False, True])
def test_tampered_torchvision_files_are_refused_and_never_opened(inside, tmp_path):
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    mark = tmp_path / "was_here"
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(pickle.dumps({"data": Malicious(mark)}))
    with pytest.raises(InputError, match="incomplete or not the published files"):
        load_cifar10(batches if inside else tmp_path)
    assert not mark.exists()


def test_torchvision_folder(tmp_path, monkeypatch):
    """Files with the published checksums, had CIFAR-10 been this small."""
    from torchvision.datasets import CIFAR10

    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", ""]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", ""]])
    for name, first in (("data_batch_1", 0), ("test_batch", 100)):
        data = np.zeros((20, 3, 32, 32), np.uint8)
        data[:, 0] = np.arange(first, first + 20)[:, None, None]
        labels = [(first + i) % 10 for i in range(20)]
        content = {"data": data.reshape(20, -1), "labels": labels}
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    (train, train_labels), (test, test_labels) = load_cifar10(tmp_path)
    assert train.shape == test.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(train[:, 9, 9, 0], np.arange(20))
    np.testing.assert_array_equal(test[:, 9, 9, 0], np.arange(100, 120))
    np.testing.assert_array_equal(train_labels, np.arange(20) % 10)
    np.testing.assert_array_equal(test_labels, np.arange(20) % 10)


class TestClassNames:
    """Labels are those of the supernet's classes, by name."""

    @pytest.fixture
    def load(self, folder, monkeypatch):
        monkeypatch.setattr("hwsearch.accuracy.sources.SplitSizes", lambda: SIZES)

        def targets(classes):
            spec = InputSpec(
                inputs=(TensorSpec(name="image", shape=(3, 32, 32)),),
                preprocessing=ImagePreprocessing(resize=32, crop=32, mean=(0,) * 3, std=(1,) * 3),
                classes=classes,
            )
            task = load_task(f"cifar10:{folder}", spec, "")
            ((fed, found),) = task.report.batches(100)
            numbers = np.round(255 * fed["image"][:, 0, 5, 5]).astype(int)
            return numbers % 10, found, task.warnings

        return targets

    def test_labels_that_are_no_classes(self, load, folder):
        (folder / "test_lables.json").write_text(json.dumps([10, *range(10), *range(9)]))
        with pytest.raises(
            InputError,
            match=r"test_lables.json: target 10, but there are 10 classes, 0 to 9: sample 0",
        ):
            load(CLASSES)

    def test_of_the_bundled_supernet(self, load):
        assert cifar10_resnet.CLASSES == CLASSES
        labels, found, warnings = load(CLASSES)
        np.testing.assert_array_equal(found, labels)
        assert warnings == ()

    @pytest.mark.parametrize("classes", [(), tuple("0123456789")])
    def test_where_none_are_known(self, load, classes):
        labels, found, warnings = load(classes)
        np.testing.assert_array_equal(found, labels)
        assert warnings == ()

    def test_in_another_order_and_among_others(self, load):
        labels, found, _ = load(("Truck", "wasp", *CLASSES[:-1]))
        np.testing.assert_array_equal(found, np.where(labels == 9, 0, labels + 2))

    def test_that_differ(self, load):
        with pytest.raises(InputError, match=r"'airplane' \(did you mean 'aeroplane'\?\)"):
            load(("aeroplane", *CLASSES[1:]))
        _, _, (text,) = load(tuple(f"Klasse {letter}" for letter in "abcdefghijkl"))
        assert "none of CIFAR-10's classes is one of the supernet's 12" in text
