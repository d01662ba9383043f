import shutil
from pathlib import Path

import pytest
import torch

from tests.cli.commands import SMALL, start


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small networks gain nothing from a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
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
