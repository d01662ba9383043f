"""Script ``infer.py``, which is shipped with a model and runs it on one image or on arrays."""

from hwsearch.supernets.interface import InputSpec

# Image decoding repeats `hwsearch.accuracy.decoding`; tests compare the two.
_IMAGE = '''\
"""Run model.onnx on one image: python infer.py IMAGE (a plain grey one where none is given)."""
import json, pathlib, sys
import numpy as np, onnxruntime
from PIL import Image, ImageOps
here = pathlib.Path(__file__).parent
spec = json.loads((here / "card.json").read_text(encoding="utf-8"))["input"]
p, classes, shape = spec["preprocessing"], spec["classes"], spec["inputs"][0]["shape"]
last = p["layout"] == "NHWC"
height, width, channels = shape if last else (*shape[1:], shape[0])
image = Image.open(sys.argv[1]) if len(sys.argv) > 1 else Image.new("RGB", (p["resize"],) * 2, "grey")
deep, bits = image.mode, getattr(image, "tag_v2", {}).get(258, (16,))
scaled = deep.startswith("I;16") or (deep == "I" and image.format in ("PNG", "PPM"))
if deep[0] in "IF" and not (scaled and set(bits) == {16}):
    sys.exit(f"{sys.argv[1]}: the range of its values (mode {deep}) is not known; convert it to 8 or 16 bits")
image = ImageOps.exif_transpose(image)
if scaled:
    image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
image = image.convert("RGBA") if "transparency" in image.info else image
image, short = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]), min(image.size)
w, h = (int(p["resize"] * side / short) for side in image.size)
if w < width or h < height:
    cover = max(width / image.width, height / image.height)
    w, h = (round(side * cover) for side in image.size)
left, top = round((w - width) / 2), round((h - height) / 2)
image = image.resize((w, h), Image.BILINEAR).crop((left, top, left + width, top + height))
x = np.asarray(image, np.float32).reshape(height, width, channels)[..., :: -1 if p["colour"] == "BGR" else 1]
x = (x / 255 - np.float32(p["mean"])) / np.float32(p["std"])
feed = {spec["inputs"][0]["name"]: np.ascontiguousarray(x if last else x.transpose(2, 0, 1))[None]}
'''  # noqa: E501 - a script to read in one sitting

_ARRAYS = '''\
"""Run model.onnx on arrays: python infer.py INPUT.npz (zeros where none is given)."""
import json, pathlib, sys
import numpy as np, onnxruntime
here = pathlib.Path(__file__).parent
spec = json.loads((here / "card.json").read_text(encoding="utf-8"))["input"]
given = np.load(sys.argv[1]) if len(sys.argv) > 1 else {}
feed = {t["name"]: given[t["name"]] if t["name"] in given else np.zeros((1, *t["shape"]), t["dtype"]) for t in spec["inputs"]}
'''  # noqa: E501 - the same

_RUN = """\
model, providers = str(here / "model.onnx"), ["CPUExecutionProvider"]
run = onnxruntime.InferenceSession(model, providers=providers).run
"""

_RUN_OPENVINO = """\
# It was measured and scored as OpenVINO computes it in {run_in}; in ONNX Runtime it is float32.
computed = {{"INFERENCE_PRECISION_HINT": {run_in!r}}}
compiled = openvino.Core().compile_model(here / "model.onnx", "CPU", computed)
run = lambda names, feed: [compiled(feed)[name] for name in names]
"""

_SCORES = """\
scores = run([{output!r}], feed)[0][0].ravel()
for i in np.argsort(-scores)[:5]:
    print(f"{{scores[i]:9.4f}}  {{classes[i] if classes else i}}")
"""

_OUTPUTS = """\
for name, output in zip(spec["outputs"], run(spec["outputs"], feed)):
    print(name, output.shape, np.array2string(output[0], precision=4, threshold=10))
"""


def infer_script(spec: InputSpec, run_in: str | None = None) -> str:
    """Return the script; it prints the five highest class scores if known, else all outputs.

    It takes an image where the only input is a float32 image of 1, 3 or 4 channels. With
    ``run_in`` it computes in that precision, by OpenVINO.
    """
    first, p, place = spec.inputs[0], spec.preprocessing, spec.position("logits")
    channels = 0
    if len(first.shape) == 3 and first.dtype == "float32":
        channels = first.shape[2 if p is not None and p.layout == "NHWC" else 0]
    is_image = p is not None and len(p.mean) == len(p.std) == channels
    if len(spec.inputs) > 1 or not is_image or channels not in (1, 3, 4):
        begin, end = _ARRAYS, _OUTPUTS
    else:
        begin = _IMAGE
        end = _OUTPUTS if place is None else _SCORES.format(output=spec.outputs[place])
    if run_in is None:
        return begin + _RUN + end
    return begin.replace("onnxruntime", "openvino") + _RUN_OPENVINO.format(run_in=run_in) + end
