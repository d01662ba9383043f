import shutil
from pathlib import Path

import pytest
import torch

from tests.cli.commands import SMALL, call
from tests.run.search_parts import leave_undrawn
from tests.traces import trace_once


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small networks gain nothing from a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _traced_once():
    with pytest.MonkeyPatch.context() as patch:
        trace_once(patch)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of the command, and what it printed on stdout and on stderr."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = call("search", *SMALL, "--out", folder, "--json")
    assert result.exit_code == 0, result.stderr
    return folder, result.stdout, result.stderr


@pytest.fixture
def undrawn(monkeypatch):
    """Searches write placeholders for pictures and pages, which take longer than they do."""
    leave_undrawn(monkeypatch)


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))
