"""Files of stores: other files, snapshots, and stores of earlier versions."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hwsearch import trials_schema
from hwsearch.errors import HwsearchError, InputError
from hwsearch.trial_store import Store
from hwsearch.trials import TrialState
from hwsearch.trials_schema import MIGRATIONS
from tests.contracts.store_contract import arch, measurement
from tests.permissions import only_readable
from tests.test_trial_store import files

DATA = Path(__file__).parent / "data"


def make_text(path):
    path.write_text("top1,latency\n81.5,2.0\n" * 100)


def make_zero_bytes(path):
    path.touch()


def make_database(*statements):
    def make(path):
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return make


def make_newer(path):
    Store(path).close()
    make_database(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")(path)


def make_truncated(path):
    with Store(path) as store:
        store.propose([arch(str(i)) for i in range(500)], round=0, origin="sample")
    os.truncate(path, path.stat().st_size // 2)


def make_overwritten(path):
    with Store(path) as store:
        store.propose([arch(str(i)) for i in range(500)], round=0, origin="sample")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_text, "is no SQLite database"),
        (make_zero_bytes, "is empty"),
        (make_database("PRAGMA user_version = 1"), "another program"),
        (make_database("CREATE TABLE trials (number, key)"), "another program"),
        (make_database("PRAGMA application_id = 7", "PRAGMA journal_mode=WAL"), "another program"),
        (make_newer, r"schema version 3, written by a newer hwsearch.*up to 2\. Update hwsearch"),
        (make_truncated, "damaged|malformed"),
        (make_overwritten, "damaged|malformed"),
        (Path.mkdir, "cannot be opened as a store"),
    ],
    ids=[
        "text",
        "zero bytes",
        "empty database",
        "their table",
        "their id",
        "newer",
        "truncated",
        "overwritten",
        "folder",
    ],
)
@pytest.mark.parametrize("opened", [Store, Store.snapshot], ids=["store", "snapshot"])
def test_what_is_no_store_is_refused_and_left_as_it_was(tmp_path, opened, make, message):
    path = tmp_path / "given"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError, match=message) as refused:
        opened(path)
    assert str(path) in str(refused.value)
    assert files(tmp_path) == ["given"]
    assert before is None or path.read_bytes() == before


class TestSnapshot:
    """A copy in memory, of a store that may only be read."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "run").mkdir()
        return tmp_path / "run"

    def check(self, folder, name="trials.sqlite", n=3):
        before = files(folder)
        with only_readable(folder), Store.snapshot(folder / name) as store:
            assert len(store.trials()) == n
        with Store.snapshot(folder / name) as store:
            assert len(store.trials()) == n
        assert files(folder) == before

    @pytest.fixture
    def open_(self, folder):
        with Store(folder / "trials.sqlite") as store:
            store.propose([arch(str(i)) for i in range(3)], round=0, origin="sample")
            yield store

    def test_of_a_closed_store(self, folder, open_):
        open_.close()
        self.check(folder)

    def test_of_one_that_a_process_writes(self, folder, open_):
        assert "trials.sqlite-wal" in files(folder)
        self.check(folder)
        open_.propose([arch("more")], round=1, origin="sample")
        self.check(folder, n=4)

    def test_of_one_whose_process_was_killed(self, folder, open_, tmp_path):
        (tmp_path / "killed").mkdir()
        for name in ("trials.sqlite", "trials.sqlite-wal"):
            shutil.copy(folder / name, tmp_path / "killed")
        self.check(tmp_path / "killed")

    def test_of_an_old_version_is_brought_up_to_date_in_memory_alone(self, folder):
        shutil.copy(DATA / "trials_v1.db", folder)
        before = (folder / "trials_v1.db").read_bytes()
        self.check(folder, "trials_v1.db", 4)
        assert (folder / "trials_v1.db").read_bytes() == before

    def test_of_a_path_that_a_uri_would_cut(self, folder, open_):
        open_.close()
        (folder / "trials.sqlite").rename(folder / "100%3F?mode=rw#.sqlite")
        self.check(folder, "100%3F?mode=rw#.sqlite")

    def test_of_none_is_refused(self, folder):
        with pytest.raises(InputError, match="cannot be opened as a store"):
            Store.snapshot(folder / "trials.sqlite")
        assert files(folder) == []


