"""Relative paths of a run, resumed from elsewhere and after it was moved."""

import shutil
import sys
from pathlib import Path

import pytest

import hwsearch
from hwsearch.run.config import (
    RunConfig,
    located,
    module_directories,
    places,
    read_config,
    recorded_place,
    write_config,
)
from hwsearch.run.settings import read_settings
from tests.cli.commands import call

SETTINGS = {
    "checkpoint": "weights/w.safetensors",
    "data": "npz:data/images.npz",
    "warm_start": "runs/first",
    "device": "kit:tables/t.json",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with everything that settings may name, and a run in it."""
    home = tmp_path / "project"
    for name in ("weights/w.safetensors", "data/images.npz", "tables/t.json", "runs/first/c"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    (home / "mine.py").touch()
    monkeypatch.chdir(home)
    run = home / "runs" / "run"
    run.mkdir()
    write_config(run, RunConfig(**SETTINGS), recorded_place(Path("runs/run"), RunConfig()))
    (tmp_path / "elsewhere").mkdir()
    return home


def found(run):
    config, recorded = read_config(run)
    return located(config, places(run, recorded))


def absolute(home):
    return RunConfig(
        checkpoint=str(home / "weights/w.safetensors"),
        data=f"npz:{home / 'data/images.npz'}",
        warm_start=str(home / "runs/first"),
        device=f"kit:{home / 'tables/t.json'}",
    )


def test_are_found_from_another_working_directory(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert found(project / "runs/run") == absolute(project)
    assert found(Path("../project/runs/run")) == absolute(project)


def test_are_found_when_the_run_alone_was_moved(project, tmp_path, monkeypatch):
    shutil.move(project / "runs/run", tmp_path / "elsewhere/moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert found(Path("moved")) == absolute(project)


def test_are_found_when_the_whole_project_was_moved(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.move(project, tmp_path / "renamed")
    assert found(tmp_path / "renamed/runs/run") == absolute(tmp_path / "renamed")


def test_what_is_nowhere_is_left_as_it_was_written(project):
    shutil.rmtree(project / "data")
    assert found(project / "runs/run").data == "npz:data/images.npz"


def test_what_is_no_path_stays_as_it_is(tmp_path):
    config = RunConfig(checkpoint="random:0", data="bundled", device="ort-cpu:threads=2")
    assert located(config, (tmp_path,)) == config


def test_modules_are_imported_from_where_the_run_began(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = RunConfig(supernet="mine:load")
    _, recorded = read_config(project / "runs/run")
    found_in = module_directories(config, places(project / "runs/run", recorded))
    assert found_in == (str(project),)


def test_a_run_of_before_they_were_recorded_is_read(tmp_path):
    write_config(tmp_path, RunConfig(**SETTINGS), {})
    assert found(tmp_path) == RunConfig(**SETTINGS)


def test_the_record_of_a_run_is_repeated_from_elsewhere(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = read_settings(project / "runs/run/config.toml")
    assert RunConfig(**settings) == absolute(project)


NET = """
from hwsearch.supernets.zoo import load_supernet

def load(checkpoint):
    return load_supernet("test-images").network
"""


@pytest.mark.timeout(300)
def test_a_search_goes_on_from_another_working_directory(quick_infer, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "net_of_mine.py").write_text(NET)
    monkeypatch.chdir(home)
    monkeypatch.setattr("sys.path", sys.path[:])
    given = {"device": "scripted", "data": "hwsearch_test_plugin:image_task", "tactic": "random"}
    hwsearch.search("net_of_mine:load", **given, budget=3, out="run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "net_of_mine")
    sys.path.remove(str(home))
    run = hwsearch.resume("home/run", budget=4)
    assert len(run.trials) == 4


@pytest.mark.timeout(300)
def test_a_module_beside_the_settings_is_found_and_again_by_resume(
    quick_infer, tmp_path, monkeypatch
):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (home / "net_beside.py").write_text(NET)
    (home / "hwsearch.toml").write_text(
        '[search]\nsupernet = "net_beside:load"\ndevice = "scripted"\ntactic = "random"\n'
        'data = "hwsearch_test_plugin:image_task"\nbudget = 3\n'
    )
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.path", sys.path[:])
    result = call("search", "--config", home / "hwsearch.toml", "--out", "run")
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "net_beside")
    sys.path.remove(str(home))
    assert len(hwsearch.resume("here/run", budget=4).trials) == 4
