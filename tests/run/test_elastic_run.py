"""Searches that begin with a trained model: made elastic, searched, verified, resumed."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch.cli import app
from hwsearch.errors import InputError
from hwsearch.models.artifact import read_card
from tests.elastic_parts import write_model, write_samples

pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("origin")
    write_samples(folder / "data.npz", write_model(folder / "model.onnx"))
    return folder


@pytest.fixture
def place(origin, tmp_path, monkeypatch):
    """A working directory with a model and samples of its own."""
    for file in origin.iterdir():
        shutil.copy(file, tmp_path / file.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SETTINGS = {"device": "scripted", "data": "npz:data.npz", "budget": 8}


def test_from_a_file_to_a_verified_front(device, place):
    run = hwsearch.search("model.onnx", out="run", **SETTINGS)
    assert len(run.front) > 1
    assert set(run.verify().values()) == {None}
    card = read_card(run.folder / "subnets" / run.front["key"][0])
    assert card["supernet"]["name"] == "model.onnx"
    assert card["graph"] == "sliced from the given model"
    assert card["verification"]["disagreement"] <= 1e-5
    assert (run.folder / run.recorded["elastic"]["folder"]).is_dir()


def test_a_stopped_run_goes_on_elsewhere_without_the_model(device, place, monkeypatch, tmp_path):
    whole = hwsearch.search("model.onnx", out=place / "whole", **SETTINGS)
    with monkeypatch.context() as patch:
        parts.interrupt_measuring(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            hwsearch.search("model.onnx", out="stopped", **SETTINGS)
    stopped = Path("stopped").absolute()
    Path("model.onnx").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = hwsearch.resume(stopped)
    assert resumed.trials["key"].tolist() == whole.trials["key"].tolist()
    assert resumed.front.equals(whole.front)


def test_a_run_is_refused_where_the_model_was_changed(device, place, monkeypatch):
    parts.interrupt_measuring(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        hwsearch.search("model.onnx", out="run", **SETTINGS)
    shutil.rmtree(hwsearch.Run("run").recorded["elastic"]["folder"])
    write_model(place / "model.onnx", seed=7)
    with pytest.raises(InputError, match=r"cannot go on here.*weights"):
        hwsearch.resume("run")


def test_a_folder_serves_several_searches(device, place):
    net = hwsearch.elastify("model.onnx", "npz:data.npz", out="mine.elastic")
    some = net.restrict(freeze=[f"{net.space.names[0]}=max"])
    one = hwsearch.search(some, out="one", **SETTINGS)
    other = hwsearch.search("mine.elastic", out="other", **SETTINGS)
    assert one.recorded["weights"] == other.recorded["weights"]
    assert hwsearch.resume("other").front.equals(other.front)


def test_a_search_begins_with_the_path_of_its_space(device, place):
    net = hwsearch.elastify("model.onnx", "npz:data.npz", out="mine.elastic")
    some = net.restrict(freeze=[f"{net.space.names[0]}=max"])
    run = hwsearch.search(some, out="run", **SETTINGS)
    path = some.path()
    first = run.trials["key"][: min(8, len(path))].tolist()
    assert first[:2] == [path.ids[0], path.ids[-1]]
    assert set(first) <= set(path.ids)
    assert run.setup(some).objectives[0].covariate(path) == pytest.approx(net.expected_loss(path))


def test_data_are_asked_for(device, place):
    hwsearch.elastify("model.onnx", "npz:data.npz", out="mine.elastic")
    with pytest.raises(InputError, match=r"no samples ship with 'mine\.elastic'"):
        hwsearch.search("mine.elastic", device="scripted", out="run")
    with pytest.raises(InputError, match=r"'model\.onnx' is a trained model"):
        hwsearch.search("model.onnx", device="scripted", out="run")


def test_samples_without_labels(device, place):
    data = write_samples(place / "plain.npz", "model.onnx", labelled=False)
    run = hwsearch.search("model.onnx", out="run", **{**SETTINGS, "data": data})
    assert run.objectives[0].name != "top1"
    assert set(run.verify().values()) == {None}


def test_the_command(place):
    done = CliRunner().invoke(
        app, ["elastify", "model.onnx", "--data", "npz:data.npz", "--out", "mine.elastic"]
    )
    assert done.exit_code == 0, done.output
    for words in ("million MACs", "are elastic", "choices are searched", "architectures"):
        assert words in done.output
    assert "hwsearch search --supernet mine.elastic --data npz:data.npz" in done.output
    done = CliRunner().invoke(app, ["elastify", "model.onnx", "--data", "npz:data.npz", "--json"])
    told = json.loads(done.stdout)
    assert told["elastic"] > 0.9
    assert Path(told["folder"]).is_dir()


def test_a_shape_that_is_none(place):
    done = CliRunner().invoke(
        app, ["elastify", "model.onnx", "--data", "npz:data.npz", "--shape", "image=3,x"]
    )
    assert done.exit_code == 2
    assert "is not of the form INPUT=N,N,..." in done.output


@pytest.mark.timeout(120)
def test_searching_a_file_loads_no_pytorch(place):
    script = """
        import sys
        import hwsearch, hwsearch.devices
        import hwsearch.run.finish, hwsearch.verify.subnet
        hwsearch.devices.load_device("ort-cpu:threads=1")
        for module in (hwsearch.run.finish, hwsearch.verify.subnet):
            module.run_infer = lambda folder: "scripted\\n"  # a process of its own
        run = hwsearch.search(
            "model.onnx", data="npz:data.npz", device="scripted", budget=4, out="run"
        )
        run.verify()
        print("torch" in sys.modules, "torchvision" in sys.modules, len(run.front))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch, torchvision, members = done.stdout.split()
    assert (torch, torchvision) == ("False", "False")
    assert int(members) > 0