def test_a_file_of_schema_version_1_opens(tmp_path):
    path = Path(shutil.copy(DATA / "trials_v1.db", tmp_path))
    with Store(path) as store:
        trials = store.trials()
        assert [(t.key, t.state.value, t.reason, t.round, t.origin) for t in trials] == [
            ("a", "done", None, 0, "sample"),
            ("b", "failed", "the runtime crashed", 0, "sample"),
            ("c", "running", None, 1, "search"),
            ("d", "proposed", None, 1, "search"),
        ]
        assert trials[0].choices == {"depth": 2, "width": 0.1, "kind": "mb", "se": True}
        top1, latency = store.measurements()
        assert top1 == measurement(
            low=79.7, high=82.8, samples=np.array([True, False, True, True]), count=4
        )
        assert latency.details == {"warnings": ["noisy"], "ratio": 1 / 3}
        assert (latency.value, latency.low, latency.high) == (2.1, 2.0, None)
        assert not any(trial.forecast for trial in trials)
        store.finish("c")


def test_a_file_of_schema_version_2_opens(tmp_path):
    path = Path(shutil.copy(DATA / "trials_v2.db", tmp_path))
    with Store(path) as store:
        assert [trial.key for trial in store.trials() if trial.forecast] == ["e"]
        assert store.trial("e").forecast == {"top1": (81.5, 0.25), "latency": (2.5, 1 / 3)}
        assert len(store.measurements()) == 2


def test_a_store_with_measurements_of_a_race_opens(tmp_path):
    path = Path(shutil.copy(DATA / "trials_with_race.db", tmp_path))
    with Store(path) as store:
        assert [trial.state for trial in store.trials()] == [TrialState.DONE] * 2
        assert [m.purpose for m in store.measurements()] == ["search", "race"]
        assert [m.key for m in store.measurements(purpose="search")] == ["a"]
        assert store.measurements("b")[0].details["estimate"] == 51.5


def test_every_released_schema_version_has_a_kept_file():
    assert [path.name for path in sorted(DATA.glob("trials_v*.db"))] == [
        f"trials_v{n}.db" for n in range(1, len(MIGRATIONS) + 1)
    ]


def test_the_schema_of_a_version_does_not_change(tmp_path):
    Store(tmp_path / "new.db").close()
    kept = Path(shutil.copy(DATA / f"trials_v{len(MIGRATIONS)}.db", tmp_path))
    schemas = []
    for path in (tmp_path / "new.db", kept):
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT name, sql FROM sqlite_schema ORDER BY name"
            schemas.append(connection.execute(query).fetchall())
    assert schemas[0] == schemas[1]


def test_migrations_run_once_and_each_in_its_own_transaction(tmp_path, monkeypatch):
    path = tmp_path / "trials.sqlite"
    Store(path).close()

    def add_a_column(connection):
        connection.execute("ALTER TABLE trials ADD COLUMN note TEXT")

    def break_off(connection):
        connection.execute("ALTER TABLE trials ADD COLUMN more TEXT")
        raise sqlite3.OperationalError("broke off")

    monkeypatch.setattr(trials_schema, "MIGRATIONS", (*MIGRATIONS, add_a_column, break_off))
    for _ in range(2):
        with pytest.raises(InputError, match="broke off"):
            Store(path)
        assert files(tmp_path) == ["trials.sqlite"]
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (3,)
            columns = [row[1] for row in connection.execute("PRAGMA table_info(trials)")]
            assert columns[-1] == "note"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trials SET choices = '['",
        "UPDATE trials SET choices = '" + "[" * 100_000 + "'",
        "UPDATE trials SET origin = CAST(x'80' AS TEXT)",
        "UPDATE trials SET forecast = '7'",
    ],
)
def test_a_row_that_no_store_wrote_is_refused(change, tmp_path):
    path = Path(shutil.copy(DATA / "trials_v2.db", tmp_path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    with Store(path) as store, pytest.raises(HwsearchError, match=r"damaged|cannot be read"):
        store.trials()
