"""Reading data and comparing outputs load no PyTorch: elastic models are searched without."""

import subprocess
import sys

CODE = """
import sys
import numpy as np
from pathlib import Path
from PIL import Image
from hwsearch.accuracy import answers, decoding, imagefolder, images, original, text
from hwsearch.accuracy.classes import imagenet_names
from hwsearch.models import input_spec, preprocessing

folder = Path(sys.argv[1])
for i in range(9):
    Image.new("RGB", (9, 8), (i, i, i)).save(folder / f"{i}.png")
splits, _ = imagefolder.read_imagefolder(folder, tuple(map(str, range(1000))), labels="optional")
crop = decoding.CropSize(8, (8, 8, 3))
files = splits["search"]
samples = images.ImageSamples(folder, *files, None, images.DecodedImageCache())
list(samples.decoded(crop, 4))
assert len(imagenet_names()) == 1000
loaded = sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision"))
assert not loaded, loaded[:5]
"""


def test_images_load_no_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
