"""What people expect of any command line: settings in a file, quiet, logs, completion, clean."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.run.settings import read_settings, settings_text
from tests.run.search_parts import leave_undrawn

SMALL = """[search]
supernet = "test-images"
device = "scripted"
data = "hwsearch_test_plugin:image_task"
tactic = "random"
budget = 6
freeze = ["stage1.*=max"]
"""
pytestmark = pytest.mark.timeout(300)


def call(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search by a file in the working directory, quietly: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("habits")
    (folder / "hwsearch.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, call("search", "--quiet", "--json", "--seed", 3, "--out", "run")


@pytest.fixture(scope="module")
def repeated(searched, tmp_path_factory):
    """The same search by the record of that run, with logs: what it printed."""
    record, out = searched[0] / "run" / "config.toml", tmp_path_factory.mktemp("again") / "run"
    result = call("search", "--config", record, "--out", out, "--json", "-v")
    assert result.exit_code == 0, result.stderr
    return result


class TestSettings:
    def test_a_file_here_is_searched_by_and_options_override_it(self, searched):
        folder, result = searched
        assert result.exit_code == 0, result.stderr
        config = hwsearch.Run(folder / "run").config
        assert (config.supernet, config.device, config.seed) == ("test-images", "scripted", 3)
        assert (config.budget, config.freeze) == (6, ("stage1.*=max",))

    def test_the_record_of_a_run_repeats_it(self, searched, repeated):
        assert json.loads(repeated.stdout) == json.loads(searched[1].stdout)

    def test_what_is_overridden_is_said(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        Path("hwsearch.toml").write_text(SMALL)
        given = {}
        monkeypatch.setattr("hwsearch.search", lambda _, **all_: given.update(all_) or 1 / 0)
        result = call("search", "--budget", 3, "--freeze", "a=1", "--freeze", "b=2")
        assert result.stderr.splitlines()[0] == (
            "settings hwsearch.toml, but for budget, freeze as given"
        )
        assert given.pop("progress")
        assert given == {
            "device": "scripted",
            "data": "hwsearch_test_plugin:image_task",
            "tactic": "random",
            "budget": 3,
            "freeze": ["a=1", "b=2"],
        }

    def test_a_file_with_a_mistake_stops_a_search_before_it_begins(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        Path("hwsearch.toml").write_text("[search]\nbudgte = 3\n")
        for given in ((), ("--config", "hwsearch.toml")):
            result = call("search", *given, "--out", "run")
            assert result.exit_code == 2
            assert "unknown setting in 'hwsearch.toml' 'budgte'" in result.stderr
            assert len(result.stderr.splitlines()) == 1
        assert not Path("run").exists()

    def test_every_setting_has_an_option_and_every_option_is_a_setting(self, monkeypatch):
        given = {}
        monkeypatch.setattr(
            "hwsearch.cli.runs.chosen_settings", lambda _, options: given.update(options) or 1 / 0
        )
        assert call("search").exit_code == 1
        named = {line.removeprefix("# ").split(" = ")[0] for line in settings_text().splitlines()}
        assert set(given) == {name for name in named if name.isidentifier()}
        assert set(given.values()) == {None}, "what is not given leaves the file's value"

    def test_init_writes_a_file_that_a_search_takes_and_replaces_none(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        result = call("init")
        assert result.stdout == "settings hwsearch.toml\nnext     hwsearch search\n"
        assert read_settings(Path("hwsearch.toml"))["supernet"] == "cifar10-resnet"
        again = call("init")
        assert (again.exit_code, again.stdout) == (2, "")
        assert "exist already" in again.stderr
        assert json.loads(call("init", "b.toml", "--json").stdout) == {"file": "b.toml"}
        assert call("init", "c.toml").stdout.endswith("hwsearch search --config c.toml\n")


class TestHowMuchIsSaid:
    def test_quiet_says_the_result_only(self, searched):
        result = searched[1]
        assert result.stderr == ""
        assert json.loads(result.stdout)

    def test_verbose_logs_to_stderr_instead_of_a_bar(self, repeated):
        lines = [line for line in repeated.stderr.splitlines() if " INFO hwsearch." in line]
        assert lines == repeated.stderr.splitlines(), "no bar, and nothing of every step"
        for phase in ("settings ", "search: 0 of 6", "confirm: 0 of ", "export: 0 of "):
            assert [line for line in lines if f"hwsearch.run.progress: {phase}" in line]

    def test_it_may_stand_before_the_command(self, searched):
        for args in (("-v", "resume", searched[0] / "run"), ("resume", searched[0] / "run", "-v")):
            result = call(*args)
            assert " INFO hwsearch.supernets.zoo: loaded supernet test-images" in result.stderr
            assert "front: " in result.stdout

    def test_debug_logs_every_step(self, searched):
        model, *_ = searched[0].glob("run/subnets/*/model.onnx")
        result = call("measure", model, "--debug")
        assert result.exit_code == 0, result.stderr
        assert " DEBUG hwsearch.devices.worker_process: started" in result.stderr

    def test_debug_lets_errors_through_where_it_stands(self):
        for args in (("--debug", "front", "nowhere"), ("front", "nowhere", "--debug")):
            assert isinstance(call(*args).exception, hwsearch.InputError)
        assert "error: " in call("front", "nowhere").stderr, "and for that call alone"

    def test_every_command_takes_these_options(self):
        for command in ("search", "front", "clean", "devices", "supernets", "init"):
            shown = call(command, "--help").stdout
            assert all(option in shown for option in ("--quiet", "--verbose", "--debug", "--json"))

    def test_the_library_says_nothing_unless_asked(self, searched, capfd, caplog, monkeypatch):
        assert logging.getLogger("hwsearch").handlers, "a NullHandler"
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", [])  # as where nobody configured logging
            logging.getLogger("elsewhere").warning("as Python says what no handler takes")
            hwsearch.resume(searched[0] / "run")
        assert capfd.readouterr() == ("", "as Python says what no handler takes\n")
        caplog.set_level(logging.INFO, logger="hwsearch")
        hwsearch.resume(searched[0] / "run")
        assert capfd.readouterr() == ("", "")
        assert any(message.startswith("loaded supernet") for message in caplog.messages)

    def test_python_m_hwsearch_is_the_command(self):
        args = [sys.executable, "-m", "hwsearch", "--version"]
        process = subprocess.run(args, capture_output=True, text=True, check=True)
        assert process.stdout == f"{hwsearch.__version__}\n"


class TestClean:
    @pytest.fixture
    def leftover(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
        path = tmp_path / "runs" / "a" / ".front.csv.abcd1234"
        path.parent.mkdir(parents=True)
        (path.parent / "config.toml").write_text("[search]\n[recorded]\n")
        path.write_bytes(b"x" * 1500)
        os.utime(path, (time.time() - 9999,) * 2)
        return path

    def test_shows_and_removes_nothing_unless_told_to(self, leftover):
        result = call("clean")
        assert result.exit_code == 0, result.stderr
        assert "1.5 kB  runs/a/.front.csv.abcd1234  (half-written" in result.stdout
        assert "nothing was removed; --yes removes these 1 (1.5 kB)" in result.stdout
        assert leftover.exists()

    def test_removes_what_can_go(self, leftover):
        assert call("clean", "--yes").stdout.endswith("removed 1 (1.5 kB)\n")
        assert [path.name for path in leftover.parent.iterdir()] == ["config.toml"]
        assert "nothing can go" in call("clean").stdout

    def test_as_json(self, leftover):
        found = json.loads(call("clean", "runs/a", "--json").stdout)
        assert [place["kind"] for place in found["places"]] == [
            "run", "cache", "imported", "scratch",
        ]  # fmt: skip
        (only,) = found["places"][0]["leftovers"]
        assert (only["path"], only["bytes"]) == ("runs/a/.front.csv.abcd1234", 1500)
        assert found["removed"] == []
        assert json.loads(call("clean", "--yes", "--json").stdout)["removed"] == [only["path"]]

    def test_a_finished_run_stays_as_it_is(self, searched):
        before = {p: p.read_bytes() for p in (searched[0] / "run").rglob("*") if p.is_file()}
        assert call("clean", searched[0] / "run", "--yes").exit_code == 0
        after = {p: p.read_bytes() for p in (searched[0] / "run").rglob("*") if p.is_file()}
        assert after == before

    def test_a_folder_that_is_no_run(self, tmp_path):
        result = call("clean", tmp_path, "--yes")
        assert result.exit_code == 2
        assert "is no run" in result.stderr
