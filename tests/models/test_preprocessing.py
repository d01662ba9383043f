"""Preprocessing of images as users state it, and as other tools write it beside a model."""

import json

import numpy as np
import pytest

from hwsearch.accuracy.decoding import image_preprocess
from hwsearch.errors import InputError
from hwsearch.models.preprocessing import preprocessing_of

SHAPE = (3, 224, 224)
PIXELS = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1).repeat(3, axis=3)


def fed(text, shape=SHAPE, pixels=PIXELS, **options):
    """The values 0, 51 and 255 of the first channel as the model gets them."""
    found = image_preprocess(preprocessing_of(text, shape, **options))(pixels)
    return found[0, 0, 0] if found.shape[1] == pixels.shape[3] else found[0, 0, :, 0]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", [-0.485 / 0.229, (0.2 - 0.485) / 0.229, 0.515 / 0.229]),
        ("imagenet", [-0.485 / 0.229, (0.2 - 0.485) / 0.229, 0.515 / 0.229]),
        ("0..1", [0, 0.2, 1]),
        ("-1..1", [-1, -0.6, 1]),
        ("0..255", [0, 51, 255]),
        ("mean=0.5,std=0.25", [-2, -1.2, 2]),
        ("std=0.5", [0, 0.4, 2]),
        ("scale=1,mean=127,std=128", [-127 / 128, -76 / 128, 1]),
        ("scale=1, mean=103.94/116.78/123.68", [-103.94, -52.94, 151.06]),
        ("scale=127.5,mean=1", [-1, -0.6, 1]),
        ("0..255,resize=256", [0, 51, 255]),
    ],
)
def test_what_the_model_gets(text, values):
    np.testing.assert_allclose(fed(text), values, rtol=1e-5, atol=1e-4)


def test_numbers_are_exact_where_they_can_be():
    found = preprocessing_of("imagenet", SHAPE)
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_sizes_and_layouts():
    assert preprocessing_of("", SHAPE).resize == 256
    assert preprocessing_of("", (3, 299, 299)).resize == 342
    assert preprocessing_of("", (3, 32, 32)).resize == 32
    assert preprocessing_of("resize=232", SHAPE).resize == 232
    found = preprocessing_of("", (96, 128, 3), "NHWC")
    assert (found.crop, found.layout) == (96, "NHWC")
    assert preprocessing_of("layout=nhwc", (96, 128, 3)).layout == "NHWC"


def test_blue_first():
    rgb = preprocessing_of("imagenet", SHAPE)
    bgr = preprocessing_of("imagenet,colour=BGR", SHAPE)
    assert bgr.mean == rgb.mean[::-1]
    assert bgr.std == rgb.std[::-1]
    stated = preprocessing_of("scale=1,mean=103.94/116.78/123.68,colour=bgr", SHAPE)
    np.testing.assert_allclose(np.multiply(stated.mean, 255), [103.94, 116.78, 123.68])


def test_grey_and_transparent():
    grey = preprocessing_of("", (1, 28, 28))
    assert (grey.mean, grey.std, grey.colour) == ((0.449,), (0.226,), "L")
    assert preprocessing_of("mean=0.1307,std=0.3081", (1, 28, 28)).mean == (0.1307,)
    assert len(preprocessing_of("", (4, 28, 28)).mean) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("imagnet", r"unknown preprocessing 'imagnet': range 'imagnet'.*Did you mean 'imagenet'"),
        ("means=0.5", "setting 'means'.*Did you mean 'mean'"),
        ("mean=", "mean is empty; give 'imagenet', '0..1'"),
        ("mean=half", "mean is 'half', no number"),
        ("mean=nan", "mean is 'nan', no number"),
        ("mean=0.5/0.5", "mean has 2 numbers, and images have 3 channels"),
        ("mean=127,std=128", r"are those of pixels from 0 to 255; add scale=1"),
        ("scale=0", "scale must be above 0"),
        ("std=0", "std not 0"),
        ("mean=1,mean=2", "mean is given twice"),
        ("0..1,std=2", "std is given twice"),
        ("resize=0", "resize is 0; give the pixels of the shorter side"),
        ("resize=2.5", "resize is 2.5; give"),
        ("layout=CHW", "unknown layout of images 'CHW'; known: NCHW, NHWC"),
        ("layout=NHWC", r"shape \(3, 224, 224\) has 224 channels as NHWC"),
        ("colour=GREY", "unknown colour of images of 3 channels 'GREY'"),
    ],
)
def test_what_cannot_be_understood(text, says):
    with pytest.raises(InputError, match=says):
        preprocessing_of(text, SHAPE)


class TestFilesBesideTheModel:
    @pytest.fixture
    def write(self, tmp_path):
        def save(name="preprocessor_config.json", **settings):
            (tmp_path / name).write_text(json.dumps(settings))
            return tmp_path

        return save

    def test_of_transformers(self, write):
        folder = write(
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
            do_rescale=True,
            rescale_factor=0.00392156862745098,
            size={"height": 224, "width": 224},
        )
        found = preprocessing_of("", SHAPE, folder=folder)
        assert (found.resize, found.mean, found.std) == (224, (0.5,) * 3, (0.5,) * 3)
        np.testing.assert_allclose(fed("", folder=folder), [-1, -0.6, 1], atol=1e-5)

    def test_of_transformers_with_a_crop(self, write):
        numbers = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
        size = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
        found = preprocessing_of("", SHAPE, folder=write(**numbers, **size))
        assert (found.resize, found.mean, found.std) == (256, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        found = preprocessing_of("resize=230", SHAPE, folder=write(**numbers, **size))
        assert (found.resize, found.mean) == (230, (0.1, 0.2, 0.3))
        found = preprocessing_of("0..1", SHAPE, folder=write(**numbers, **size))
        assert (found.resize, found.mean) == (256, (0.0,) * 3)

    def test_of_transformers_without_normalisation(self, write):
        folder = write(do_normalize=False, image_mean=[0.5], image_std=[0.5], size=224)
        np.testing.assert_allclose(fed("", folder=folder), [0, 0.2, 1], atol=1e-6)

    def test_of_timm(self, write):
        cfg = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.95}
        folder = write("config.json", pretrained_cfg=cfg)
        found = preprocessing_of("", SHAPE, folder=folder)
        assert (found.resize, found.mean) == (235, (0.5,) * 3)

    @pytest.mark.parametrize(
        "settings",
        [{}, {"image_mean": "grey"}, {"image_mean": [1, "a", 2], "image_std": [1, 1, 1]}],
    )
    def test_that_say_nothing(self, write, settings):
        assert preprocessing_of("", SHAPE, folder=write(**settings)).mean[0] == 0.485

    def test_that_are_damaged(self, tmp_path):
        (tmp_path / "preprocessor_config.json").write_text("{")
        (tmp_path / "config.json").write_text("[1]")
        assert preprocessing_of("", SHAPE, folder=tmp_path).mean[0] == 0.485
