"""The script that ships with a model prepares images of other layouts and colours as a search."""

import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hwsearch.accuracy.sources import load_task
from hwsearch.supernets.interface import TensorSpec
from tests.accuracy.folders import image_spec
from tests.models.test_infer import arranged


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_other_layouts_and_colours(layout, colour, tmp_path, monkeypatch):
    spec = image_spec(3, 8, 12)
    shape = (8, 12, 3) if layout == "NHWC" else (3, 8, 12)
    preprocessing = replace(spec.preprocessing, layout=layout, colour=colour, mean=(0.1, 0.2, 0.3))
    inputs = (TensorSpec(name="image", shape=shape),)
    spec = replace(spec, inputs=inputs, preprocessing=preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    task = load_task(f"imagefolder:{tmp_path}", spec, "", labels="optional")
    ((fed, _),) = task.search.batches(1)
    monkeypatch.setattr(sys, "argv", ["infer.py", str(tmp_path / "0.png")])
    found = runpy.run_path(str(arranged(tmp_path, spec)))["feed"]["image"]
    assert found.shape == (1, *shape)
    np.testing.assert_allclose(found, fed["image"], atol=1e-6)
