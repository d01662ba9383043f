"""Data by name: what fits is read, what does not is refused with what was expected."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hwsearch import load_task
from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.errors import DataError, InputError
from hwsearch.supernets.interface import ImagePreprocessing, InputSpec, TensorSpec
from tests.accuracy.folders import image_spec

PREPROCESSING = ImagePreprocessing(resize=8, crop=6, mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.5))
IMAGES = InputSpec(
    inputs=(TensorSpec(name="image", shape=(3, 6, 6)),),
    preprocessing=PREPROCESSING,
    classes=("a", "b", "c"),
)
TOKENS = InputSpec(inputs=(TensorSpec(name="ids", shape=(5,), dtype="int64", high=9),))
TWO = InputSpec(inputs=(TensorSpec(name="left", shape=(2,)), TensorSpec(name="right", shape=(3,))))


def load(spec, input_spec=IMAGES):
    return load_task(spec, input_spec, "some-supernet")


def image_arrays():
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("calibration", 4), ("search", 6), ("report", 5)):
        arrays[f"{split}.image"] = rng.integers(0, 255, (n, 6, 6, 3), np.uint8)
        arrays[f"{split}.target"] = np.arange(n) % 3
    return arrays


@pytest.fixture
def write(tmp_path):
    def save(arrays, saver=np.savez):
        path = tmp_path / "data.npz"
        saver(path, **arrays)
        return f"npz:{path}"

    return save


def test_images_are_normalised():
    pixels = np.zeros((2, 4, 5, 3), np.uint8)
    pixels[1, 2, 3] = (255, 51, 102)
    ready = image_preprocess(PREPROCESSING)(pixels)
    assert ready.shape == (2, 3, 4, 5)
    assert ready.dtype == np.float32
    assert ready.flags.c_contiguous
    np.testing.assert_allclose(ready[0, :, 0, 0], [-2.5, -4, -0.6], rtol=1e-5)
    np.testing.assert_allclose(ready[1, :, 2, 3], [2.5, -2, 0.2], rtol=1e-5, atol=1e-6)


def test_images_in_other_layouts_colours_and_types():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    usual = image_preprocess(PREPROCESSING)(pixels)
    last = image_preprocess(replace(PREPROCESSING, layout="NHWC"))(pixels)
    np.testing.assert_array_equal(last, usual.transpose(0, 2, 3, 1))
    turned = image_preprocess(replace(PREPROCESSING, colour="BGR"))(pixels[..., ::-1])
    np.testing.assert_array_equal(turned, usual)  # mean and std are in the input's order
    raw = replace(PREPROCESSING, mean=(0.0,) * 3, std=(1 / 255,) * 3, layout="NHWC")
    np.testing.assert_array_equal(image_preprocess(raw, "uint8")(pixels), pixels)
    assert image_preprocess(raw, "uint8")(pixels).dtype == np.uint8
    assert image_preprocess(raw, "float16")(pixels).dtype == np.float16


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_npz_of_images(write, saver):
    arrays = image_arrays()
    task = load(write(arrays, saver))
    assert task.metric.name == "top1"
    assert [len(task.calibration), len(task.search), len(task.report)] == [4, 6, 5]
    (fed, targets), *rest = task.search.batches(10)
    assert not rest
    np.testing.assert_array_equal(targets, arrays["search.target"])
    np.testing.assert_array_equal(
        fed["image"], image_preprocess(PREPROCESSING)(arrays["search.image"])
    )


def test_arrays_are_refused_for_another_resolution(write):
    samples = load(write(image_arrays())).search
    larger = replace(IMAGES, inputs=(TensorSpec(name="image", shape=(3, 9, 9)),))
    assert len(list(samples.batches(4, IMAGES))) == 2
    with pytest.raises(DataError, match=r"image is of shape \(3, 6, 6\).*\(3, 9, 9\)") as caught:
        next(samples.batches(4, larger))
    assert "--freeze resolution" in str(caught.value)


def test_calibration_batch_of_arrays(write):
    task = load(write(image_arrays()))
    assert (task.calibration_batch, task.warnings) == (125, ())
    with pytest.raises(InputError, match="calibration_batch is 0; give a whole number from 1 up"):
        replace(task, calibration_batch=0)


def test_npz_of_ready_images(write):
    arrays = {
        key: array.transpose(0, 3, 1, 2).astype(np.float32) if array.ndim == 4 else array
        for key, array in image_arrays().items()
    }
    fed, _ = next(load(write(arrays)).report.batches(10))
    np.testing.assert_array_equal(fed["image"], arrays["report.image"])


def test_npz_of_tokens_without_calibration(write):
    arrays = {
        "search.ids": np.ones((3, 5), np.int64),
        "search.target": np.arange(3, dtype=np.uint8),
        "report.ids": np.ones((2, 5), np.int64),
        "report.target": np.arange(2),
    }
    task = load(write(arrays), TOKENS)
    assert task.calibration is None
    assert task.search.targets.dtype == np.int64


def test_npz_of_two_inputs_in_the_models_order(write):
    arrays = {}
    for split in ("search", "report"):
        arrays[f"{split}.right"] = np.ones((4, 3), np.float32)
        arrays[f"{split}.target"] = np.zeros(4, np.int64)
        arrays[f"{split}.left"] = np.ones((4, 2), np.float32)
    fed, _ = next(load(write(arrays), TWO).search.batches(2))
    assert list(fed) == ["left", "right"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"search.image": None}, "split search: no array image; it has target"),
        ({"report.target": None}, "split report: no array target; it has image"),
        ({"report.image": None, "report.target": None}, "split report: no array image, target"),
        ({"calibration.image": None}, "split calibration: no array image"),
        ({"search.image": np.zeros((9, 6, 6, 3), np.uint8)}, "arrays of different lengths"),
        (
            {"search.image": np.zeros((6, 3, 6, 6), np.uint8)},
            r"image holds samples of shape \(3, 6, 6\), not \(6, 6, 3\)",
        ),
        (
            {"search.image": np.zeros((6, 6, 6, 3), np.float32)},
            r"image holds samples of shape \(6, 6, 3\), not \(3, 6, 6\)",
        ),
        ({"search.image": np.zeros((6, 3, 6, 6))}, "image is float64, not float32"),
        ({"search.target": np.zeros((6, 1), np.int64)}, r"target has shape \(6, 1\)"),
        ({"search.target": np.full(6, np.nan)}, "target is float64, not whole numbers"),
        ({"search.target": np.float64(3)}, r"target has shape \(\)"),
        (
            {"search.target": np.array([0, 1, 2, 3, 0, 1])},
            "target 3, but there are 3 classes, 0 to 2: sample 3",
        ),
        ({"search.target": np.array([0, 1, 2, -1, 0, 1])}, "target -1, but there are 3 classes"),
        (
            {
                "calibration.image": np.zeros((0, 6, 6, 3), "u1"),
                "calibration.target": np.zeros(0, int),
            },
            "its calibration split is empty",
        ),
        (
            {"search.image": np.zeros((0, 6, 6, 3), np.uint8), "search.target": np.zeros(0, int)},
            "its search split is empty",
        ),
    ],
)
def test_npz_that_does_not_fit(write, change, says):
    arrays = {**image_arrays(), **change}
    spec = write({key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=says) as caught:
        load(spec)
    assert spec in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("split", ["calibration", "search", "report"])
def test_npz_with_numbers_that_are_none(write, split, value):
    rng = np.random.default_rng(0)
    arrays = {f"{s}.left": rng.random((5, 2), np.float32) for s in ("calibration", "search")}
    arrays["report.left"] = rng.random((5000, 2), np.float32)
    for s in ("calibration", "search", "report"):
        arrays[f"{s}.right"] = np.ones((len(arrays[f"{s}.left"]), 3), np.float32)
        arrays[f"{s}.target"] = np.zeros(len(arrays[f"{s}.left"]), np.int64)
    arrays[f"{split}.left"][-1, 0] = value
    last = len(arrays[f"{split}.left"]) - 1
    says = rf"split {split}: left of sample {last} holds NaN or infinite numbers"
    with pytest.raises(InputError, match=says):
        load(write(arrays), TWO)
    arrays[f"{split}.left"][1] = value
    with pytest.raises(InputError, match=r"left of sample 1 \(and 1 more\) holds NaN"):
        load(write(arrays), TWO)


@pytest.mark.parametrize("value", [9, -1])
def test_npz_of_tokens_out_of_range(write, value):
    arrays = {f"{s}.ids": np.ones((3, 5), np.int64) for s in ("search", "report")}
    arrays |= {f"{s}.target": np.arange(3) for s in ("search", "report")}
    arrays["report.ids"][2, 4] = value
    with pytest.raises(InputError, match="report: ids of sample 2 holds numbers that are not fr"):
        load(write(arrays), TOKENS)


def test_npz_of_other_names(write):
    arrays = {f"{s}.image": np.zeros((3, 6, 6, 3), np.uint8) for s in ("train", "val")}
    with pytest.raises(InputError, match=r"train.image, val.image belong to no split; name them"):
        load(write(arrays))


def test_tokens_for_images_and_images_for_tokens(write):
    with pytest.raises(InputError, match="no array ids; it has image, target"):
        load(write(image_arrays()), TOKENS)
    arrays = {f"{s}.ids": np.ones((3, 5), np.int32) for s in ("search", "report")}
    arrays |= {f"{s}.target": np.ones(3, np.int64) for s in ("search", "report")}
    with pytest.raises(InputError, match="ids is int32, not int64"):
        load(write(arrays), TOKENS)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_npz_with_a_pickled_object_is_refused_and_never_run(write, tmp_path):
    mark = tmp_path / "was_here"
    spec = write({**image_arrays(), "search.target": np.array([Malicious(mark)] * 6)})
    with pytest.raises(InputError, match=r"cannot be read.*Object arrays cannot be loaded"):
        load(spec)
    assert not mark.exists()


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_npz_damaged_anywhere(write, saver, tmp_path):
    spec, path = write(image_arrays(), saver), tmp_path / "data.npz"
    content = path.read_bytes()
    for size in [0, 3, 100, *(len(content) * part // 8 for part in range(1, 8))]:
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="cannot be read"):
            load(spec)
    for place in range(40, 400, 7):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            load(spec)
        except InputError as error:
            assert spec in str(error)  # noqa: PT017 - some flips touch nothing that is read


def test_file_that_is_no_npz(tmp_path):
    with pytest.raises(InputError, match=r"there is no file '.*gone\.npz'"):
        load(f"npz:{tmp_path}/gone.npz")
    with pytest.raises(InputError, match="there is no file"):
        load(f"npz:{tmp_path}")
    path = tmp_path / "data.npz"
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(InputError, match=r"cannot be read: it is a single array"):
        load(f"npz:{path}")
    path.write_text("my notes")
    with pytest.raises(InputError, match=r"cannot be read: it is no \.npz file"):
        load(f"npz:{path}")


def test_a_path_without_its_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="For that file or folder: imagefolder:photos"):
        load("photos")


def image_folder(folder, n=6):
    for name in "abc":
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (9, 8), (0, 10 * i, 0)).save(folder / name / f"{i}.png")
    return folder


def test_imagefolder(tmp_path):
    task = load(f"imagefolder:{image_folder(tmp_path / 'images')}")
    sizes = [len(task.calibration), len(task.search), len(task.report)]
    assert sum(sizes) == 18
    fed, _ = next(task.search.batches(4))
    assert fed["image"].shape == (4, 3, 6, 6)
    assert fed["image"].dtype == np.float32


def test_imagefolder_for_tokens(tmp_path):
    folder = image_folder(tmp_path / "images")
    with pytest.raises(InputError, match="the inputs of this model are no images"):
        load(f"imagefolder:{folder}", TOKENS)


@pytest.mark.parametrize(
    ("shape", "change", "says"),
    [
        ((1, 6, 6), {}, r"has mean \(0.5, 0.4, 0.3\) and std .*, but its input has 1 channels"),
        ((3, 7, 7), {}, "crops to 6 pixels, but its input is 7 x 7"),
        ((6, 6, 3), {}, "but its input has 6 channels; give a number for each"),
        ((2, 6, 6), {"mean": (0.5,) * 2, "std": (1,) * 2}, r"\(2, 6, 6\), not one float32 image"),
        (
            (3, 6, 6),
            {"layout": "CHWN"},
            "asks for RGB images as CHWN; images are prepared as NCHW or NHWC",
        ),
        ((3, 6, 6), {"layout": "NHWC"}, "but its input has 6 channels"),
        ((3, 6, 6), {"colour": "CMYK"}, "asks for CMYK images"),
        ((3, 6, 6), {"std": (1.0, 0.0, 1.0)}, "give finite numbers, and no std of 0"),
        ((3, 6, 6), {"mean": (np.nan, 0.0, 1.0)}, "give finite numbers"),
    ],
)
def test_images_for_other_inputs(shape, change, says, write, tmp_path):
    folder = image_folder(tmp_path / "images")
    other = replace(
        IMAGES,
        inputs=(TensorSpec(name="image", shape=shape),),
        preprocessing=replace(PREPROCESSING, **change),
    )
    with pytest.raises(InputError, match=says):
        load(f"imagefolder:{folder}", other)
    if "float32" not in says and "crops" not in says:
        with pytest.raises(InputError, match=says):
            load(write(image_arrays()), other)


def test_npz_of_images_that_are_not_rgb_and_not_square(write):
    spec = image_spec(1, 6, 9)
    arrays = {f"{s}.image": np.full((3, 6, 9, 1), 255, np.uint8) for s in ("search", "report")}
    arrays |= {f"{s}.target": np.arange(3) for s in ("search", "report")}
    fed, _ = next(load(write(arrays), spec).search.batches(2))
    assert fed["image"].shape == (2, 1, 6, 9)
    assert fed["image"].min() == 1


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    image_folder(tmp_path / "images")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("imagefolder:~/images").search)


def test_cifar10_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no CIFAR-10 in"):
        load(f"cifar10:{tmp_path}")


def test_bundled_where_nothing_is():
    with pytest.raises(InputError, match=r"data 'bundled': there is no file .*some-supernet"):
        load("bundled")


@pytest.mark.parametrize("spec", ["bundeld", "npz", "npz:", "", "imagefolder"])
def test_unknown_source(spec):
    with pytest.raises(InputError, match="unknown data") as caught:
        load(spec)
    assert "imagefolder:PATH" in str(caught.value)
    assert "MODULE:FUNCTION" in str(caught.value)
    assert spec != "bundeld" or "Did you mean 'bundled'?" in str(caught.value)
