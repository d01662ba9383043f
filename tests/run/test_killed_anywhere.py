"""Fifty kills at random moments; see `tests.run.killed_anywhere`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost_damaged_or_done_twice(tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.killed_anywhere", str(tmp_path / "killed")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("50 of 50 kills")
