"""Stopping a search, by Ctrl-C and by kill -9."""

import json
import os
import signal
from pathlib import Path

import pytest

import hwsearch
from tests.cli.commands import SMALL, call, files, start, wait_for_measurements

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("undrawn")]


class TestStopping:
    def test_ctrl_c_says_how_to_go_on_and_that_works(self, finished, tmp_path, monkeypatch):
        process = start("search", *SMALL, cwd=tmp_path)
        folder = Path("runs/test-images-scripted")
        wait_for_measurements(tmp_path / folder / "trials.sqlite", 5, process)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=100)
        assert process.returncode == 130
        assert printed == ""
        assert said.splitlines()[-1] == (
            f"stopped; everything measured so far is kept, go on with: hwsearch resume {folder}"
        )
        assert "Traceback" not in said
        run = hwsearch.Run(tmp_path / folder)
        assert not run.finished
        assert {path.name for path in run.folder.iterdir()} >= {"config.toml", "trials.sqlite"}
        before = [m.identity for m in run.measurements()]
        assert len(before) >= 5

        monkeypatch.chdir(tmp_path)
        result = call("resume", folder, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == json.loads(finished[1])
        after = [m.identity for m in run.measurements()]
        assert after[: len(before)] == before
        assert len(set(after)) == len(after)
        assert len(run.trials) == 8

    @pytest.mark.slow  # tests/run/test_killed.py is the same without a process
    def test_a_process_that_is_killed_is_resumed_to_the_same_front(self, finished, tmp_path):
        process = start("search", *SMALL, "--out", "run", cwd=tmp_path)
        wait_for_measurements(tmp_path / "run" / "trials.sqlite", 6, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=100)
        result = call("resume", tmp_path / "run", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == json.loads(finished[1])
        assert files(tmp_path / "run").keys() == files(finished[0]).keys()
