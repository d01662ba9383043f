"""The ten lines that ship with a model give the model's own answer."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from hwsearch.accuracy.sources import load_task
from hwsearch.models.artifact import INFER
from hwsearch.models.infer import infer_script
from hwsearch.models.module_outputs import torch_outputs
from tests.accuracy.folders import KINDS, REFUSED, image_spec


def infer(folder, *arguments):
    done = subprocess.run(
        [sys.executable, str(folder / INFER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder.parent,
    )
    return done.stdout


def scores_of(text):
    """Class name -> score, from lines of a score and a name."""
    return {line.split()[1]: float(line.split()[0]) for line in text.splitlines()}


@pytest.mark.parametrize("size", [(23, 17), (16, 16), (31, 55)])
def test_image(size, written, exported_of, tmp_path):
    """The same pixels as an image folder gives, and the same scores as the network's."""
    net, exported = exported_of("test-images")
    spec = net.input_spec(exported.arch)
    rng = np.random.default_rng(size[0])
    picture = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8))
    (tmp_path / "only").mkdir()
    for i in range(3):
        picture.save(tmp_path / "only" / f"{i}.png")
    task = load_task(f"imagefolder:{tmp_path}", spec, "")
    ((fed, _),) = task.search.batches(1)
    (expected,) = torch_outputs(exported.subnet, fed)
    scores = scores_of(infer(written("test-images"), tmp_path / "only" / "0.png"))
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert set(scores) == set(spec.classes)
    for name, score in scores.items():
        assert score == pytest.approx(expected[0][spec.classes.index(name)], abs=2e-4)


def arranged(tmp_path, spec):
    """The script of a spec, beside a model that gives its input back."""
    names = [spec.inputs[0].name, *spec.outputs]
    shape = ["batch", *spec.inputs[0].shape]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    nodes = [helper.make_node("Identity", names[:1], [name]) for name in names[1:]]
    graph = helper.make_graph(nodes, "echo", infos[:1], infos[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    (tmp_path / "card.json").write_text(json.dumps({"input": spec.to_dict()}))
    (tmp_path / INFER).write_text(infer_script(spec))
    return tmp_path / INFER


@pytest.fixture
def feed_of(tmp_path, monkeypatch):
    """What the script feeds the model with for an image, run in this process."""

    def run(spec, image):
        monkeypatch.setattr(sys, "argv", ["infer.py", str(image)])
        return runpy.run_path(str(arranged(tmp_path, spec)))["feed"]["image"]

    return run


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 14), (17, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_image_is_what_a_search_sees(kind, channels, height, width, feed_of, tmp_path):
    folder = tmp_path / "images"
    KINDS[kind](folder / "only")
    spec = image_spec(channels, height, width)
    task = load_task(f"imagefolder:{folder}", spec, "")
    ((fed, _),) = task.search.batches(1)
    ours = feed_of(spec, task.search.paths[0])
    assert ours.shape == (1, channels, height, width)
    np.testing.assert_allclose(ours, fed["image"], atol=1e-6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_images_of_no_known_range_are_refused(kind, feed_of, tmp_path):
    REFUSED[kind](tmp_path / "images")
    (path, *_) = (tmp_path / "images").iterdir()
    with pytest.raises(SystemExit, match=r"the range of its values .* is not known; convert it"):
        feed_of(image_spec(3, 8, 8), path)


@pytest.mark.parametrize(
    ("outputs", "printed"),
    [
        (("scores",), "  x\n"),
        (("features", "logits"), "  x\n"),
        (("features", "other"), "other (1, 3, 1, 1) ["),
    ],
)
def test_the_declared_output_is_printed(outputs, printed, tmp_path, monkeypatch, capsys):
    """One pixel: three scores."""
    spec = replace(image_spec(3, 1, 1), outputs=outputs, classes=("x", "y", "z"))
    monkeypatch.setattr(sys, "argv", ["infer.py"])
    script = runpy.run_path(str(arranged(tmp_path, spec)))
    assert printed in capsys.readouterr().out
    if "scores" in script:
        assert f" run(['{outputs[-1]}']" in (tmp_path / INFER).read_text()


@pytest.mark.parametrize("shape", [(2, 8, 8), (6, 8, 8), (3, 8, 8, 8)])
def test_other_images_are_given_as_arrays(shape):
    spec = image_spec(3, 8, 8)
    other = replace(spec, inputs=(replace(spec.inputs[0], shape=shape),))
    assert "python infer.py INPUT.npz" in infer_script(other)
    two = replace(spec, inputs=(*spec.inputs, replace(spec.inputs[0], name="depth")))
    assert "python infer.py INPUT.npz" in infer_script(two)


def test_sizes_are_rounded_as_in_an_image_folder(written):
    """Among these shapes are those where another order of the same product rounds down."""
    from torchvision.transforms.functional import _compute_resized_output_size

    script = (written("test-images") / INFER).read_text()
    (line,) = (line for line in script.splitlines() if line.startswith("w, h = "))
    code = compile(line, INFER, "exec")
    for resize in (7, 16, 224):
        for short in range(28, 300, 28):
            for long in range(short, 3 * short):
                image = SimpleNamespace(size=(long, short))
                names = {"p": {"resize": resize}, "image": image, "short": short}
                exec(code, names)  # a line of a script of ours
                expected = _compute_resized_output_size((short, long), [resize])
                assert [names["h"], names["w"]] == expected, (resize, short, long)


def test_image_in_grey_where_none_is_given(written):
    assert len(infer(written("test-images")).splitlines()) == 4


def test_arrays(written, exported_of, tmp_path):
    _, exported = exported_of("test-tokens")
    tokens = np.arange(24).reshape(2, 12) % 20
    np.savez(tmp_path / "input.npz", tokens=tokens)
    (expected,) = torch_outputs(exported.subnet, {"tokens": tokens})
    name, rest = infer(written("test-tokens"), tmp_path / "input.npz").split(" ", maxsplit=1)
    shape, numbers = rest.split("[", maxsplit=1)
    assert name == "scores"
    assert shape.strip() == "(2, 4)"
    given = [float(number) for number in numbers.strip(" ]\n").split()]
    np.testing.assert_allclose(given, expected[0], atol=2e-4)


def test_zeros_where_no_arrays_are_given(written, exported_of):
    _, exported = exported_of("test-tokens")
    (expected,) = torch_outputs(exported.subnet, {"tokens": np.zeros((1, 12), np.int64)})
    text = infer(written("test-tokens"))
    numbers = text.split("[", maxsplit=1)[1].strip(" ]\n").split()
    np.testing.assert_allclose([float(n) for n in numbers], expected[0], atol=2e-4)
