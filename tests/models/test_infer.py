"""The ten lines that ship with a model give the model's own answer."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hwsearch.accuracy.sources import load_task
from hwsearch.models.artifact import INFER
from hwsearch.models.probe import torch_outputs


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
