"""Calling the command line, in this process and in one of its own."""

import os
import sqlite3
import subprocess
import sys
import time

from typer.testing import CliRunner

from hwsearch.cli import app

SMALL = ["--supernet", "test-images", "--device", "scripted"]
SMALL += ["--data", "hwsearch_test_plugin:image_task", "--budget", "8", "--tactic", "random"]
MAIN = "from hwsearch.cli import main; main()"


def call(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


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


def refused(result, *parts):
    """Check that bad input got one line that names everything, and exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    # Images have to be read before it is known that they cannot be decoded.
    (line,) = (each for each in result.stderr.splitlines() if not each.startswith("read: "))
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    return line
