import numpy as np
import pytest
from PIL import Image

from hwsearch.errors import InputError
from hwsearch.evaluate.imagefolder import read_imagefolder
from hwsearch.evaluate.splits import SplitSizes
from hwsearch.supernets.base import ImagePreprocessing

SIZE = ImagePreprocessing(resize=12, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3)
FEW = SplitSizes(calibration=4, search=8, report=6)
COLOURS = {"ant": (255, 0, 0), "bee": (0, 255, 0), "cat": (0, 0, 255)}


def save(path, colour, size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Ten images of one colour in each of three class folders, one of them deeper."""
    for name, colour in COLOURS.items():
        for i in range(10):
            deeper = "more/" if i == 3 else ""
            save(tmp_path / name / f"{deeper}{name}{i}.{'png' if i % 2 else 'bmp'}", colour)
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / "README.md").write_text("no class")
    return tmp_path


def read(folder, classes=(), sizes=FEW):
    return read_imagefolder(folder, SIZE, sizes, classes)


def colours(images):
    return images.reshape(len(images), -1, 3)[:, 0].tolist()


def test_splits_of_a_folder(folder):
    splits = read(folder)
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {
        "calibration": 4,
        "search": 8,
        "report": 6,
    }
    for images, labels in splits.values():
        assert images.shape == (len(labels), 8, 8, 3)
        assert images.dtype == np.uint8
        palette = [list(colour) for colour in COLOURS.values()]
        assert colours(images) == [palette[label] for label in labels]
    assert set(splits["search"][1]) == {0, 1, 2}


def test_sorted_names_are_the_classes(folder):
    images, labels = read(folder, classes=("bee", "bird", "dog"))["search"]
    assert [list(COLOURS.values())[label] for label in labels] == list(map(tuple, colours(images)))


def test_names_of_the_supernet_decide_the_order(folder):
    images, labels = read(folder, classes=("cat", "ant", "bee"))["search"]
    order = [COLOURS["cat"], COLOURS["ant"], COLOURS["bee"]]
    assert [order[label] for label in labels] == list(map(tuple, colours(images)))


def test_same_images_every_time(folder):
    first, again = read(folder), read(folder)
    for split in first:
        np.testing.assert_array_equal(first[split][0], again[split][0])


def test_other_sizes_search_by_the_same_images(folder):
    rng = np.random.default_rng(0)
    for path in folder.rglob("*.png"):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(path)
    other = read(folder, sizes=SplitSizes(calibration=2, search=8, report=10))
    np.testing.assert_array_equal(read(folder)["search"][0], other["search"][0])


def test_images_are_resized_and_cropped_in_the_middle(tmp_path):
    wide = np.zeros((24, 48, 3), np.uint8)
    wide[:, :, 0] = np.arange(48) * 5
    for i in range(3):
        (tmp_path / "only").mkdir(exist_ok=True)
        Image.fromarray(wide).save(tmp_path / "only" / f"{i}.png")
    images, _ = read(tmp_path)["search"]
    # 48 x 24 becomes 24 x 12; columns 8 to 15 of it are columns 16 to 31 of the original.
    expected = np.arange(48).reshape(24, 2).mean(axis=1)[8:16] * 5
    np.testing.assert_allclose(images[0, 4, :, 0], expected, atol=1.0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
def test_other_pixel_formats(mode, tmp_path):
    (tmp_path / "only").mkdir()
    for i in range(3):
        Image.new(mode, (16, 16)).save(tmp_path / "only" / f"{i}.png")
    assert read(tmp_path)["report"][0].shape[1:] == (8, 8, 3)


def test_unreadable_images_are_counted_and_named(folder):
    every = SplitSizes(calibration=5, search=15, report=10)
    (folder / "ant" / "ant0.bmp").write_bytes(b"")
    whole = (folder / "bee" / "bee1.png").read_bytes()
    (folder / "bee" / "bee1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "cat5.png").write_text("no image at all")
    # A chunk of no known kind after the header: Pillow calls it a SyntaxError.
    chunk = folder / "ant" / "ant1.png"
    chunk.write_bytes(chunk.read_bytes().replace(b"IDAT", b"\x00DAT"))
    with pytest.raises(InputError) as caught:
        read(folder, sizes=every)
    text = str(caught.value)
    assert "4 of 30 images" in text
    assert all(name in text for name in ("ant0.bmp", "ant1.png", "bee1.png", "cat5.png"))
    assert repr(str(folder)) in text


def test_many_unreadable_images_are_not_all_named(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"15 of 30 images") as caught:
        read(folder, sizes=SplitSizes(calibration=5, search=15, report=10))
    assert str(caught.value).count(".png") == 5


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="does not exist or is no folder"):
        read(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="does not exist or is no folder"):
        read(tmp_path / "file")
    (tmp_path / "empty" / "ant").mkdir(parents=True)
    with pytest.raises(InputError, match="holds 0 images in 1 class folders; expected PATH/CLASS"):
        read(tmp_path / "empty")


def test_another_number_of_classes(folder):
    with pytest.raises(InputError, match="has 3 class folders, but the supernet knows 2 classes"):
        read(folder, classes=("ant", "bee"))


@pytest.mark.parametrize("n", [3, 7])
def test_a_handful_of_images_is_enough(n, tmp_path):
    for i in range(n):
        save(tmp_path / "only" / f"{i}.png", (i, i, i))
    splits = read(tmp_path, sizes=SplitSizes())
    assert all(len(images) >= 1 for images, _ in splits.values())
    seen = [tuple(c) for images, _ in splits.values() for c in colours(images)]
    assert sorted(seen) == [(i, i, i) for i in range(n)]
