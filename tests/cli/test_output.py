"""Where output goes: stdout has the result, whole and as it is, whatever the stream can hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwsearch.cli import app
from hwsearch.cli.output import say_json
from tests.cli.commands import MAIN, SMALL, call

pytestmark = pytest.mark.timeout(300)
MARKUP = "a[b] [red]c[/red] [/] :smile:"
LONG = "a-name-that-is-longer-than-most-terminals-are-wide-" * 3


def linked(finished, folder, name):
    """Give the finished run another name."""
    (folder / name).symlink_to(finished[0])
    return folder / name


class TestStdoutHasTheResult:
    def test_progress_and_notes_are_on_stderr(self, finished):
        _, printed, progress = finished
        assert len(printed.splitlines()) == 1
        assert json.loads(printed)
        assert "search: 0 of 8" in progress

    def test_without_a_terminal_nothing_is_folded_or_cut(self, finished, tmp_path):
        run = linked(finished, tmp_path, LONG)
        terminal = {"COLUMNS": "20", "FORCE_COLOR": "1"}
        result = CliRunner(env=terminal).invoke(app, ["front", str(run)])
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout
        assert f"report   {run}/report.html" in result.stdout.splitlines()
        assert f"table    {run}/front.csv" in result.stdout.splitlines()
        model = next(run.glob("subnets/*/model.onnx"))
        table = call("measure", model, "--device", "scripted").stdout
        assert any(str(model) in line for line in table.splitlines())
        assert "…" not in call("watch", run).stdout

    @pytest.mark.parametrize("command", ["front", "watch", "supernets", "devices", "clean"])
    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
    def test_streams_of_any_encoding_take_it(self, finished, command, encoding):
        folder, _, _ = finished
        args = [command] if command in ("supernets", "devices", "clean") else [command, folder]
        result = CliRunner(charset=encoding).invoke(app, list(map(str, args)))
        assert (result.exit_code, result.stderr_bytes) == (0, b"")
        assert result.stdout_bytes.decode(encoding)

    def test_a_search_ends_right_where_nothing_but_ascii_is_written(
        self, undrawn, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        runner = CliRunner(charset="ascii", env={"NO_COLOR": "1"})
        result = runner.invoke(app, ["search", *SMALL, "--budget", "4", "--out", "räder"])
        assert result.exit_code == 0
        assert b"r\\xe4der/front.csv" in result.stdout_bytes
        assert (tmp_path / "räder" / "report.html").is_file()

    def test_a_closed_pipe_ends_quietly(self, finished):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-c", MAIN, "front", str(finished[0])]
        process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert (process.returncode, process.stderr) == (141, b"")

    def test_a_search_whose_reader_is_gone_ends_quietly_and_goes_on(self, undrawn, tmp_path):
        read, write = os.pipe()
        os.close(read)
        process = subprocess.run(
            [sys.executable, "-c", MAIN, "search", *SMALL, "--budget", "4", "--out", "run"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=write,
        )
        os.close(write)
        assert (process.returncode, process.stdout) == (141, b"")
        assert call("resume", tmp_path / "run", "--json").exit_code == 0


class TestJson:
    @pytest.mark.parametrize(
        ("args", "kind", "code"),
        [
            (["front", "nowhere"], "InputError", 2),
            (["resume", "nowhere"], "InputError", 2),
            (["export", "nowhere"], "InputError", 2),
            (["verify", "nowhere"], "InputError", 2),
            (["report", "nowhere"], "InputError", 2),
            (["confirm", "nowhere", "t.json"], "InputError", 2),
            (["clean", "nowhere"], "InputError", 2),
            (["search", "--budget", "0"], "InputError", 2),
            (["measure", "nowhere.onnx"], "InputError", 2),
            (["profile", "nowhere"], "InputError", 2),
            (["kit", "nowhere"], "InputError", 2),
            (["import", "nowhere.pth", "--as", "a"], "InputError", 2),
            (["init", "nowhere/a.toml"], "InputError", 2),
            (["devices", "check", "nowhere"], "InputError", 2),
            (["search", "--budgte", "3"], "UsageError", 2),
            (["search", "--budget", "many"], "UsageError", 2),
            (["front"], "UsageError", 2),
            (["nowhere"], "UsageError", 2),
        ],
    )
    def test_errors_are_json_too(self, args, kind, code, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = call(*args, "--json")
        error = json.loads(result.stdout)["error"]
        assert (error["type"], error["exit_code"], result.exit_code) == (kind, code, code)
        assert error["message"] in result.stderr
        assert call(*args).stdout == ""

    def test_what_fails_after_its_answer_is_one_document(self, copied):
        next(copied.glob("subnets/*/infer.py")).write_text("print('something else')\n")
        result = call("verify", copied, "--json")
        assert result.exit_code == 1
        assert len(json.loads(result.stdout)) == len(list((copied / "subnets").iterdir()))

    def test_nothing_is_json_too(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert json.loads(call("clean", "--json").stdout)["removed"] == []

    def test_what_is_not_finite_is_null(self, capsys):
        say_json({"a": [float("nan"), float("inf"), 1.5], "b": (None, True, "é\udcff")})
        printed = capsys.readouterr().out
        assert json.loads(printed) == {"a": [None, None, 1.5], "b": [None, True, "é\udcff"]}
        assert printed.isascii()


class TestNames:
    def test_square_brackets_are_printed_as_they_are(self, finished, tmp_path):
        run = linked(finished, tmp_path, MARKUP.replace("/", "\\"))
        for command in ("front", "watch", "verify"):
            assert call(command, run).exit_code == 0
        printed = call("front", run).stdout
        assert f"table    {run}/front.csv" in printed.splitlines()
        assert str(run) in call("clean", run).stdout
        model = next(run.glob("subnets/*/model.onnx"))
        assert str(model) in call("measure", model, "--device", "scripted").stdout

    @pytest.mark.parametrize(
        "args",
        [
            ["front"], ["measure"], ["report"], ["import", "--as", "a"], ["init"],
            ["search", "--supernet"], ["search", "--device"], ["search", "--data"],
            ["search", "--constraint"], ["search", "--freeze"], ["search", "--config"],
            ["devices", "check"],
        ],
    )  # fmt: skip
    def test_they_are_in_messages_as_they_are(self, args, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        if args == ["init"]:
            Path("a[b]").mkdir()
            Path("a[b]/c").touch()
        result = call(*args, "a[b]/c" if args == ["init"] else MARKUP)
        assert result.exit_code == 2
        assert ("a[b]/c" if args == ["init"] else "a[b] [red]c[/red] [/]") in result.stderr

    @pytest.mark.parametrize(
        "args",
        [
            ["front"], ["resume"], ["verify"], ["export"], ["watch"], ["report"], ["clean"],
            ["measure"], ["import", "--as", "a"], ["init"], ["search", "--out"],
            ["search", "--data"], ["search", "--config"], ["search", "--checkpoint"],
            ["kit", "--out"], ["profile"],
        ],
    )  # fmt: skip
    def test_names_that_nothing_can_hold_are_refused_at_the_start(
        self, args, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        name = "a\udcff"
        result = call(*args, name)
        assert result.exit_code == 2
        assert f"{name!r} has bytes that are no UTF-8 text; rename it" in result.stderr
        assert not list(tmp_path.iterdir())
