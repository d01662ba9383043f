"""The store of trials: its contract, and what its file holds after kills and full disks."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hwsearch import trials_schema
from hwsearch.errors import HwsearchError, InputError
from hwsearch.space import Choice, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import TrialState
from tests.contracts.store_contract import StoreContract, arch, measurement


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self):
        with Store() as store:
            yield store


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with Store(tmp_path / "trials.sqlite") as store:
            yield store


class TestSqliteStoreReadByAnother(StoreContract):
    """Writes through one connection and reads through a second, opened anew for each call."""

    @pytest.fixture
    def store(self, tmp_path):
        with Store(tmp_path / "trials.sqlite") as store:
            yield _ReadsElsewhere(store)


class _ReadsElsewhere:
    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        if name not in ("trials", "trial", "find", "measurements"):
            return getattr(self.store, name)

        def read(*args, **kwargs):
            with Store(self.store.path) as other:
                return getattr(other, name)(*args, **kwargs)

        return read


@pytest.mark.parametrize("open_store", [lambda path: Store(), Store])
def test_a_batch_of_a_search_space_is_stored_and_read_back(tmp_path, open_store):
    space = SearchSpace(
        [
            Choice("depth", (1, 2)),
            Choice("block2.width", (0.5, 0.75), active=("depth", (2,))),
            Choice("se", (False, True)),
        ]
    )
    archs = space.enumerate(10)
    with open_store(tmp_path / "trials.sqlite") as store:
        store.propose(archs, round=0, origin="sample")
        trials = store.trials()
    assert [trial.key for trial in trials] == archs.ids
    assert space.architectures([trial.choices for trial in trials]) == archs


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def is_sound(path):
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        return found == [("ok",)] and not connection.execute("PRAGMA foreign_key_check").fetchall()


def test_closing_leaves_one_file_with_everything_in_it(tmp_path):
    path = tmp_path / "trials.sqlite"
    with Store(path) as store:
        store.propose([arch("a")], round=0, origin="sample")
        store.add(measurement(samples=np.arange(5000.0)))
        assert files(tmp_path) == ["trials.sqlite", "trials.sqlite-shm", "trials.sqlite-wal"]
        trials, measurements = store.trials(), store.measurements()
    assert files(tmp_path) == ["trials.sqlite"]
    moved = Path(shutil.copy(path, tmp_path / "elsewhere.sqlite"))
    with Store(moved) as store:
        assert (store.trials(), store.measurements()) == (trials, measurements)
        store.start("a")
    assert is_sound(moved)


def test_an_append_is_on_disk_when_the_call_returns(tmp_path):
    with Store(tmp_path / "trials.sqlite") as store:
        store.propose([arch("a")], round=0, origin="sample")
        store.add(measurement())
        copied = tmp_path / "copy"
        copied.mkdir()
        for name in ("trials.sqlite", "trials.sqlite-wal"):
            shutil.copy(tmp_path / name, copied / name)
        with Store(copied / "trials.sqlite") as other:
            assert other.trials() == store.trials()
            assert other.measurements() == store.measurements()


APPEND = """
import itertools, sys
from hwsearch.trial_store import Store
from tests.contracts.store_contract import arch, measurement

store = Store(sys.argv[1])
start = len(store.trials())
for batch in itertools.count(start // 2):
    keys = [f"{batch}-0", f"{batch}-1"]
    store.propose([arch(key) for key in keys], round=batch, origin="search")
    print("proposed", *keys, flush=True)
    for key in keys:
        store.start(key)
        pair = [measurement(key, purpose=p, samples=range(3000)) for p in ("search", "confirm")]
        store.add_all(pair)
        print("measured", key, flush=True)
        store.finish(key)
        print("finished", key, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "trials.sqlite"
    said = {"proposed": set(), "measured": set(), "finished": set()}
    for n_lines in (1, 40, 61, 83):
        for line in append_until_killed(path, n_lines):
            word, *keys = line.split()
            said[word].update(keys)
        assert path.with_name("trials.sqlite-wal").exists()
        with Store(path) as store:
            trials, measurements = store.trials(), store.measurements()
        assert is_sound(path)
        assert files(tmp_path) == ["trials.sqlite"]
        assert said["proposed"] <= {trial.key for trial in trials}
        done = {trial.key for trial in trials if trial.state is TrialState.DONE}
        assert said["finished"] <= done
        measured = [m.key for m in measurements]
        assert said["measured"] <= set(measured)
        # Batches are whole or absent, also the one that was being written.
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert len(trials) % 2 == 0
        assert all(measured.count(key) == 2 for key in measured)
        assert all(
            m == measurement(m.key, purpose=m.purpose, samples=range(3000)) for m in measurements
        )
    assert len(said["finished"]) > 40


def append_until_killed(path, n_lines):
    """Lines that the appending process printed before it was killed, all of them."""
    child = subprocess.Popen(
        [sys.executable, "-c", APPEND, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with child:
        lines = [child.stdout.readline() for _ in range(n_lines)]
        child.send_signal(signal.SIGKILL)
        # A last line without its end was cut off: not acknowledged.
        lines += child.stdout.read().splitlines(keepends=True)
    assert child.returncode == -signal.SIGKILL
    return [line for line in lines if line.endswith("\n")]


def test_what_a_killed_creation_left_is_no_obstacle(tmp_path):
    (tmp_path / "trials.sqlite.new").write_bytes(b"half a fil")
    with Store(tmp_path / "trials.sqlite") as store:
        assert store.trials() == []
    assert files(tmp_path) == ["trials.sqlite"]


def test_a_creation_that_fails_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    def broken(connection):
        connection.execute("CREATE TABLE half (x)")
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(trials_schema, "MIGRATIONS", (broken,))
    with pytest.raises(InputError, match="disk full"):
        Store(tmp_path / "trials.sqlite")
    assert not (tmp_path / "trials.sqlite").exists()


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing.trials\.sqlite cannot be opened as a store"):
        Store(tmp_path / "missing" / "trials.sqlite")


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_the_log_of_a_store_that_is_gone_is_not_replayed(tmp_path, suffix):
    (tmp_path / f"trials.sqlite{suffix}").write_bytes(b"rows")
    with pytest.raises(InputError, match="belongs to a store that is gone"):
        Store(tmp_path / "trials.sqlite")
    assert files(tmp_path) == [f"trials.sqlite{suffix}"]


def test_a_write_that_the_disk_refuses_says_what_is_safe(tmp_path):
    with Store(tmp_path / "trials.sqlite") as store:
        store.propose([arch("a")], round=0, origin="sample")
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(HwsearchError, match=r"full\. What was stored before is safe"):
            store.add(measurement(samples=np.arange(5000.0)))
        assert store.measurements() == []
        store.start("a")
        assert store.trial("a").state is TrialState.RUNNING
