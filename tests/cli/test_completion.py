"""What the shell completes, and that it is quick."""

import os
import subprocess
import sys

import pytest

from hwsearch.cli.completion import (
    complete_device,
    complete_run,
    complete_supernet,
    complete_tactic,
)

WORDS = {
    "search --supernet ofa-r": ["ofa-resnet50"],
    "search --supernet models/": ["models/mine.onnx"],
    "kit cifar": ["cifar10-resnet"],
    "profile cifar": ["cifar10-resnet"],
    "search --device openv": ["openvino"],
    "measure --device openv": ["openvino"],
    "profile x --device openv": ["openvino"],
    "devices check openv": ["openvino"],
    "search --tactic ns": ["nsga2"],
    "search --warm-start runs/": ["runs/first"],
    "front runs/": ["runs/first"],
    "resume runs/": ["runs/first"],
    "export runs/": ["runs/first"],
    "verify runs/": ["runs/first"],
    "confirm runs/": ["runs/first"],
    "clean runs/": ["runs/first"],
    "search --stop": ["--stop-gain"],
    "sea": ["search"],
}
BASH = (
    "import io, os, sys, contextlib\n"
    "from hwsearch.cli import app\n"
    "for words in sys.argv[1:]:\n"
    "    os.environ.update(COMP_WORDS='hwsearch ' + words, COMP_CWORD=str(len(words.split())),\n"
    "                      _HWSEARCH_COMPLETE='complete_bash')\n"
    "    printed = io.StringIO()\n"
    "    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):\n"
    "        app(prog_name='hwsearch')\n"
    "    print(words, '->', ' '.join(printed.getvalue().split()))\n"
    "print('torch' in sys.modules, 'onnxruntime' in sys.modules)\n"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("runs/first", "elsewhere/deep/second"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.toml").touch()
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.onnx").touch()
    (tmp_path / "models" / "notes.txt").touch()


def test_the_shell_gets_them_without_torch(here):
    process = subprocess.run(
        [sys.executable, "-c", BASH, *WORDS], capture_output=True, text=True, check=True
    )
    *lines, loaded = process.stdout.splitlines()
    assert lines == [f"{words} -> {' '.join(found)}" for words, found in WORDS.items()]
    assert loaded == "False False", "a shell waits for it"


def test_imported_supernets_are_completed_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path))
    (tmp_path / "supernets" / "cifar-mine").mkdir(parents=True)
    (tmp_path / "supernets" / ".cifar-half.abcd1234").mkdir()
    assert complete_supernet("cifar") == ["cifar10-resnet", "cifar-mine"]
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "nowhere"))
    assert complete_supernet("cifar") == ["cifar10-resnet"]


def test_options_of_a_device_are_completed_after_its_name():
    assert complete_device("ort-cpu:t") == ["ort-cpu:threads="]
    assert complete_device("ort-cpu:threads=2,") == [
        "ort-cpu:threads=2,batch=", "ort-cpu:threads=2,precision=",
    ]  # fmt: skip
    assert complete_device("nowhere:") == []


def test_runs_are_found_from_what_is_typed(here, tmp_path):
    assert complete_run("") == ["runs/first"]
    assert complete_run("./ru") == ["runs/first"]
    assert complete_run("elsewhere/") == ["elsewhere/deep/second"]
    assert complete_run(f"{tmp_path}/runs/f") == [f"{tmp_path}/runs/first"]
    assert complete_run("nowhere/x") == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything can be read here")
def test_what_cannot_be_read_is_passed_over(here, tmp_path):
    (tmp_path / "runs").chmod(0)
    try:
        assert complete_run("runs/") == []
    finally:
        (tmp_path / "runs").chmod(0o755)


def test_a_name_registered_twice_completes_nothing(monkeypatch):
    def clash(group):
        raise ValueError(group)

    monkeypatch.setattr("hwsearch.plugins.names", clash)
    assert complete_tactic("") == []
