"""Commands that only read, on a run that may only be read: another user's, or of an archive."""

import errno
import json
import os
import shutil
import sqlite3
import sys

import pytest

import hwsearch
from hwsearch.trial_store import Store
from tests.cli.commands import SMALL, call
from tests.permissions import only_readable

pytestmark = pytest.mark.timeout(300)


PROTECTED = []
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate")


def refuse_changes(event, args):
    """Refuse what would change a protected folder, as a read-only file system does."""
    if not PROTECTED or not (event in ("open", "sqlite3.connect") or event in CHANGES):
        return
    path = args[0]
    if not isinstance(path, str | bytes | os.PathLike) or PROTECTED[0] not in os.fsdecode(path):
        return
    path = os.fsdecode(path)
    writes = event in CHANGES
    if event == "open" and isinstance(args[2], int):
        writes = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if event == "sqlite3.connect":
        writes = "immutable=1" not in path
    if writes:
        raise PermissionError(errno.EROFS, f"Read-only file system ({event})", path)


sys.addaudithook(refuse_changes)


@pytest.fixture
def readable(copied):
    """The run while it may only be read, and nothing in it may change."""
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    for path in (copied, *copied.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    PROTECTED.append(str(copied))
    yield copied
    PROTECTED.clear()
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    for path in (copied, *copied.rglob("*")):
        path.chmod(0o755)


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.mark.parametrize("command", [["front"], ["front", "--json"], ["watch"], ["clean"]])
def test_is_shown(readable, command):
    result = call(*command, readable)
    assert result.exit_code == 0, result.output


def test_is_read_from_python(readable):
    run = hwsearch.Run(readable)
    assert len(run.trials) == 8
    assert run.measurements()
    assert len(run.front)
    assert run._repr_html_()
    assert run.plot().data


def test_has_its_report_elsewhere(readable, mine):
    result = call("report", readable, "--out", mine / "a.html", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [str(mine / "a.html"), str(mine / "a-front.png")]
    assert call("report", readable, readable, "--out", mine / "b.html").exit_code == 0


def test_its_own_report_is_refused_with_what_to_do(readable):
    result = call("report", readable)
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert "--out" in result.stderr


def test_is_exported_as_files_that_may_be_written(readable, mine):
    result = call("export", readable, "--select", "knee", "--to", mine, "--json")
    assert result.exit_code == 0, result.output
    (folder,) = json.loads(result.stdout)
    for path in (mine / folder, *(mine / folder).iterdir()):
        assert path.stat().st_mode & 0o200, path


def test_is_verified(readable):
    result = call("verify", readable, "--json")
    assert set(json.loads(result.stdout).values()) == {None}, result.output


def test_starts_a_search(readable, undrawn, mine):
    given = [*SMALL, "--warm-start", readable, "--out", mine / "second"]
    result = call("search", *given, "--json")
    assert result.exit_code == 0, result.output


def test_one_whose_process_was_killed_is_shown(copied):
    """It left a write-ahead log, and a reader may not bring it into the file."""
    path = copied / "trials.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE trials SET origin = 'killed' WHERE number = 0")
    killed = copied.with_name("killed")
    shutil.copytree(copied, killed)
    connection.close()
    assert (killed / "trials.sqlite-wal").stat().st_size
    (killed / "trials.sqlite-shm").unlink()
    with only_readable(killed):
        with Store.snapshot(killed / "trials.sqlite") as store:
            assert store.trials()[0].origin == "killed"
        assert not (killed / "trials.sqlite-shm").exists()
