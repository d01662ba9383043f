import os
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
from hwsearch.trials_schema import MIGRATIONS
from tests.contracts.store_contract import StoreContract, arch, measurement
from tests.permissions import only_readable

DATA = Path(__file__).parent / "data"


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


# Records


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None, "x", np.nan])
@pytest.mark.parametrize("field", ["value", "low", "high", "cost_s"])
def test_a_number_that_is_none_is_refused_by_name(field, bad):
    if bad is None and field in ("low", "high"):
        assert getattr(measurement(**{field: None}), field) is None
        return
    with pytest.raises(InputError, match=f"top1 of a refused: {field} is .*not a finite number"):
        measurement(**{field: bad})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": ""}, "needs a key"),
        ({"quantity": ""}, "needs a quantity"),
        ({"context": ""}, "needs a context"),
        ({"purpose": "serch"}, "unknown purpose .*'search'"),
        ({"low": 2.0, "high": 1.0}, r"low 2\.0 is above its high 1\.0"),
        ({"count": 0}, "count is 0"),
        ({"count": 1.5}, r"count is 1\.5"),
        ({"count": None}, "count is None"),
        ({"cost_s": -1.0}, r"cost_s is -1\.0"),
        ({"samples": np.array([None, "x"])}, "Python objects"),
        ({"details": {"x": float("nan")}}, "plain JSON"),
        ({"details": {"x": np.arange(2)}}, "plain JSON"),
    ],
)
def test_a_measurement_is_checked(changes, message):
    with pytest.raises(InputError, match=message):
        measurement(**changes)


def test_a_measurement_holds_plain_python_numbers():
    made = measurement(value=np.float32(0.5), count=np.int64(3), low=-0.0, details={"t": (1, 2)})
    assert (type(made.value), type(made.count)) == (float, int)
    assert not np.signbit(made.low)
    assert made.details == {"t": [1, 2]}


def test_samples_are_a_read_only_copy():
    made = measurement(samples=[1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        made.samples[0] = 3.0


# The file


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


# Migrations


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
