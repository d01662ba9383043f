"""The ten lines of ``infer.py`` that ship beside a model."""

from hwsearch.supernets.base import InputSpec

_IMAGE = '''\
"""Run model.onnx on one image: python infer.py IMAGE (a plain grey one where none is given)."""
import json, pathlib, sys
import numpy as np, onnxruntime
from PIL import Image
here = pathlib.Path(__file__).parent
spec = json.loads((here / "card.json").read_text())["input"]
p, classes = spec["preprocessing"], spec["classes"]
image = Image.open(sys.argv[1]).convert("RGB") if len(sys.argv) > 1 else Image.new("RGB", (p["resize"],) * 2, "grey")
crop, short = p["crop"], min(image.size)
w, h = (int(p["resize"] * side / short) for side in image.size)
left, top = round((w - crop) / 2), round((h - crop) / 2)
image = image.resize((w, h), Image.BILINEAR).crop((left, top, left + crop, top + crop))
x = ((np.asarray(image, np.float32) / 255 - np.float32(p["mean"])) / np.float32(p["std"])).transpose(2, 0, 1)[None]
scores = onnxruntime.InferenceSession(str(here / "model.onnx"), providers=["CPUExecutionProvider"]).run(None, {spec["inputs"][0]["name"]: x})[0][0]
for i in np.argsort(-scores)[:5]:
    print(f"{scores[i]:9.4f}  {classes[i] if classes else i}")
'''  # noqa: E501 - ten lines to read, not a module to maintain

_ARRAYS = '''\
"""Run model.onnx on arrays: python infer.py INPUT.npz (zeros where none is given)."""
import json, pathlib, sys
import numpy as np, onnxruntime
here = pathlib.Path(__file__).parent
spec = json.loads((here / "card.json").read_text())["input"]
given = np.load(sys.argv[1]) if len(sys.argv) > 1 else {}
feed = {t["name"]: given[t["name"]] if t["name"] in given else np.zeros((1, *t["shape"]), t["dtype"]) for t in spec["inputs"]}
outputs = onnxruntime.InferenceSession(str(here / "model.onnx"), providers=["CPUExecutionProvider"]).run(None, feed)
for name, output in zip(spec["outputs"], outputs):
    print(name, output.shape, np.array2string(output[0], precision=4, threshold=10))
'''  # noqa: E501 - the same


def infer_script(spec: InputSpec) -> str:
    """Return the script for models fed with images, or with plain arrays."""
    return _IMAGE if spec.preprocessing is not None else _ARRAYS
