"""Stages and blocks by the names of choices, as exporters and frameworks write them."""

import pytest

from hwsearch.report.stages import Place, common_path, places, shares
from hwsearch.space import Choice


def located(*names):
    return places([Choice(name, (1, 2)) for name in names])


@pytest.mark.parametrize(
    ("names", "where"),
    [
        pytest.param(
            ["resolution", "conv1.width", "layer1.width", "layer1.0.conv1.width", "layer1.1.keep"],
            [("", "", "resolution"), ("conv1", "", "width"), ("layer1", "", "width"),
             ("layer1", "0", "conv1.width"), ("layer1", "1", "keep")],
            id="ResNet",
        ),
        pytest.param(
            ["features.0.0.width", "features.2.conv.0.0.width", "features.2-3.width",
             "features.3.keep", "features.3.conv.0.0.width", "features.18.0.width"],
            [("features", "0", "0.width"), ("features.2-3", "features.2", "conv.0.0.width"),
             ("features.2-3", "", "width"), ("features.2-3", "features.3", "keep"),
             ("features.2-3", "features.3", "conv.0.0.width"), ("features", "18", "0.width")],
            id="MobileNet",
        ),
        pytest.param(
            ["bert.encoder.layer.0.keep", "bert.encoder.layer.0.attention.keep",
             "bert.encoder.layer.1.heads", "bert.pooler.dense.width"],
            [("encoder.layer", "0", "keep"), ("encoder.layer", "0", "attention.keep"),
             ("encoder.layer", "1", "heads"), ("pooler.dense", "", "width")],
            id="BERT",
        ),
        pytest.param(
            ["features.1.0.keep", "features.1.1.attn.heads", "features.3.0.keep",
             "features.3.1.mlp.width"],
            [("1", "0", "keep"), ("1", "1", "attn.heads"),
             ("3", "0", "keep"), ("3", "1", "mlp.width")],
            id="Swin",
        ),
        pytest.param(
            ["features.0.width", "features.3.width", "classifier.1.width"],
            [("features", "0", "width"), ("features", "3", "width"),
             ("classifier.1", "", "width")],
            id="VGG",
        ),
        pytest.param(["width"], [("", "", "width")], id="a name without a path"),
    ],
)  # fmt: skip
def test_places(names, where):
    assert list(located(*names).values()) == [Place(*each) for each in where]


def test_widths_are_shares_of_the_largest():
    assert shares((16, 48, 64)) == [0.25, 0.75, 1.0]
    assert shares((16, 64, "tied")) == [0.25, 1.0, None]
    assert shares((False, True)) is None
    assert shares(("a", "b")) is None


def test_what_all_stages_begin_with_is_left_out():
    where = located("net.body.layer1.0.keep", "net.body.layer1.1.keep", "net.body.layer2.0.keep")
    assert [place.stage for place in where.values()] == ["layer1", "layer1", "layer2.0"]
    assert common_path(["a.b.c", "a.b.d"]) == "a.b."
    assert common_path(["a.b", "a.b.c"]) == "a."
    assert common_path(["a.b"]) == ""
